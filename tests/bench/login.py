"""IMAP logins against several Dovecots, interleaved.

    login.py ROUNDS 1 NAME=PORT...  in each round one login at each; prints
                                    "ROUND NAME NANOSECONDS", from LOGIN to its answer
    login.py ROUNDS N NAME=PORT...  in each round 20 sessions by each of N clients at once, from
                                    connection to the end of LOGOUT; prints "ROUND NAME SESSIONS/S"
"""

import concurrent.futures
import random
import socket
import sys
import time

SESSIONS = 20
WARM_UP = 5


def session(port, user="alice"):
    """One session; how long its login took, in nanoseconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = connection.makefile("rb")
        stream.readline()
        begin = time.monotonic_ns()
        connection.sendall(f"a LOGIN {user} pw\r\n".encode())
        answer = read_until(stream, b"a ")
        taken = time.monotonic_ns() - begin
        if not answer.startswith(b"a OK"):
            raise SystemExit(f"login.py: {answer!r}")
        connection.sendall(b"b LOGOUT\r\n")
        read_until(stream, b"b ")
        stream.read()
    return taken


def read_until(stream, tag):
    """The line that begins with `tag`."""
    while line := stream.readline():
        if line.startswith(tag):
            return line
    raise SystemExit("login.py: the connection was closed")


def sessions(port):
    """What one of several clients does."""
    for _ in range(SESSIONS):
        session(port)


def main():
    rounds, clients = int(sys.argv[1]), int(sys.argv[2])
    targets = [(name, int(port)) for name, port in (target.split("=") for target in sys.argv[3:])]
    for _ in range(WARM_UP):
        for _, port in targets:
            session(port)
    with concurrent.futures.ProcessPoolExecutor(clients) as pool:
        for number in range(rounds):
            random.shuffle(targets)
            for name, port in targets:
                if clients == 1:
                    print(number, name, session(port))
                else:
                    begin = time.monotonic()
                    list(pool.map(sessions, [port] * clients))
                    print(number, name, clients * SESSIONS / (time.monotonic() - begin))


if __name__ == "__main__":
    main()
