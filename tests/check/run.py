"""run.py ROOT WORK [--list] [--only REGEX]: see check.sh.

A case breaks a configuration that works. check must find it by name, each remedy is done as it is printed until nothing is
found any more, and then a user moves from a to b and back, and sees everything.
"""

import argparse
import imaplib
import json
import os
import re
import socket
import subprocess
import sys
import time

from clusters import CLUSTERS
from mistakes import MISTAKES

HERE = os.path.dirname(os.path.abspath(__file__))
MAIL = b"Subject: hello\r\n\r\nHello.\r\n"


class Backend:
    def __init__(self, root, store, name, port):
        self.port = port
        command = ["unshare", "--uts", "sh", "-c", f'hostname {name}.example.org; exec "$@"', "sh", f"{HERE}/../lib/in-root.sh", root,
                   "python3", f"{HERE}/agent.py"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask("prepare", store)

    def ask(self, *request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{request[0]}: the backend's agent ended")
        return json.loads(answer)

    def start(self):
        return self.ask("start", self.port, self.command)

    def end(self):
        self.process.stdin.close()
        self.process.wait()

    def login(self, user):
        connection = imaplib.IMAP4("127.0.0.1", self.port, timeout=30)
        connection.login(user, "x")
        return connection

    def look(self, user, *changes):
        """What the user sees, and then changes: FOLDER is made if it is new, and gets a mail."""
        connection = self.login(user)
        seen = {}
        for line in connection.list()[1]:
            folder = re.fullmatch(rb'\(.*?\) "." "?(.*?)"?', line).group(1).decode()
            answer = connection.status(f'"{folder}"', "(MESSAGES)")
            if answer[0] == "OK":
                seen[folder] = int(re.search(rb"MESSAGES (\d+)", answer[1][0]).group(1))
        for folder in changes:
            if folder not in seen:
                connection.create(folder)
            connection.append(folder, None, None, MAIL)
        connection.logout()
        return seen


def moves(backends, user, case):
    """From one backend to the next: each shows what was done on those before."""
    book = {}
    for number, backend in enumerate(backends):
        folder = f"{case}-{number}"
        changes = [folder] + list(book)[:1]
        seen = backend.look(user, *changes)
        mine = {key: value for key, value in seen.items() if key.startswith(f"{case}-")}
        if mine != book:
            return f"{user} saw {mine} at look {number}, there is {book}"
        for change in changes:
            book[change] = book.get(change, 0) + 1
    return ""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def run(case, number, version, store, a, b):
    mails = f"{store}/{number}"
    os.mkdir(mails)
    os.chmod(mails, 0o777)
    for backend in (a, b):
        backend.command = case.start
        error = backend.ask("begin", case.files(version, mails, backend.port), case.commands(mails))
        if error:
            return error
    error = a.start()
    if case.starts == bool(error):
        return f"expected Dovecot {'to start' if case.starts else 'not to start'}: {error}"
    if case.fails:
        # With several logins in one process, the first is good.
        try:
            for _ in range(3):
                a.look(case.users[0])
            return "logins do not fail although this is critical"
        except (imaplib.IMAP4.error, OSError):
            pass
    if case.lost:
        # It is where it would be if the location were right.
        a.look(case.users[0], f"c{number}")
        if a.ask("shell", f"ls -d {mails}/{case.users[0]}/mdbox")[0] == 0:
            return "mail is found although this is critical"
    for command in case.after:
        a.ask("shell", command)
    seen, ask = [], list(case.ask)
    for _ in range(12):
        answer = a.ask("check", ask)
        if "error" in answer:
            return answer["error"]
        seen.append([(found["id"], found["severity"]) for found in answer["findings"]])
        # A hint may have no remedy: here the store is on a local disk.
        findings = [found for found in answer["findings"] if found["severity"] != "hint" or found["command"] or found["file"]]
        if not findings and (len(seen) > 1 or case.finds is None):
            break
        if len(seen) == 1:
            ids = {found["id"] for found in answer["findings"]}
            if case.finds is None or case.finds not in ids and case not in CLUSTERS:
                return f"expected {case.finds}: {json.dumps(findings, indent=1)}"
            if (case.fails or case.lost or not case.starts) != any(found["severity"] == "critical" for found in findings):
                return f"wrong severity: {findings}"
            if case.only_found:
                return ""
        if not findings:
            break
        remedied = [found for found in findings if found["command"] or found["file"]]
        for found in findings:
            if found not in remedied and found["id"] in case.by_hand:
                command = case.by_hand[found["id"]].replace("@STORE@", mails)
                if command.startswith("--user "):
                    ask = [command.removeprefix("--user ")]
                    command = "true"
                remedied.append({**found, "command": command})
        # What a restart mends needs no line.
        if not remedied and {found["id"] for found in findings} - {"not_running", "not_reloaded"}:
            return f"no remedy: {findings}"
        for finding in remedied[:1]:
            # b does not run yet.
            for backend in (a,) if "doveadm" in (finding["command"] or "") else (a, b):
                error = backend.ask("apply", finding)
                if error:
                    return f"{finding}: {error}"
        a.ask("boot")
        a.start()
    else:
        return f"never silent: {seen} {json.dumps(findings, indent=1)}"
    if case.finds is not None and all(case.finds != found for findings in seen for found, _ in findings):
        return f"{case.finds} is not found: {seen}"
    for backend in (a, b):
        backend.ask("boot")
        error = backend.start()
        if error:
            return f"Dovecot does not start after all remedies: {error}"
    for user, rounds in zip(case.users, (5, 3)):
        error = moves((a, b, a, b, a)[:rounds], user, f"c{number}")
        if error:
            return f"after all remedies: {error}\n{a.ask('log')}"
    log = a.ask("log")
    if re.search(r"Panic|Fatal", log):
        return log
    files = a.ask("shell", "find /dev/shm -name '*list.index*' -size +0 | head -3")[1]
    if case.local != bool(files):
        return f"{'nobody' if case.local else 'somebody'} has a local list index after all remedies\n{log}"
    return ""


# What network.py needs; a container may lack it.
FUSE = "/dev/fuse"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("work")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    version = "2.4" if options.root == "trixie" else "2.3"
    cases = [case for case in MISTAKES + CLUSTERS if case.only in (None, version) and re.search(options.only, f"{case.name} ({case.finds})")]
    if options.list:
        print("\n".join(f"{case.name} ({case.finds})" for case in cases))
        return 0
    skipped = [case for case in cases if case.finds == "network_list_index" and not os.path.exists(FUSE)]
    for case in skipped:
        print(f"skip  {case.name} ({case.finds}): there is no {FUSE}", flush=True)
    cases = [case for case in cases if case not in skipped]
    store = f"{options.work}/{options.root}"
    os.mkdir(store)
    os.chmod(store, 0o755)
    os.symlink("../bin", f"{store}/bin")
    a, b = (Backend(options.root, store, name, free_port()) for name in "ab")
    failed = 0
    for number, case in enumerate(cases):
        # One that fails is run once more, and says so: on a busy machine a Dovecot may be too slow for it.
        for verdict, place in ("again", number), ("FAIL", number + len(cases)):
            started = time.time()
            try:
                error = run(case, place, version, store, a, b)
            except (imaplib.IMAP4.error, OSError) as exception:
                error = f"{type(exception).__name__}: {exception}\n{a.ask('log')}{b.ask('log')}"
            took = f"({(time.time() - started) * 1000:.0f} ms)"
            print(f"{verdict if error else 'ok':5} {case.name} ({case.finds}) {took}", flush=True)
            if error:
                print("\n".join("      | " + line for line in error.splitlines()[-40:]), flush=True)
            if not error:
                break
        failed += bool(error)
    for backend in (a, b):
        backend.end()
    for group in ("/sys/fs/cgroup/nfs-hostchange-check", "/sys/fs/cgroup/memory/nfs-hostchange-check"):
        if os.path.isdir(group):
            os.rmdir(group)
    print(f"{len(cases) - failed} passed, {failed} failed, {len(skipped)} skipped")
    return int(failed > 0)


sys.exit(main())
