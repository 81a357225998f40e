"""The little of IMAP and LMTP that the cases speak."""

import re
import smtplib
import socket

TIMEOUT = 120  # seconds; a login may have to wait for a server that comes back


class Imap:
    """One session. Mailbox names are plain atoms."""

    def __init__(self, port, user):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        self.file = self.socket.makefile("rb")
        self.tag = 0
        self.file.readline()
        self.command(f"LOGIN {user} secret")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if exception[0] is None:
            self.logout()
        else:
            self.socket.close()

    def logout(self):
        self.command("LOGOUT")
        # The server's end closes when its process is done with the user's files.
        self.file.read()
        self.file.close()
        self.socket.close()

    def send(self, text):
        self.tag += 1
        self.socket.sendall(f"{self.tag} {text}\r\n".encode())
        return str(self.tag)

    def answer(self, tag):
        """Untagged lines up to the tagged one, which must be OK."""
        lines = []
        while True:
            line = self.file.readline().decode(errors="replace").rstrip("\r\n")
            if not line:
                raise RuntimeError(f"connection closed after {lines}")
            if line.startswith(tag + " "):
                if not line.startswith(f"{tag} OK"):
                    raise RuntimeError(line)
                return lines
            lines.append(line)

    def command(self, text):
        return self.answer(self.send(text))

    def list(self):
        """The names of all folders, sorted."""
        return sorted(line.split()[-1].strip('"') for line in self.command('LIST "" *') if line.startswith("* LIST"))

    def status(self, folders):
        """Folder -> number of messages, each by a STATUS of its own, all sent at once."""
        tags = [(folder, self.send(f"STATUS {folder} (MESSAGES UNSEEN UIDNEXT)")) for folder in folders]
        counts = {}
        for folder, tag in tags:
            for line in self.answer(tag):
                found = re.match(r"\* STATUS .*MESSAGES (\d+)", line)
                if found:
                    counts[folder] = int(found[1])
        return counts

    def look(self):
        """Folder -> number of messages, of all folders that LIST knows."""
        return self.status(self.list())

    def create(self, *folders):
        for tag in [self.send(f"CREATE {folder}") for folder in folders]:
            self.answer(tag)

    def delete(self, folder):
        self.command(f"DELETE {folder}")

    def rename(self, old, new):
        self.command(f"RENAME {old} {new}")

    def append(self, folder, text="hello"):
        message = f"Subject: {text}\r\n\r\n{text}\r\n"
        self.command(f"APPEND {folder} {{{len(message)}+}}\r\n{message}")


def greets(port):
    """Whether somebody who speaks IMAP listens there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
            return connection.makefile("rb").readline().startswith(b"* OK")
    except OSError:
        return False


def lmtp(path, user, body):
    """Delivers one mail."""
    with smtplib.LMTP(path, timeout=TIMEOUT) as client:
        client.sendmail("a@example.org", user, f"Subject: {body}\r\n\r\n{body}\r\n")
