"""Many users who log in at the same time and move between two backends, for tests/load.sh.

Each user's sessions on one backend are closed before the next begin on the other, as Dovecot demands; several
at once on the same backend are usual. Every session looks at the folders before and after one of them changes
something, and must see what is in the user's book. A few users stay connected. Meanwhile a sweep cleans both
backends, again and again.

With --overlapping, which takes the plugin, a user's sessions on both backends overlap, and mail is delivered into his
folders on the one while he has a session on the other. What begins after another one has ended must show all of it.

Prints one JSON object, and on standard error the first failures and wrong looks.
"""

import argparse
import contextlib
import imaplib
import json
import os
import random
import subprocess
import sys
import threading
import time

from mailclient import Failure, Session, lmtp


class User:
    """A mail user, and the book of what is in the store."""

    def __init__(self, name):
        self.name = name
        self.book = {"INBOX": 0}
        self.made = 0

    def expected(self):
        return [f"{folder} {count}" for folder, count in sorted(self.book.items())]

    def change(self, session, rng):
        """One session's change, in the store and in the book."""
        folders = sorted(set(self.book) - {"INBOX"})
        what = rng.choice(["create", "append", "delete", "rename"] if len(folders) > 2 else ["create"])
        self.made += 1
        folder = rng.choice(folders) if folders else "INBOX"
        new = f"F{self.made}"
        if what == "create" and len(folders) < 8:
            session.run(f"create:{new}")
            self.book[new] = 0
        elif what == "delete":
            session.run(f"delete:{folder}")
            del self.book[folder]
        elif what == "rename":
            session.run(f"rename:{folder}:{new}")
            self.book[new] = self.book.pop(folder)
        else:
            session.run(f"append:{folder}")
            self.book[folder] += 1


