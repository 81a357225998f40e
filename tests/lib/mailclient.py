"""A mail user's programs, for the tests: IMAP and POP3 sessions and LMTP deliveries.

    mailclient.py imap PORT USER COMMAND...   one session, then logged out; COMMAND is
        look                  "FOLDER MESSAGES" per line, sorted, as LIST with STATUS answers
        names                 the folders, sorted, as a plain LIST answers
        create:F  delete:F  rename:F:G  append:F  select:F
        expunge:F             deletes the first mail
        idle  done            begins to wait in IDLE, and ends it
        count:F               the number of mails, by STATUS
    mailclient.py hold PORT USER              the same, COMMANDs from stdin until "quit"; answers end in "."
    mailclient.py pop3 PORT USER [dele]       prints the number of mails; deletes the first
    mailclient.py submission PORT USER        logs in, and sends nothing
    mailclient.py sieve PORT USER             the same by ManageSieve
    mailclient.py lmtp PORT RCPT...           delivers one mail to each
    mailclient.py storm PORT USER=FILE...     LOGINS sessions of each user at once (LOGINS from
                                              the environment); each look must equal FILE
    mailclient.py ports N                     N free ports
    mailclient.py serve                       the above, one a line from stdin with tabs between the
                                              words; answers in lines: "o" and output, "e" and what
                                              went wrong, last "x" and the exit status

Anything that goes wrong is said on stderr, with exit status 1.
"""

import base64
import contextlib
import imaplib
import io
import os
import poplib
import random
import re
import smtplib
import socket
import sys
import threading

HOST = "127.0.0.1"
PASSWORD = "pw"
MAIL = b"From: <a@example.org>\r\nTo: <b@example.org>\r\nSubject: hello\r\n\r\nHello.\r\n"


class Failure(Exception):
    """What the server refused, in its words."""


class Session:
    """An IMAP session of one user."""

    def __init__(self, port, user):
        self.imap = imaplib.IMAP4(HOST, port, timeout=60)
        self.check(self.imap.login(user, PASSWORD))

    @staticmethod
    def check(answer):
        status, data = answer
        if status != "OK":
            raise Failure(data[0].decode(errors="replace") if data and data[0] else status)
        return data

    def lines(self, name):
        """The untagged responses NAME of the last command."""
        return [line.decode() for line in self.imap.response(name)[1] if line is not None]

    def run(self, command):
        """Does one COMMAND and returns what there is to print."""
        verb, *args = command.split(":")
        return getattr(self, "do_" + verb)(*args)

    def folders(self):
        """The names in the LIST responses of the last command, without those that hold no mail."""
        names = []
        for line in self.lines("LIST"):
            flags, name = re.fullmatch(r'\(([^)]*)\) (?:"[^"]*"|NIL) "?([^"]*)"?', line).groups()
            if "\\Noselect" not in flags and "\\NonExistent" not in flags:
                names.append(name)
        return sorted(names)

    def do_look(self):
        self.check(self.imap.xatom("LIST", '"" "*" RETURN (STATUS (MESSAGES))'))
        seen = {name: "?" for name in self.folders()}
        for line in self.lines("STATUS"):
            name, count = re.fullmatch(r'"?([^"]*?)"? \(MESSAGES (\d+)\)', line).groups()
            seen[name] = count
        return [f"{name} {seen[name]}" for name in sorted(seen)]

    def do_names(self):
        self.check(self.imap.xatom("LIST", '"" "*"'))
        return self.folders()

    def do_create(self, folder):
        self.check(self.imap.create(folder))
        return []

    def do_delete(self, folder):
        self.check(self.imap.delete(folder))
        return []

    def do_rename(self, old, new):
        self.check(self.imap.rename(old, new))
        return []

    def do_append(self, folder):
        self.check(self.imap.append(folder, None, None, MAIL))
        return []

    def do_select(self, folder):
        self.check(self.imap.select(folder))
        return []

    def do_expunge(self, folder):
        self.check(self.imap.select(folder))
        self.check(self.imap.store("1", "+FLAGS", "\\Deleted"))
        self.check(self.imap.expunge())
        self.check(self.imap.unselect())
        return []

    def do_count(self, folder):
        (line,) = self.check(self.imap.status(folder, "(MESSAGES)"))
        return re.findall(r"MESSAGES (\d+)", line.decode())

    @contextlib.contextmanager
    def idle(self):
        """The session waits in IDLE meanwhile."""
        tag = self.imap._new_tag()
        self.imap.send(tag + b" IDLE\r\n")
        if not self.imap.readline().startswith(b"+"):
            raise Failure("IDLE was refused")
        yield
        self.imap.send(b"DONE\r\n")
        while not (line := self.imap.readline()).startswith(tag):
            if not line:
                raise Failure("the connection was closed in IDLE")

    def do_idle(self):
        self.waiting = self.idle()
        self.waiting.__enter__()
        return []

    def do_done(self):
        self.waiting.__exit__(None, None, None)
        return []

    def close(self):
        self.imap.logout()


