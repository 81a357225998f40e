"""Mail sessions with and without the plugin, interleaved, and what they take; for run.sh.

    plugin.py --results DIRECTORY --rounds N --sessions N --users N --wrapper FILE --exec FILE ROOT=MODULES...

Each ROOT is a Debian with a Dovecot; in MODULES are the plugin for it, one that does nothing, one that only makes the
system calls, and two that note the time around the hook of any of them. Writes into DIRECTORY

    plugin.rounds   RELEASE LOAD ROUND NAME SESSIONS SECONDS PROCESSOR-SECONDS
    plugin.hook     RELEASE new|used NAME NANOSECONDS, the hook at the beginning of a session
    plugin.memory   RELEASE NAME KILOBYTES, what each of several open sessions has for itself
"""

import argparse
import concurrent.futures
import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "plugin"))
import login  # noqa: E402
from backends import PLUGIN, Machine, Site, wait_until  # noqa: E402

OPEN = 5
USED = 1000


def pop3(port, user):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = connection.makefile("rb")
        for line in ("", f"USER {user}\r\n", "PASS pw\r\n", "QUIT\r\n"):
            connection.sendall(line.encode())
            answer = stream.readline()
            if not answer.startswith(b"+OK"):
                raise SystemExit(f"plugin.py: {line}: {answer}")
        stream.read()


class Dovecot:
    """One candidate's, in a control group of its own."""

    def __init__(self, machine, options, name, groups, **site):
        self.name = name
        self.site = Site((machine,), below="/dev/shm", users=options.users, **site)
        self.backend = self.site.a
        self.group = groups / self.site.dir.name
        self.group.mkdir()
        master = self.backend.process.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        for pid in (master, *children):
            with contextlib.suppress(ProcessLookupError):
                (self.group / "cgroup.procs").write_text(str(pid))
        self.users = [self.site.new_user() for _ in range(options.users)]

    def settle(self):
        """Every user has mail, and the list index is in step."""
        for user in self.users:
            self.backend.imap(user, "create:work", "append:work", "look")
            self.backend.look(user)

    def processor(self):
        """Seconds that all of its processes have taken."""
        return int(re.search(r"^usage_usec (\d+)$", (self.group / "cpu.stat").read_text(), re.MULTILINE)[1]) / 1e6

    def measure(self, work):
        """What WORK took: the number of sessions, by the clock, and of the processor."""
        before, began = self.processor(), time.monotonic()
        count = work(self)
        took = time.monotonic() - began
        # The last process ends after its client has gone.
        time.sleep(0.05)
        return count, took, self.processor() - before

    def close(self):
        self.site.close()
        # The wrapper may have something stay behind for a session that has just ended.
        (self.group / "cgroup.kill").write_text("1")
        events = self.group / "cgroup.events"
        wait_until(lambda: "populated 0\n" in events.read_text(), "all processes have ended")
        self.group.rmdir()


def imap_sessions(count):
    def work(dovecot):
        for _ in range(count):
            login.session(dovecot.backend.imap_port, dovecot.users[0])
        return count

    return work


def pop3_sessions(count):
    def work(dovecot):
        for _ in range(count):
            pop3(dovecot.backend.pop3_port, dovecot.users[0])
        return count

    return work


def lmtp_recipients(folder):
    def work(dovecot):
        dovecot.backend.lmtp(*(user + folder for user in dovecot.users))
        return len(dovecot.users)

    return work


def doveadm(dovecot):
    """A report on all users; its processor time is that of the command."""
    backend = dovecot.backend
    argv = backend.machine.command(
        ["doveadm", "-c", backend.conf, "mailbox", "status", "-A", "messages", "*"], backend.hostname, backend.etc
    )
    began = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"plugin.py: doveadm ended with {process.returncode}")
    return len(dovecot.users), time.monotonic() - began, used.ru_utime + used.ru_stime


