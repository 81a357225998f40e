"""What a case has at hand: the server, the backends, users, and the truth as the server's own file system has it."""

import itertools
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass

import backend
import server
from dovecot import KINDS, VMAIL

ROOT = ("root",)
VMAIL_TOO = ("root", "vmail")
PLUGIN_TOO = (*VMAIL_TOO, "plugin")
ALL = ("3", "4.0", "4.1", "4.2")
PLAIN = "actimeo=60"
NOCTO = "actimeo=60,nocto"


class Failure(AssertionError):
    """A case saw something that must not be."""


def check(condition, complaint):
    if not condition:
        raise Failure(complaint)


@dataclass(frozen=True)
class Case:
    group: str
    sentence: str
    function: object
    versions: tuple
    options: tuple
    users: tuple
    export: str
    always: bool

    def runs(self, full):
        """Every (version, options, user) that the case is taken through."""
        every = list(itertools.product(self.versions, self.options, self.users))
        return [run for run in every if full or is_in_sample(*run, self)]


def is_in_sample(version, options, user, case):
    """What a run takes that is not full: the oldest and the newest version, one identity. What a case asks of the client
    differs more between those two than between any others. The plugin asks the same: the newest, and no faults."""
    if KINDS[user].plugin:
        return user in ("plugin", "plugin-2.4") and version == ALL[-1] and options != NOCTO and case.group != "faults"
    return case.always or (user == case.users[0] and version in (ALL[0], ALL[-1]) and options != NOCTO)


CASES = []


def case(sentence, *, versions=ALL, options=(PLAIN, NOCTO), users=ROOT, export="mail", always=False):
    """Makes a function a case. It returns what is worth telling, and raises Failure if the sentence is not true.

    users: the kinds of Dovecot (see dovecot.KINDS), and with them the identity under which the wrapper starts.
    always: all versions, options and users of the wrapper belong to a run that is not full, too.
    """
    def register(function):
        CASES.append(Case(function.__module__, sentence, function, versions, options, users, export, always))
        return function
    return register


class Lab:
    """One emulated machine with all that is in it."""

    def __init__(self):
        self.server = server.Server()
        self.server.start()
        self.a = backend.Remote("backend-a", 1)
        self.b = backend.Remote("backend-b", 2)
        self.c = backend.Remote("backend-c", 3)
        self.backends = (self.a, self.b, self.c)
        self.mounted = None
        self.users = 0

    def use(self, version, options, export):
        """Mounts anew on all backends, with empty caches, unless the mount is as wanted."""
        wanted = (version, options, export)
        if self.mounted == wanted:
            return
        self.release()
        for each in self.backends:
            each.begin("mount", *wanted)
        for each in self.backends:
            each.finish()
        self.mounted = wanted

    def release(self):
        if self.mounted:
            for each in self.backends:
                each.unmount()
        self.mounted = None

    # -- users

    def user(self):
        """A new mail user with an empty home."""
        self.users += 1
        name = f"user{self.users}"
        os.mkdir(self.path(name), 0o700)
        os.chown(self.path(name), VMAIL, VMAIL)
        return name

    def path(self, user, *names):
        """Where the server itself has a user's files."""
        return os.path.join("/export", self.mounted[2], user, *names)

    def claim(self, user, name="mdbox/.lasthost"):
        """The identity of INDEX/.lasthost as the server has it, in the record's notation; None if there is none."""
        try:
            stat = os.stat(self.path(user, name))
        except FileNotFoundError:
            return None
        seconds, nanoseconds = divmod(stat.st_mtime_ns, 10**9)
        return f"{stat.st_ino} {seconds}.{nanoseconds:09}"

    def trusts(self, where, kind, user, name="mdbox/.lasthost"):
        """Whether the backend's record says that its list index is the newest."""
        claim = self.claim(user, name)
        return claim is not None and where.record(kind, user) == claim

    def run(self, *command):
        """A command on the server."""
        return server.run(*command)

    def wait_for_rpc(self, program, count):
        """Waits until that many processes of that name sit in system calls that wait for the server."""
        backend.wait_until(lambda: waiting_for_server(program) >= count, f"{program} waits for the server")

    def wait_for_who_stays_behind(self, user):
        """Waits until nothing stays behind for a session without list index, as it does for a new user's first."""
        backend.wait_until(lambda: not any(serves(pid, user) for pid in running("nfs-hostchange-login")), "it ends")

    @contextmanager
    def clock(self):
        """A Clock to set; in the end the time is right again. Dovecot must not see such jumps: it is stopped each time."""
        clock = Clock(self.backends)
        try:
            yield clock
        finally:
            clock.set_ahead(0)

    # -- measuring

    def cost(self, where, action):
        """What the action sent to the server, by name of RPC, and the action's own result."""
        before = where.rpcs()
        result = action()
        after = where.rpcs()
        return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}, result

    def at_once(self, kind, user, *where, skew=0.0):
        """Logs the user in by hand on several backends at the same moment; the later ones `skew` seconds later each."""
        start = time.monotonic() + 0.05
        for number, each in enumerate(where):
            each.begin("login", kind, user, start + number * skew)
        return [each.finish() for each in where]


class Clock:
    """The machine's clock, which is that of the server and of every backend."""

    def __init__(self, backends):
        self.backends = backends
        self.offset = time.time() - time.monotonic()

    def set(self, moment):
        for each in self.backends:
            each.stop_dovecots()
        time.clock_settime(time.CLOCK_REALTIME, moment)

    def set_ahead(self, seconds):
        """To that many seconds after the right time."""
        self.set(time.monotonic() + self.offset + seconds)


def running(program):
    """The ids of the program's processes."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm") as comm:
                if comm.read().strip() == program[:15]:
                    yield pid
        except OSError:
            pass  # it has ended


def serves(pid, user):
    """Whether the process is of a login of that user's."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as environment:
            return f"USER={user}".encode() in environment.read().split(b"\0")
    except OSError:
        return False  # it has ended


def waiting_for_server(program):
    count = 0
    for pid in running(program):
        try:
            with open(f"/proc/{pid}/stack") as stack:
                count += "rpc_" in stack.read()
        except OSError:
            pass  # it has ended
    return count


def total(rpcs):
    return sum(rpcs.values())


def told(rpcs):
    """RPC counts for people."""
    return f"{total(rpcs)} (" + ", ".join(f"{count} {name}" for name, count in sorted(rpcs.items())) + ")" if rpcs else "0"