def imap(port, user, *commands):
    session = Session(int(port), user)
    for command in commands:
        for line in session.run(command):
            print(line)
    session.close()


def hold(port, user):
    session = Session(int(port), user)
    print(".", flush=True)
    for command in sys.stdin:
        if command == "quit\n":
            break
        try:
            for line in session.run(command.rstrip("\n")):
                print(line)
        except (Failure, imaplib.IMAP4.error) as error:
            print(f"failed: {error}")
        print(".", flush=True)
    session.close()


def pop3(port, user, what=None):
    session = poplib.POP3(HOST, int(port), timeout=60)
    session.user(user)
    session.pass_(PASSWORD)
    print(session.stat()[0])
    if what == "dele":
        session.dele(1)
    session.quit()


def submission(port, user):
    client = smtplib.SMTP(HOST, int(port), timeout=60)
    client.login(user, PASSWORD)
    # Where Dovecot cannot reach the server behind it, it says so instead of good-bye.
    client.close()


def sieve(port, user):
    with socket.create_connection((HOST, int(port)), timeout=60) as connection:
        lines = connection.makefile("rwb")

        def answer():
            while line := lines.readline():
                if line.startswith(b"OK"):
                    return
                if line.startswith((b"NO", b"BYE")):
                    raise Failure(line.decode())
            raise Failure("the connection was closed")

        answer()
        secret = base64.b64encode(f"\0{user}\0{PASSWORD}".encode()).decode()
        for command in (f'AUTHENTICATE "PLAIN" "{secret}"', "LISTSCRIPTS", "LOGOUT"):
            lines.write(command.encode() + b"\r\n")
            lines.flush()
            answer()


def lmtp(port, *recipients):
    with smtplib.LMTP(HOST, int(port)) as client:
        refused = client.sendmail("a@example.org", recipients, MAIL)
    if refused:
        raise Failure(repr(refused))


def storm(port, *users):
    logins = int(os.environ["LOGINS"])
    wrong = []
    gate = threading.Barrier(logins * len(users))

    def one(user, expected):
        gate.wait()
        try:
            session = Session(int(port), user)
            seen = session.run("look")
            session.close()
        except Exception as error:  # every failure is counted, whatever its kind
            wrong.append(f"{user}: {type(error).__name__}: {error}")
            return
        if seen != expected:
            wrong.append(f"{user} saw {seen}, not {expected}")

    threads = []
    for argument in users:
        user, path = argument.split("=", 1)
        with open(path, encoding="utf-8") as file:
            expected = file.read().splitlines()
        threads += [threading.Thread(target=one, args=(user, expected)) for _ in range(logins)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{len(threads)} logins, {len(wrong)} wrong")
    if wrong:
        raise Failure("\n".join(wrong[:10]))


def free_ports(count):
    """Not of those that the kernel gives to clients: one might have it before the server does."""
    found = set()
    while len(found) < count:
        port = random.randrange(10_000, 32_768)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((HOST, port))
            found.add(port)
    return list(found)


def ports(count):
    print(*free_ports(int(count)))


def serve():
    for line in sys.stdin:
        answer = io.StringIO()
        try:
            with contextlib.redirect_stdout(answer):
                act(*line.rstrip("\n").split("\t"))
            problem = []
        except PROBLEMS as error:
            problem = in_words(line.split("\t")[:3], error).splitlines()
        for text in answer.getvalue().splitlines():
            print("o" + text)
        for text in problem:
            print("e" + text)
        print("x1" if problem else "x0", flush=True)


PROBLEMS = (Failure, OSError, EOFError, imaplib.IMAP4.error, poplib.error_proto, smtplib.SMTPException)


def in_words(what, error):
    return f"{' '.join(what)}: {type(error).__name__}: {error}"


def act(name, *arguments):
    actions = {f.__name__: f for f in (imap, hold, pop3, submission, sieve, lmtp, storm, ports, serve)}
    actions[name](*arguments)


def main():
    try:
        act(*sys.argv[1:])
    except PROBLEMS as error:
        print(in_words(sys.argv[1:4], error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
