"""A syslog of the tests' own.

    syslogd.py SOCKET FILE   writes each message that arrives at SOCKET to FILE, a line each
    syslogd.py SOCKET full   fills the queue of a SOCKET whose reader has stopped
"""

import os
import socket
import sys


def collect(path, file):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(path)
    os.chmod(path, 0o666)
    with open(file, "ab", buffering=0) as messages:
        while True:
            messages.write(sock.recv(65536).replace(b"\n", b"\\n") + b"\n")


def fill(path):
    # Each sender has a limit of its own as well: it is full when a fresh one gets nothing in.
    while True:
        sent = 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(path)
            try:
                while True:
                    sock.send(b"<22>filler")
                    sent += 1
            except BlockingIOError:
                pass
        if sent == 0:
            return


if sys.argv[2] == "full":
    fill(sys.argv[1])
else:
    collect(sys.argv[1], sys.argv[2])