class Load:
    """The whole run."""

    # Of one visit.
    SESSIONS = (1, 1, 2, 3)

    def __init__(self, options):
        self.options = options
        self.rng = random.Random(options.seed)
        self.changed = threading.Condition()
        self.users = [User(f"user{number}") for number in range(options.users)]
        self.holders = [User(f"user{options.users + number}") for number in range(options.holders)]
        self.left = options.logins
        self.at_once = 0
        self.times = []
        self.looks = 0
        self.wrong = []
        self.failed = []
        self.over = threading.Event()
        self.sweeps = {"runs": 0, "users": 0, "cleaned": 0, "recent": 0, "in_use": 0, "logging_in": 0, "failed": 0, "exit": 0}

    def next_visit(self):
        """A user who is nowhere, a backend, how many sessions, and a random number; None when all logins are done."""
        with self.changed:
            while True:
                if self.left == 0:
                    return None
                sessions = min(self.rng.choice(self.SESSIONS), self.left)
                if self.at_once + sessions <= self.options.at_once and self.users:
                    break
                self.changed.wait()
            self.left -= sessions
            self.at_once += sessions
            place = self.rng.randrange(len(self.users))
            self.users[place], self.users[-1] = self.users[-1], self.users[place]
            return self.users.pop(), self.rng.randrange(2), sessions, self.rng.random()

    def work(self):
        while visit := self.next_visit():
            user, host, sessions, seed = visit
            try:
                self.visit(user, host, sessions, random.Random(seed))
            finally:
                with self.changed:
                    self.users.append(user)
                    self.at_once -= sessions
                    self.changed.notify_all()

    def visit(self, user, host, count, rng):
        where = f"{user.name} on {'ab'[host]}"
        sessions = []
        threads = [threading.Thread(target=self.log_in, args=(user, host, where, sessions)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if sessions:
            self.guarded(where, user.change, sessions[0], rng)
        for session in sessions:
            self.guarded(where, self.look, user, session, where)
            self.guarded(where, session.close)

    def log_in(self, user, host, where, sessions):
        began = time.monotonic()
        session = self.guarded(where, Session, self.options.ports[host], user.name)
        took = time.monotonic() - began
        if session:
            with self.changed:
                self.times.append(took)
                sessions.append(session)
            self.guarded(where, self.look, user, session, where)

    def look(self, user, session, where):
        seen, expected = session.run("look"), user.expected()
        with self.changed:
            self.looks += 1
            if seen != expected:
                self.wrong.append(f"{where} saw {seen}, not {expected}")

    def guarded(self, where, function, *arguments):
        try:
            return function(*arguments)
        except (Failure, OSError, EOFError, imaplib.IMAP4.error) as error:
            with self.changed:
                self.failed.append(f"{where}: {type(error).__name__}: {error}")
            return None

    def hold(self, user):
        """Stays connected to a from now on; returns what there is to do at the end."""
        where = f"{user.name}, connected"
        # A user's first session has no list index.
        self.visit(user, 0, 1, self.rng)
        sessions = []
        self.log_in(user, 0, where, sessions)

        def end():
            for session in sessions:
                self.guarded(where, self.look, user, session, where)
                self.guarded(where, user.change, session, self.rng)
                self.guarded(where, self.look, user, session, where)
                self.guarded(where, session.close)

        return end

    def sweep(self):
        """Until all is over, and a little longer if nobody was old enough yet."""
        end = None
        while True:
            for age, root in zip(self.options.ages, self.options.roots):
                command = [self.options.command, "usercache", "sweep", "--json", age, root]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
                self.sweeps["runs"] += 1
                self.sweeps["exit"] = max(self.sweeps["exit"], done.returncode)
                answer = json.loads(done.stdout or "{}")
                for field in self.sweeps.keys() & answer.keys():
                    self.sweeps[field] += answer[field]
            if self.over.wait(0.1):
                end = end or time.monotonic() + 60
                done_something = self.sweeps["cleaned"] and self.sweeps["in_use"]
                if done_something or not self.sweeps["users"] or time.monotonic() > end:
                    return

    def run(self):
        sweeper = threading.Thread(target=self.sweep)
        workers = [threading.Thread(target=self.work) for _ in range(self.options.at_once)]
        ends = [self.hold(user) for user in self.holders]
        self.times.clear()
        began = time.monotonic()
        for thread in [sweeper, *workers]:
            thread.start()
        for thread in workers:
            thread.join()
        took = time.monotonic() - began
        self.over.set()
        sweeper.join()
        for end in ends:
            end()
        print(*self.failed[:5], *self.wrong[:5], sep="\n", file=sys.stderr)
        times = sorted(self.times) or [0]

        def quantile(part):
            return round(1000 * times[min(len(times) - 1, int(len(times) * part))], 1)

        return {
            "logins": len(self.times), "failed": len(self.failed), "looks": self.looks, "wrong": len(self.wrong),
            "seconds": round(took, 1), "logins_per_second": round(len(self.times) / took, 1),
            "median_ms": quantile(0.5), "p95_ms": quantile(0.95), "p99_ms": quantile(0.99),
            "sweeps": self.sweeps,
        }


class Overlapping(Load):
    """A visit is four sessions on both backends, and deliveries between them."""

    SESSIONS = (4,)

    def visit(self, user, host, count, rng):
        here, there = [], []
        where = [f"{user.name} on {name}" for name in "ab"]
        self.log_in(user, host, where[host], here)
        if here:
            self.guarded(where[host], user.change, here[0], rng)
            self.guarded(where[host], self.look, user, here[0], where[host])
        self.guarded(where[1 - host], self.deliver, user, 1 - host, rng)
        if count > 1:
            self.log_in(user, 1 - host, where[1 - host], there)
            if there:
                self.guarded(where[1 - host], user.change, there[0], rng)
        if here:
            # The other backend has claimed the user meanwhile.
            if count > 1:
                self.guarded(where[host], self.append_late, user, here[0])
            self.end(user, where[host], here[0], len(there))
        for other in (1 - host, host)[: max(0, count - 2)]:
            self.log_in(user, other, where[other], there)
        for left, session in enumerate(reversed(there), 1):
            self.end(user, where[host], session, len(there) - left)

    def append_late(self, user, session):
        """Into a folder that another session cannot have deleted meanwhile."""
        session.run("append:INBOX")
        user.book["INBOX"] += 1

    def deliver(self, user, host, rng):
        folder = rng.choice(sorted(user.book))
        lmtp(self.options.lmtp[host], user.name if folder == "INBOX" else f"{user.name}+{folder}")
        user.book[folder] += 1

    def end(self, user, where, session, left):
        """Ends the session, and waits until its process, which may claim once more, has ended too."""
        self.guarded(where, session.close)
        deadline = time.monotonic() + 60
        while processes_of(self.options.first_uid + int(user.name.removeprefix("user"))) > left:
            if time.monotonic() > deadline:
                with self.changed:
                    self.failed.append(f"{where}: a session does not end")
                return
            time.sleep(0.01)


def processes_of(uid):
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            count += os.stat(f"/proc/{pid}").st_uid == uid
    return count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ports", type=int, nargs=2, required=True, help="of the backends")
    parser.add_argument("--roots", nargs=2, required=True, help="above the backends' list indexes")
    parser.add_argument("--command", required=True, help="nfs-hostchange")
    parser.add_argument("--ages", nargs=2, required=True, help="what a sweep spares there")
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--holders", type=int, required=True, help="users who stay connected")
    parser.add_argument("--logins", type=int, required=True)
    parser.add_argument("--at-once", type=int, required=True, help="sessions")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--overlapping", action="store_true")
    parser.add_argument("--lmtp", type=int, nargs=2, help="ports of the backends")
    parser.add_argument("--first-uid", type=int, help="that of user0, whom the others follow")
    options = parser.parse_args()
    print(json.dumps((Overlapping if options.overlapping else Load)(options).run()))


main()