def private_memory(pid):
    """Kilobytes that no other process shares."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(number) for number in re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB$", text, re.MULTILINE))


def memory(dovecot):
    sessions = [dovecot.backend.session(user) for user in dovecot.users[:OPEN]]
    for session in sessions:
        session.run("look")
        session.run("select:INBOX")
    pids = [pid for user in dovecot.users[:OPEN] for pid in dovecot.backend.processes_of(user)]
    if len(pids) != len(sessions):
        raise SystemExit(f"plugin.py: {len(pids)} processes for {len(sessions)} sessions")
    taken = [private_memory(pid) for pid in pids]
    for session in sessions:
        session.close()
    return taken


def used_again(machine):
    """What lets a mail process serve many sessions, and reach a post-login service without being root."""
    count = "restart_request_count" if machine.is_24 else "service_count"
    return (
        f"service imap {{\n  {count} = {USED}\n}}\n"
        "service imap-postlogin {\n  unix_listener imap-postlogin {\n    mode = 0666\n  }\n}\n"
    )


def clocks(machine, modules):
    """The plugin between the two that note the time."""
    plugins = (
        "mail_plugins {\n  before = yes\n  after = yes\n}\n"
        if machine.is_24
        else "mail_plugins = before nfs_hostchange after\n"
    )
    return plugins, [modules / "lib89_before_plugin.so", modules / "lib91_after_plugin.so"]


class Release:
    """All candidates on one release of Dovecot."""

    def __init__(self, root, modules, options, groups):
        self.machine, self.options, self.groups = Machine(root), options, groups
        self.plugins = {"empty": modules / "empty.so", "plugin": modules / PLUGIN}
        self.name = ".".join(self.machine.version.split(".")[:2])
        used = used_again(self.machine)
        with_clocks, files = clocks(self.machine, modules)
        # A mail process with a hundred sessions behind it serves others too.
        shared = {"one_uid": True}
        programs = {
            "wrapper": {"wrapped": "a", "wrapper": options.wrapper},
            "exec": {"wrapped": "a", "wrapper": options.exec, "arguments": ""},
        }
        candidates = {"none": {}, **{name: {"plugin": file} for name, file in self.plugins.items()}, **programs}
        self.wanted = {}
        for name, site in candidates.items():
            self.wanted["new", name] = site
            self.wanted["used", name] = {**site, **shared, "more": used}
        self.calls = modules / "calls.so"
        for name, file in {**self.plugins, "calls": self.plugins["plugin"]}.items():
            site = {"plugin": file, "modules": files}
            self.wanted["hook", name] = {**site, "more": with_clocks}
            self.wanted["used hook", name] = {**site, **shared, "more": with_clocks + used}
        self.dovecots = {}

    def only_calls(self, file):
        """What a session with nothing to do calls, for users whom the plugin has served."""
        for (_, name), dovecot in self.dovecots.items():
            if name == "calls":
                dovecot.backend.begin_anew(plugin=file)

    def start(self):
        for (which, name), site in self.wanted.items():
            self.dovecots[which, name] = Dovecot(self.machine, self.options, name, self.groups, **site)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for _ in pool.map(Dovecot.settle, self.dovecots.values()):
                pass
        self.only_calls(self.calls)

    def of(self, kind):
        return [dovecot for (which, _), dovecot in self.dovecots.items() if which == kind]

    def run(self, results):
        sessions = self.options.sessions
        served = [dovecot for dovecot in self.of("new") if dovecot.name not in ("wrapper", "exec")]
        loads = {
            "IMAP, new process": (self.of("new"), imap_sessions(sessions)),
            "IMAP, used process": (self.of("used"), imap_sessions(sessions)),
            "POP3": (served, pop3_sessions(sessions)),
            "LMTP, INBOX": (served, lmtp_recipients("")),
            "LMTP, folder": (served, lmtp_recipients("+work")),
        }
        hooked = self.of("hook") + self.of("used hook")
        for dovecot in hooked:
            file = dovecot.backend.dir / "run/hooks"
            file.touch()
            file.chmod(0o666)
        for number in range(self.options.rounds):
            for load, (dovecots, work) in loads.items():
                for dovecot in random.sample(dovecots, len(dovecots)):
                    self.write(results, load, number, dovecot, dovecot.measure(work))
            for dovecot in random.sample(served, len(served)):
                self.write(results, "doveadm -A", number, dovecot, doveadm(dovecot))
            for dovecot in random.sample(hooked, len(hooked)):
                imap_sessions(sessions)(dovecot)
        with open(results / "plugin.hook", "a") as file:
            for dovecot in hooked:
                for line in (dovecot.backend.dir / "run/hooks").read_text().splitlines():
                    process, nanoseconds = line.split()
                    print(self.name, process, dovecot.name, nanoseconds, sep="\t", file=file)
        with open(results / "plugin.memory", "a") as file:
            for dovecot in served:
                for kilobytes in memory(dovecot):
                    print(self.name, dovecot.name, kilobytes, sep="\t", file=file)
        for dovecot in self.dovecots.values():
            if problems := dovecot.backend.problems():
                raise SystemExit(f"plugin.py: {dovecot.name}: {problems[:3]}")

    def write(self, results, load, number, dovecot, measured):
        with open(results / "plugin.rounds", "a") as file:
            print(self.name, load, number, dovecot.name, *measured, sep="\t", file=file)

    def close(self):
        for dovecot in self.dovecots.values():
            dovecot.backend.begin_to_stop()
        for dovecot in self.dovecots.values():
            dovecot.close()


@contextlib.contextmanager
def control_groups():
    """A directory below which control groups (cgroups(7)) can be made."""
    place = Path(tempfile.mkdtemp(prefix="nfs-hostchange.", dir="/dev/shm"))
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", place], check=True)
    groups = Path(tempfile.mkdtemp(prefix="nfs-hostchange.", dir=place))
    try:
        yield groups
    finally:
        groups.rmdir()
        subprocess.run(["umount", place], check=True)
        place.rmdir()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path)
    for number in ("--rounds", "--sessions", "--users"):
        parser.add_argument(number, type=int)
    parser.add_argument("--wrapper")
    parser.add_argument("--exec")
    parser.add_argument("targets", nargs="+")
    options = parser.parse_args()
    for target in options.targets:
        root, modules = target.split("=")
        with control_groups() as groups:
            release = Release(root, Path(modules), options, groups)
            try:
                release.start()
                release.run(options.results)
            finally:
                release.close()


main()
