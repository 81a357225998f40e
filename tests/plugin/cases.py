"""The plugin's cases, each a sentence."""

import base64
import concurrent.futures
import contextlib
import fcntl
import os
import random
import re
import signal
import socket
import time
from dataclasses import dataclass
from typing import Callable

import operations
from backends import DRIVERS, Failed, Machine, Site, mailclient, wait_until

CASES = []


@dataclass
class Case:
    """RUN is given a Context."""

    sentence: str
    run: Callable
    long: bool = False
    versions: Callable = lambda machine: True


def case(sentence, **options):
    def note(function):
        CASES.append(Case(sentence, function, **options))
        return function

    return note


@dataclass
class Context:
    """The Dovecot that is tested, the plugin that was built for it, and the wrapper."""

    machine: Machine
    plugin: str
    wrapper: str
    # Another Dovecot, and the plugin for that, if there is one.
    beside: tuple = ()

    def site(self, **options):
        return Site((self.machine, self.machine), **{"plugin": self.plugin, "wrapper": self.wrapper, **options})

    def control(self, **options):
        return self.site(plugin=None, **options)


def expect(seen, wanted, what):
    if seen != wanted:
        raise Failed(f"{what}: {seen!r} instead of {wanted!r}")


def expect_quiet(site):
    """No log says that something is wrong."""
    for backend in site.backends.values():
        expect(backend.problems()[:3], [], f"problems on {backend.name}")


# --- what one user does on a backend, another backend shows --------------------------------------


@case("without the plugin seven of twelve operations on one backend stay unseen on the other")
def _(context):
    with context.control() as site:
        expect(len(operations.stale(site)), 7, "stale operations")


def of_driver(driver):
    def run(context):
        with context.site(driver=driver) as site:
            expect(operations.stale(site), [], "stale operations")
            expect_quiet(site)

    return run


for driver in DRIVERS:
    case(f"all twelve operations on one backend are seen on the other ({driver})")(of_driver(driver))


# --- sessions that overlap -----------------------------------------------------------------------


def expect_look(backend, user, what):
    expect(backend.look(user), backend.truth(user), what)


def expect_run(session, site, user, what):
    expect(session.run("look"), site.truth(user), what)


@case("a session that stays open and a delivery on the other backend do not disturb those after them")
def _(context):
    with context.site() as site:
        for _ in range(4):
            user = site.new_user()
            operations.prepare(site, user)
            first = site.a.session(user)
            first.run("look")
            site.b.lmtp(f"{user}+delivered")
            second = site.a.session(user)
            expect_run(second, site, user, "the second session")
            first.run("create:by-first")
            second.run("create:by-second")
            expect_run(first, site, user, "the first session, at the end")
            expect_run(second, site, user, "the second session, at the end")
            first.close()
            second.close()
            expect_look(site.a, user, "a later session")
            expect_look(site.b, user, "a later session on the other backend")
        expect_quiet(site)


@case("a session that stays open and a session on the other backend do not disturb those after them")
def _(context):
    with context.site() as site:
        user = site.new_user()
        operations.prepare(site, user)
        first = site.a.session(user)
        first.run("look")
        site.b.imap(user, "create:elsewhere", "append:work")
        second = site.a.session(user)
        expect_run(second, site, user, "the second session")
        first.run("append:work")
        expect_run(second, site, user, "the second session, after the first changed something")
        first.close()
        second.close()
        expect_look(site.b, user, "a later session on the other backend")
        expect_look(site.a, user, "a later session")
        expect_quiet(site)


@case("a session whose sign is in the claim is not forgotten because of claims on the other backend")
def _(context):
    with context.site(wrapped="a", plugged="b") as site:
        user = site.new_user()
        operations.prepare(site, user)
        site.a.local.joinpath(user).rename(site.a.local / "aside")
        not_a_directory(site, user)
        # The wrapper can leave its sign nowhere else.
        without = site.a.session(user)
        claim = operations.claim_of(site, user)
        expect("without a.example.org" in claim.read_text(), True, "the sign in the claim")
        site.b.lmtp(f"{user}+work")
        expect_claimed_by(site, user, "b")
        (site.a.local / user).unlink()
        beside = site.a.session(user)
        expect_run(beside, site, user, "a session beside it")
        without.run("append:work")
        expect_run(beside, site, user, "a session beside it, after a change")
        without.close()
        beside.close()
        expect_look(site.b, user, "the other backend")


@case("what a session changes after the other backend served the user is seen there once it has ended")
def _(context):
    with context.site() as site:
        for _ in range(3):
            user = site.new_user()
            operations.prepare(site, user)
            session = site.a.session(user)
            session.run("look")
            site.b.look(user)
            session.run("create:late")
            session.run("append:work")
            session.close()
            wait_until(lambda: site.a.log().count("Logged out") >= 3, "the session has ended")
            expect_look(site.b, user, "the other backend")
            expect_look(site.a, user, "this backend")
        expect_quiet(site)


def of_slow_commit(backend, user):
    """`doveadm save` whose first fdatasync takes long; running when the user is claimed."""
    claim = operations.claim_of(backend.site, user)
    before = claim.stat()
    saving = backend.popen(
        ["strace", "-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=2500000:when=1"]
        + ["doveadm", "-c", backend.conf, "save", "-u", user, "-m", "work"],
        b"Subject: saved\n\nHello.\n",
    )
    wait_until(lambda: claim.stat() != before, "the change is claimed")
    return saving


@case("a session that begins while a command commits does not hide what was committed")
def _(context):
    with context.site() as site:
        user = site.new_user()
        operations.prepare(site, user)
        saving = of_slow_commit(site.b, user)
        expect(saving.poll(), None, "the command is not at its end")
        site.a.look(user)
        site.a.look(user)
        expect(saving.poll(), None, "the command is not at its end")
        expect(saving.wait(30), 0, "the command")
        expect_look(site.a, user, "a later session")
        expect_quiet(site)


@case("a new user's first session does not keep those beside it from the list index")
def _(context):
    with context.site() as site:
        user = site.new_user()
        first = site.a.session(user)
        first.run("create:first")
        others = []
        for number in range(8):
            others.append(site.a.session(user))
            others[-1].run(f"create:other{number}")
            for session in (first, others[-1]):
                expect_run(session, site, user, f"beside session {number}")
        expect(site.a.has_list_index(user), True, "the list index is in use")
        for session in (first, *others):
            session.close()
        expect_look(site.a, user, "a later session")
        expect_look(site.b, user, "a later session on the other backend")
        expect_quiet(site)


@case("sessions that begin at once after a change of backend all see the truth")
def _(context):
    with context.site() as site:
        user = site.new_user()
        operations.prepare(site, user)
        old = site.a.session(user)
        old.run("look")
        for _ in range(5):
            site.b.imap(user, "append:work", "append:INBOX")
            truth = site.truth(user)
            with concurrent.futures.ThreadPoolExecutor(10) as pool:
                for seen in pool.map(lambda _: site.a.look(user), range(10)):
                    expect(seen, truth, "one of ten sessions")
        old.close()
        expect_quiet(site)


@case("what expires when a session ends is seen on the other backend")
def _(context):
    with context.site(more="namespace inbox {\n  mailbox Trash {\n    autoexpunge = 1s\n  }\n}") as site:
        user = site.new_user()
        site.a.imap(user, "create:Trash", "append:Trash")
        site.b.look(user)
        session = site.a.session(user)
        session.run("look")
        site.b.look(user)
        time.sleep(1.1)
        session.close()
        wait_until(lambda: "Trash 0" in site.truth(user), "the mail has expired")
        wait_until(lambda: site.a.log().count("Logged out") >= 2, "the session has ended")
        expect_look(site.b, user, "the other backend")
        expect_quiet(site)


# --- open sessions -------------------------------------------------------------------------------

# The plugin's default, in seconds, and a little; until what an open session changed is known everywhere, it takes as
# long again.
RECHECK = 1.1


class Busy:
    """A user with two sessions on a, one on b, and deliveries on b; what each look must show."""

    def __init__(self, site):
        self.site, self.user = site, site.new_user()
        operations.prepare(site, self.user)
        self.expected = {"INBOX": 2, "work": 1}
        self.sessions = [backend.session(self.user) for backend in (site.a, site.a, site.b)]
        self.looks = self.stale = 0
        for session in self.sessions:
            session.run("look")

    def add(self, folder):
        self.expected[folder] = self.expected.get(folder, 0) + 1

    def change(self, number):
        own, other, elsewhere = self.sessions
        made = f"made{number}"
        match number % 6:
            case 0 | 3:
                self.site.b.lmtp(f"{self.user}+work")
                self.add("work")
            case 1:
                self.site.b.lmtp(f"{self.user}+{made}")
                self.add(made)
            case 2:
                elsewhere.run(f"create:{made}")
                self.expected[made] = 0
            case 4:
                own.run("append:work")
                elsewhere.run("append:work")
                self.expected["work"] += 2
            case 5:
                other.run(f"create:{made}")
                other.run(f"append:{made}")
                self.add(made)

    def run(self, rounds):
        for number in range(rounds):
            self.change(number)
            time.sleep(2 * RECHECK)
            for session in random.sample(self.sessions, len(self.sessions)):
                if random.random() < 0.5:
                    # STATUS is the first to notice then, and not LIST.
                    seen, wanted = session.run("count:work"), [str(self.expected["work"])]
                else:
                    seen = session.run("look")
                    wanted = sorted(f"{name} {count}" for name, count in self.expected.items())
                self.looks += 1
                if seen != wanted:
                    self.stale += 1
                    print(f"   {self.user}, round {number}: {seen} instead of {wanted}")

    def close(self):
        for session in self.sessions:
            session.close()


def busy_users(site, users, rounds):
    """Looks, and how many of them were stale."""
    with concurrent.futures.ThreadPoolExecutor(users) as pool:
        busy = [Busy(site) for _ in range(users)]
        for _ in pool.map(lambda user: user.run(rounds), busy):
            pass
        for user in busy:
            user.close()
    for user in busy:
        expect(user.site.a.look(user.user), user.site.truth(user.user), "a later session")
    return sum(user.looks for user in busy), sum(user.stale for user in busy)


def of_open_sessions(users, rounds):
    def run(context):
        with context.site() as site:
            looks, stale = busy_users(site, users, rounds)
            expect((looks, stale), (users * rounds * 3, 0), "looks, and those that were stale")
            expect_quiet(site)

    return run


case("an open session sees what the other backend did as soon as it looks again")(of_open_sessions(4, 6))
case("a thousand looks of open sessions on two backends show whatever was done on either", long=True)(
    of_open_sessions(21, 16)
)


@case("an open session that does not look again shows what it knew")
def _(context):
    with context.site(toml='recheck = "0"\n') as site, contextlib.redirect_stdout(None):
        looks, stale = busy_users(site, 2, 6)
        expect(stale > looks / 4, True, f"{stale} of {looks} looks are stale")


@case("two open sessions on two backends that only look disturb each other no more than once a second")
def _(context):
    with context.site() as site:
        user = site.new_user()
        operations.prepare(site, user)
        sessions = [backend.session(user) for backend in (site.a, site.b)]
        claim = operations.claim_of(site, user)
        began, claims = time.monotonic(), {claim.stat().st_ino}
        while time.monotonic() - began < 3:
            for session in sessions:
                expect_run(session, site, user, "a session that looks")
                claims.add((claim.stat().st_ino, claim.stat().st_mtime_ns))
        expect(len(claims) <= 2 + 2 * 3, True, f"{len(claims)} claims in three seconds")
        # The other one is gone.
        sessions[1].close()
        time.sleep(RECHECK)
        sessions[0].run("look")
        with nothing_claimed(site, user):
            for _ in range(3):
                time.sleep(RECHECK)
                expect_run(sessions[0], site, user, "the session that is left")
        sessions[0].close()
        expect_quiet(site)


# --- NOTIFY --------------------------------------------------------------------------------------

# How often Dovecot itself looks at what it cannot watch.
IDLE_CHECK = "mailbox_idle_check_interval = 1s\n"


class Waiting:
    """A session in IDLE that has asked for NOTIFY."""

    def __init__(self, backend, user, mailboxes="personal", times=1):
        self.connection = socket.create_connection(("127.0.0.1", backend.imap_port), 60)
        self.unread = b""
        self.line()
        notify = f"NOTIFY SET ({mailboxes} (MessageNew MessageExpunge MailboxName))"
        for command in (f"LOGIN {user} pw", *[notify] * times):
            self.connection.sendall(f"x {command}\r\n".encode())
            while not (line := self.line()).startswith("x "):
                pass
            expect(line[:4], "x OK", command)
        self.connection.sendall(b"x IDLE\r\n")
        while not self.line().startswith("+"):
            pass

    def line(self, seconds=20):
        """The next line, or nothing if there is none in time."""
        end = time.monotonic() + seconds
        while b"\r\n" not in self.unread:
            self.connection.settimeout(max(end - time.monotonic(), 0.01))
            try:
                data = self.connection.recv(4096)
            except TimeoutError:
                return ""
            if not data:
                raise Failed("the connection was closed")
            self.unread += data
        line, self.unread = self.unread.split(b"\r\n", 1)
        # Of IDLE itself.
        return self.line(max(end - time.monotonic(), 0)) if b"Still here" in line else line.decode()

    def told(self, seconds):
        """All that it is told in so long."""
        end = time.monotonic() + seconds
        lines = []
        while (left := end - time.monotonic()) > 0:
            if line := self.line(left):
                lines.append(line)
        return lines

    def expect_told(self, *wanted):
        """These lines, and no others."""
        lines = []
        while len(lines) < len(wanted) and (line := self.line()):
            lines.append(line)
        # Twice as long as until it looks again, with the half second that Dovecot waits before it tells.
        expect(lines + self.told(3), list(wanted), "what a client in NOTIFY is told")

    def close(self):
        self.connection.close()


def of_notify(mailboxes):
    def run(context):
        with context.site(more=IDLE_CHECK) as site:
            user = site.new_user()
            operations.prepare(site, user)
            site.a.imap(user, "create:other", "append:other")
            if mailboxes == "subscribed":
                site.a.doveadm("mailbox", "subscribe", "-u", user, "work", "made")
            waiting = Waiting(site.a, user, mailboxes)
            waiting.expect_told()
            site.b.lmtp(f"{user}+work")
            waiting.expect_told("* STATUS work (MESSAGES 2 UIDNEXT 3 UNSEEN 2)")
            site.b.imap(user, "create:made")
            told = waiting.told(4)
            expect([line for line in told if "made" in line], told, "lines about the new folder")
            expect([line.split(" (")[0] for line in told if "\\NonExistent" not in line][:1], ["* LIST"], f"a LIST in {told}")
            expect(len(told) <= 2, True, f"no more than its name and its STATUS: {told}")
            site.b.imap(user, "expunge:work")
            waiting.expect_told("* STATUS work (MESSAGES 1 UIDNEXT 3 UNSEEN 1)")
            # A session beside it looks at everything anew.
            site.b.lmtp(user)
            site.b.imap(user, "look")
            site.a.look(user)
            waiting.expect_told(*(["* STATUS INBOX (MESSAGES 3 UIDNEXT 4 UNSEEN 3)"] if mailboxes == "personal" else []))
            site.b.imap(user, "delete:made")
            waiting.expect_told('* LIST (\\NonExistent) "/" made')
            waiting.close()
            expect_look(site.a, user, "a later session")
            expect_quiet(site)

    return run


for mailboxes in ("personal", "subscribed"):
    case(f"a client that waits in NOTIFY is told what the other backend did, and nothing else ({mailboxes})")(
        of_notify(mailboxes)
    )


@case("a client that asks for NOTIFY a second time is told as the first time")
def _(context):
    with context.site(more=IDLE_CHECK) as site:
        user = site.new_user()
        operations.prepare(site, user)
        waiting = Waiting(site.a, user, times=2)
        site.a.imap(user, "create:made", "append:made")
        expect(any("STATUS made (MESSAGES 1" in line for line in waiting.told(4)), True, "it is told of the new folder")
        site.b.lmtp(f"{user}+work")
        waiting.expect_told("* STATUS work (MESSAGES 2 UIDNEXT 3 UNSEEN 2)")
        waiting.close()
        expect_quiet(site)


@case("a client that waits in NOTIFY hears nothing of the other backend if open sessions never look again")
def _(context):
    with context.site(more=IDLE_CHECK, toml='recheck = "0"\n') as site:
        user = site.new_user()
        operations.prepare(site, user)
        waiting = Waiting(site.a, user)
        site.b.lmtp(f"{user}+work")
        site.b.imap(user, "create:made")
        waiting.expect_told()
        waiting.close()


@case("a session without list index answers NOTIFY with NO, and goes on")
def _(context):
    with context.site() as site:
        user = site.new_user()
        operations.prepare(site, user)
        site.a.local.joinpath(user).rename(site.a.local / "aside")
        not_a_directory(site, user)
        session = site.a.session(user)
        status, _ = session.imap.xatom("NOTIFY", "SET (personal (MessageNew MessageExpunge MailboxName))")
        expect(status, "NO", "the answer")
        expect_run(session, site, user, "the session")
        session.close()
        expect_no_crash(site.a)


@case("clients that wait in NOTIFY on both backends are told nothing while nothing happens")
def _(context):
    with context.site(more=IDLE_CHECK) as site:
        user = site.new_user()
        operations.prepare(site, user)
        both = [Waiting(backend, user) for backend in (site.a, site.b)]
        for waiting in both:
            expect(waiting.told(3), [], "what it is told")
        site.a.lmtp(f"{user}+work")
        for waiting in both:
            waiting.expect_told("* STATUS work (MESSAGES 2 UIDNEXT 3 UNSEEN 2)")
            waiting.close()
        expect_quiet(site)


# --- who only reads ------------------------------------------------------------------------------


@contextlib.contextmanager
def nothing_claimed(site, user):
    """While backend a has the user, nothing that is done here may take him from it."""
    claim = operations.claim_of(site, user)
    before = claim.read_text(), claim.stat().st_ino, claim.stat().st_mtime_ns
    yield
    expect((claim.read_text(), claim.stat().st_ino, claim.stat().st_mtime_ns), before, "the claim")
    expect(before[0].splitlines()[0], "a.example.org", "who has the user")


READERS = {
    "a report by doveadm over all users": lambda b, user: b.doveadm("mailbox", "status", "-A", "messages", "*"),
    "a POP3 session that deletes nothing": lambda b, user: mailclient.pop3(b.pop3_port, user),
    "a POP3 session that deletes a mail": lambda b, user: b.pop3_dele(user),
    "a delivery to INBOX by LMTP": lambda b, user: b.lmtp(user),
    "a delivery to INBOX by LDA": lambda b, user: b.lda(user),
    "doveadm fetch": lambda b, user: b.doveadm("fetch", "-u", user, "text", "mailbox", "work"),
    "doveadm search": lambda b, user: b.doveadm("search", "-u", user, "mailbox", "*", "text", "hello"),
    "doveadm index": lambda b, user: b.doveadm("index", "-u", user, "*"),
    "doveadm mailbox list": lambda b, user: b.doveadm("mailbox", "list", "-u", user),
    "doveadm mailbox subscribe": lambda b, user: b.doveadm("mailbox", "subscribe", "-u", user, "work"),
    "doveadm purge": lambda b, user: b.doveadm("purge", "-u", user),
}


@case("whoever changes nothing that a list index shows takes no user from another backend")
def _(context):
    with context.site() as site:
        user = site.new_user()
        operations.prepare(site, user)
        for what, read in READERS.items():
            with nothing_claimed(site, user):
                with contextlib.redirect_stdout(None):
                    read(site.b, user)
            expect_look(site.a, user, what)
        expect(list(site.b.local.iterdir()), [site.b.local / user], "list indexes on b")
        expect_quiet(site)


@case("deliveries to INBOX are seen on the other backend where INBOX is in the list index")
def _(context):
    with context.site(more="mailbox_list_index_include_inbox = yes") as site:
        expect(operations.stale(site), [], "stale operations")
        expect_quiet(site)


@case("what doveadm force-resync and other changes of whole folders do is seen on the other backend")
def _(context):
    def deleted_by_hand(b, user):
        """What a folder's index does not know until it is made anew."""
        for path in (b.site.home(user) / "sdbox/mailboxes/work/dbox-Mails").glob("u.*"):
            path.unlink()
        b.doveadm("force-resync", "-u", user, "work")

    changes = {
        "force-resync": deleted_by_hand,
        "expunge": lambda b, user: b.doveadm("expunge", "-u", user, "mailbox", "work", "all"),
        "delete": lambda b, user: b.doveadm("mailbox", "delete", "-u", user, "work"),
        "rename": lambda b, user: b.doveadm("mailbox", "rename", "-u", user, "work", "play"),
        "move": lambda b, user: b.doveadm("move", "-u", user, "work", "mailbox", "INBOX", "all"),
        "copy": lambda b, user: b.doveadm("copy", "-u", user, "work", "mailbox", "INBOX", "all"),
        "IMAP expunge": lambda b, user: b.imap(user, "expunge:work"),
    }
    with context.site(driver="sdbox") as site:
        for what, change in changes.items():
            user = site.new_user()
            operations.prepare(site, user)
            change(site.b, user)
            expect_look(site.a, user, what)


def read_twice(b, user):
    """The first time, Dovecot may fail, and only note the damage."""
    for _ in range(2):
        b.doveadm("fetch", "-u", user, "uid", "mailbox", "work", check=False)


READS_OF_DAMAGE = {
    "fetch": lambda b, user: b.doveadm("fetch", "-u", user, "text", "mailbox", "work", check=False),
    "IMAP fetch": lambda b, user: b.alone(user, "SELECT work", "FETCH 1 BODY[]", "NOOP", "CLOSE"),
    "fetch twice": read_twice,
}


def of_damage(driver, lost, spoiled, *reads):
    """The files LOST are deleted, and those SPOILED have nonsense in them, when one of READS comes."""

    def run(context):
        for read in reads:
            with context.site(driver=driver) as site:
                user = site.new_user()
                operations.prepare(site, user)
                lost_files, spoiled_files = (list(site.home(user).glob(f"{driver}/{files}")) for files in (lost, spoiled))
                expect(bool(lost_files), True, "files to lose")
                for path in lost_files:
                    path.unlink()
                for path in spoiled_files:
                    with open(path, "r+b") as file:
                        file.seek(path.stat().st_size // 2)
                        file.write(b"nonsense" * 100)
                READS_OF_DAMAGE[read](site.b, user)
                expect("work 0" in site.truth(user), True, f"{read}: it was mended")
                expect_look(site.a, user, read)
                expect_no_crash(site.b)

    return run


MAILS = {"mdbox": "storage/m.*", "sdbox": "mailboxes/work/dbox-Mails/u.*"}
INDEX = "mailboxes/work/dbox-Mails/dovecot.index*"
for driver, mails in MAILS.items():
    case(f"what Dovecot mends when somebody reads a damaged mailbox is seen on the other backend ({driver})")(
        of_damage(driver, mails, "none", "fetch", "IMAP fetch")
    )
case("that Dovecot makes a mailbox anew whose index is spoiled is seen on the other backend")(
    of_damage("mdbox", MAILS["mdbox"], "mailboxes/work/dbox-Mails/dovecot.index.log", "fetch twice")
)
case("that Dovecot makes a mailbox anew whose index is lost is seen on the other backend")(
    of_damage("mdbox", INDEX, "none", "fetch twice")
)


@case("what a session changed is seen on the other backend although it was killed, if it went on for a while")
def _(context):
    with context.site() as site:
        user = site.new_user()
        operations.prepare(site, user)
        session = site.a.session(user)
        session.run("look")
        site.b.look(user)
        claim = operations.claim_of(site, user)
        before = claim.stat()
        wait_until(lambda: session.run("append:work") == [] and claim.stat() != before, "it has claimed")
        for pid in site.a.processes_of(user):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not site.a.processes_of(user), "the session is gone")
        expect_look(site.b, user, "the other backend")


# --- beside other plugins and other versions -----------------------------------------------------


@case("all twelve operations are seen with the plugins for quota, ACLs and notification loaded as well")
def _(context):
    more = (
        "mail_plugins {\n  quota = yes\n  acl = yes\n  notify = yes\n  mail_log = yes\n}\n"
        "acl_driver = vfile\nquota user {\n  driver = count\n}\n"
        if context.machine.is_24
        else "mail_plugins = quota acl notify mail_log nfs_hostchange\n"
        "plugin {\n  quota = count:user\n  quota_vsizes = yes\n  acl = vfile\n}\n"
    )
    with context.site(more=more) as site:
        expect(operations.stale(site), [], "stale operations")
        expect_quiet(site)


@case("all twelve operations are seen where another namespace is an alias of the inbox's")
def _(context):
    more = "namespace compat {\n  prefix = Mail/\n  separator = /\n  hidden = yes\n  list = no\n  alias_for = %s\n}\n"
    with context.site(more=more % ("inbox" if context.machine.is_24 else "")) as site:
        expect(operations.stale(site), [], "stale operations")
        user = site.new_user()
        operations.prepare(site, user)
        site.b.imap(user, "create:Mail/made", "append:Mail/work")
        expect_look(site.a, user, "what was done by the other name")
        expect_quiet(site)


@case("Dovecot 2.3 beside Dovecot 2.4 over one store is right on both", versions=lambda machine: not machine.is_24)
def _(context):
    if not context.beside:
        return
    other, plugin = context.beside
    plugins = {"a": context.plugin, "b": plugin}
    with Site((context.machine, other), plugin=plugins) as site:
        expect(operations.stale(site), [], "stale operations")
        user = site.new_user()
        for backend in (site.a, site.b, site.a, site.b):
            backend.imap(user, f"create:by-{backend.name}-{time.monotonic_ns()}")
            expect_look(backend, user, "a session after a change on the same backend")
            expect_claimed_by(site, user, backend.name)
        expect_quiet(site)


@case("sessions of managesieve and submission touch no list index and claim nobody")
def _(context):
    relay = "submission_relay_host = 127.0.0.1\n"
    protocols = (
        "protocols {\n  sieve = yes\n  submission = yes\n}\n"
        if context.machine.is_24
        else "protocols = imap pop3 lmtp sieve submission\n"
    )

    def listeners(name):
        return (
            f"service managesieve-login {{\n  inet_listener sieve {{\n    port = {ports[name][0]}\n  }}\n}}\n"
            f"service submission-login {{\n  inet_listener submission {{\n    port = {ports[name][1]}\n  }}\n"
            "  inet_listener submissions {\n    port = 0\n  }\n}\n"
        )

    ports = {name: mailclient.free_ports(2) for name in "ab"}
    with context.site(more=relay + protocols, per_backend=listeners) as site:
        user = site.new_user()
        operations.prepare(site, user)
        plain = base64.b64encode(f"\0{user}\0pw".encode()).decode()
        for port, greeting in zip(ports["b"], ('AUTHENTICATE "PLAIN" "%s"\r\n', "EHLO a\r\nAUTH PLAIN %s\r\n")):
            with nothing_claimed(site, user), socket.create_connection(("127.0.0.1", port), 20) as connection:
                connection.sendall((greeting % plain).encode())
                time.sleep(0.2)
                connection.sendall(b"LOGOUT\r\nQUIT\r\n")
                # Closed with a reset, if it did not wait for all of our words.
                with contextlib.suppress(ConnectionResetError):
                    while connection.recv(4096):
                        pass
            # The words before it differ.
            expect(f"user=<{user}>, method=PLAIN" in site.b.log(), True, "the login")
            site.b.forget_log()
        expect_look(site.a, user, "a later session")


# --- namespaces ----------------------------------------------------------------------------------


def namespace(context, name, v23, v24, more=""):
    lines = v24 if context.machine.is_24 else v23
    return f"namespace {name} {{\n  prefix = {name}/\n  separator = /\n{more}\n{lines}\n}}\n"


def archive(context, list_index):
    return namespace(
        context,
        "archive",
        f"location = mdbox:~/archive:LISTINDEX=@LOCAL@/%u/{list_index}",
        f"mail_path = ~/archive\nmailbox_list_index_prefix = @LOCAL@/%{{user}}/{list_index}",
    )


def of_two_namespaces(list_index):
    def run(context):
        with context.site(more=archive(context, list_index)) as site:
            user = site.new_user()
            site.b.imap(user, "create:work", "append:work", "create:archive/old", "append:archive/old")
            for _ in range(3):
                site.a.look(user)
            with nothing_claimed(site, user):
                site.b.doveadm("mailbox", "create", "-u", user, "archive/made")
                site.b.lmtp(f"{user}+archive/old")
                expect_look(site.a, user, "changes in the other namespace")
                site.a.look(user)
            site.b.lmtp(f"{user}+work")
            site.b.doveadm("mailbox", "create", "-u", user, "archive/again")
            expect_look(site.a, user, "changes in both")
            expect(site.a.has_list_index(user), True, "the inbox's list index is in use")
            expect((site.a.local / user / f"{list_index}.log").exists(), True, "the other one is in use")
            site.a.forget_log()
            site.a.look(user)
            expect("nfs_hostchange" in site.a.log(), False, "both are in step")
            expect_quiet(site)

    return run


case("two namespaces with a directory each for their list indexes do not disturb each other")(
    of_two_namespaces("archive/dovecot.list.index")
)
case("two namespaces with their list indexes in one directory do not disturb each other")(
    of_two_namespaces("archive.list.index")
)


@case("a namespace with LAYOUT=index is left alone while the one beside it is protected")
def _(context):
    more = namespace(
        context,
        "archive",
        "location = mdbox:~/archive:LAYOUT=index",
        "mail_path = ~/archive\nmailbox_list_layout = index\nmailbox_list_index_prefix = dovecot.list.index",
    )
    with context.site(more=more) as site:
        user = site.new_user()
        site.b.imap(user, "create:work", "create:archive/old", "append:archive/old")
        for backend in (site.a, site.b, site.a):
            shown = backend.imap(user, "append:work", "append:archive/old", "look")
            expect("archive/old" in [line.rsplit(" ", 1)[0] for line in shown], True, "the other namespace's folder")
        expect("archive/old 4" in site.a.look(user), True, "all mails in the other namespace")
        site.b.lmtp(f"{user}+work")
        expect("work 4" in site.a.look(user), True, "a delivery into the protected one")
        expect_quiet(site)


@case("a local list index with LAYOUT=index is an error that is said, and nothing is lost")
def _(context):
    more = namespace(
        context,
        "archive",
        "location = mdbox:~/archive:LAYOUT=index:LISTINDEX=@LOCAL@/%u/archive/dovecot.list.index",
        "mail_path = ~/archive\nmailbox_list_layout = index\n"
        "mailbox_list_index_prefix = @LOCAL@/%{user}/archive/dovecot.list.index",
    )
    with context.site(more=more) as site:
        user = site.new_user()
        site.a.imap(user, "create:archive/old", "append:archive/old")
        expect("archive/old 1" in site.a.look(user), True, "the folder")
        expect("it must not be local" in "".join(site.a.problems()), True, "the error is said")


@case("a public namespace runs without list index, so that nobody makes another's void")
def _(context):
    more = namespace(
        context,
        "public",
        "type = public\nlocation = mdbox:@STORE@/public:LISTINDEX=@LOCAL@/public/dovecot.list.index",
        "type = public\nmail_path = @STORE@/public\nmailbox_list_index_prefix = @LOCAL@/public/dovecot.list.index",
    )
    with context.site(more=more, one_uid=True) as site:
        one, other = site.new_user(), site.new_user()
        site.b.imap(one, "create:public/news", "append:public/news")
        expect("public/news 1" in site.a.look(other), True, "the other user's look on the other backend")
        site.a.imap(other, "append:public/news", "create:public/more")
        shown = [line for line in site.b.look(one) if line.startswith("public/")]
        expect(shown, ["public/more 0", "public/news 2"], "the first user's look")
        expect([(b.local / "public").exists() for b in (site.a, site.b)], [False, False], "local list indexes")
        expect((site.store / "public/.lasthost").exists(), False, "a claim")
        expect_quiet(site)


@case("looking at a shared folder claims nobody, and changing something there is seen by its owner")
def _(context):
    more = (
        "namespace shared {\n  type = shared\n  separator = /\n"
        + (
            "  prefix = shared/$user/\n  mail_path = @STORE@/%{owner_user}/mdbox\n"
            "  mailbox_list_index_prefix = @LOCAL@/%{owner_user}/dovecot.list.index\n"
            if context.machine.is_24
            else "  prefix = shared/%%u/\n"
            "  location = mdbox:@STORE@/%%u/mdbox:LISTINDEX=@LOCAL@/%%u/dovecot.list.index\n"
        )
        + "}\n"
    )
    with context.site(more=more, one_uid=True) as site:
        owner, reader = site.new_user(), site.new_user()
        operations.prepare(site, owner)
        shared = f"shared/{owner}/work"
        site.a.imap(reader, "create:mine")
        for backend in (site.a, site.b):
            for _ in range(2):
                with nothing_claimed(site, owner):
                    expect(backend.imap(reader, f"count:{shared}"), ["1"], "the reader's look")
        site.b.imap(reader, f"append:{shared}")
        expect_look(site.a, owner, "the owner's look")
        expect(site.a.imap(reader, f"count:{shared}"), ["2"], "the reader's look on the owner's backend")
        site.a.imap(reader, f"append:{shared}")
        expect_look(site.a, owner, "the owner's look on the same backend")
        expect_look(site.b, owner, "the owner's look on the other backend")
        site.b.lmtp(f"{owner}+work")
        expect(site.a.imap(reader, f"count:{shared}"), ["4"], "the reader's look on yet another")
        expect_quiet(site)


# --- services ------------------------------------------------------------------------------------


@case("a session that sleeps in IDLE and wakes up sees what the other backend did")
def _(context):
    anybody = "{\n    mode = 0666\n  }"
    more = (
        "imap_hibernate_timeout = 1s\n"
        f"service imap {{\n  unix_listener imap-master {anybody}\n}}\n"
        f"service imap-hibernate {{\n  unix_listener imap-hibernate {anybody}\n}}\n"
    )
    with context.site(more=more) as site:
        user = site.new_user()
        operations.prepare(site, user)
        session = site.a.session(user)
        for _ in range(3):
            session.run("select:INBOX")
            with session.idle():
                wait_until(lambda: not site.a.processes_of(user), "the session sleeps")
                site.b.imap(user, "append:work", "look")
            for _ in range(3):
                expect_run(session, site, user, "the session that woke up")
        session.close()
        expect_quiet(site)


@case("a mail process serves one session after the other, and several at once, and each is right")
def _(context):
    count = "restart_request_count" if context.machine.is_24 else "service_count"
    unlimited = "unlimited" if context.machine.is_24 else "0"
    for limits in (f"{count} = 100", f"{count} = {unlimited}\n  client_limit = 10\n  process_limit = 1"):
        with context.site(more=f"service imap {{\n  {limits}\n}}", one_uid=True) as site:
            users = [site.new_user() for _ in range(3)]
            for user in users:
                operations.prepare(site, user)
            sessions = [site.a.session(user) for user in users]
            for _ in range(3):
                for user, session in zip(users, sessions):
                    site.b.imap(user, "append:work")
                    expect_look(site.a, user, limits)
                    session.run("append:work")
                    expect_look(site.a, user, limits)
            for session in sessions:
                session.close()
            for user in users:
                expect_look(site.b, user, limits)
            expect_quiet(site)


@case("a mail that Sieve files into a folder is seen on the other backend")
def _(context):
    more = (
        "protocol lmtp {\n  mail_plugins {\n    sieve = yes\n  }\n}\n"
        "sieve_script personal {\n  path = ~/.dovecot.sieve\n}\n"
        if context.machine.is_24
        else "protocol lmtp {\n  mail_plugins = $mail_plugins sieve\n}\nplugin {\n  sieve = ~/.dovecot.sieve\n}\n"
    )
    with context.site(more=more) as site:
        user = site.new_user()
        operations.prepare(site, user)
        script = site.home(user) / ".dovecot.sieve"
        script.write_text('require ["fileinto", "mailbox"];\nfileinto :create "filed";\n')
        script.chmod(0o644)
        site.b.lmtp(user)
        expect_look(site.a, user, "the folder")
        expect("filed 1" in site.a.look(user), True, "the filed mail")
        site.b.lmtp(user)
        expect_look(site.a, user, "the second mail")


@case("doveadm sync into a user's folders is seen on the other backend")
def _(context):
    with context.site() as site:
        user = site.new_user()
        operations.prepare(site, user)
        source = site.new_user()
        site.b.imap(source, "create:synced", "append:synced", "append:synced")
        remote = ["doveadm", "-c", str(site.b.conf), "dsync-server", "-u", source]
        site.b.doveadm("sync", "-1", "-R", "-u", user, *remote)
        expect("synced 2" in site.a.look(user), True, "the folder")
        expect_look(site.a, user, "all folders")


@case("doveadm sync from another host's store is seen on the other backend")
def _(context):
    port, = mailclient.free_ports(1)
    server = f"doveadm_password = secret\nservice doveadm {{\n  inet_listener {{\n    port = {port}\n  }}\n}}\n"
    if context.machine.is_24:
        server = server.replace("inet_listener {", "inet_listener tcp {")
    with context.site(per_backend=lambda name: server if name == "b" else "doveadm_password = secret\n") as site:
        with context.site(plugin=None, more="doveadm_password = secret\n") as elsewhere:
            user = site.new_user()
            operations.prepare(site, user)
            elsewhere.a.imap(elsewhere.new_user(), "create:synced", "append:synced", "create:work", "append:work")
            for _ in range(2):
                # The first time, INBOX of one side takes the place of the other's, and it says so.
                elsewhere.a.doveadm("sync", "-1", "-u", user, f"tcp:127.0.0.1:{port}", check=False)
            expect("synced 1" in site.a.look(user), True, "the folder")
            expect_look(site.a, user, "all folders")
            elsewhere.a.imap(user, "append:synced", "delete:work")
            elsewhere.a.doveadm("sync", "-u", user, f"tcp:127.0.0.1:{port}")
            expect_look(site.a, user, "all folders after another time")
            expect_no_crash(site.b)


def by_indexer_worker(backend, user, *folders):
    """Has indexer-worker index them, and waits until it has come to each; its log has debug lines."""
    backend.forget_log()
    backend.doveadm("index", "-q", "-u", user, "*")

    def has_come_to(folder):
        lines = backend.log().splitlines()
        return any(f"indexer-worker({user})" in line and f"Mailbox {folder}: " in line for line in lines)

    wait_until(lambda: all(map(has_come_to, folders)), f"indexer-worker comes to {folders}")


def of_policy_service(port, recipient):
    """What Postfix is told of a recipient."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(f"request=smtpd_access_policy\nrecipient={recipient}\nsize=1000\n\n".encode())
        return connection.makefile().readline().strip()


@case("indexer-worker and Postfix's quota-status claim nobody, and nothing is stale after them")
def _(context):
    port, = mailclient.free_ports(1)
    is_24 = context.machine.is_24
    more = (
        "mail_plugins {\n  quota = yes\n}\nquota user {\n  driver = count\n}\nquota_status_success = DUNNO\n"
        if is_24
        else "mail_plugins = quota nfs_hostchange\n"
        "plugin {\n  quota = count:user\n  quota_vsizes = yes\n  quota_status_success = DUNNO\n}\n"
    )
    listener = "inet_listener policy" if is_24 else "inet_listener"
    status = f"service quota-status {{\n  executable = quota-status -p postfix\n  {listener} {{\n    port = {port}\n  }}\n}}\n"
    debug = "log_debug = category=mailbox\n"
    with context.site(more=more, per_backend=lambda name: status + debug if name == "b" else "") as site:
        user = site.new_user()
        operations.prepare(site, user)
        for number in range(2):
            site.a.imap(user, "append:work", "create:new%d" % number, "append:new%d" % number)
            with nothing_claimed(site, user):
                by_indexer_worker(site.b, user, "INBOX", "work", f"new{number}")
                expect(of_policy_service(port, user), "action=DUNNO", "the answer to Postfix")
            expect_look(site.a, user, "the backend that has the user")
        expect_look(site.b, user, "the other backend")
        expect_quiet(site)


# Of 2.3.19.1 imap-urlauth-login itself ends in an assertion, with the plugin and without.
@case("a mail that a URL shows to another user is read without claiming its owner", versions=lambda machine: machine.is_24)
def _(context):
    more = "imap_urlauth_host = imap.example.org\nmail_attribute {\n  dict file {\n    path = %{home}/attributes\n  }\n}\n"
    with context.site(more=more, one_uid=True) as site:
        owner, reader = site.new_user(), site.new_user()
        operations.prepare(site, owner)
        session = site.a.session(owner)
        url = f"imap://{owner}@imap.example.org/work/;uid=1;urlauth=authuser"
        session.check(session.imap.xatom("GENURLAUTH", f'"{url}"', "INTERNAL"))
        (answer,) = session.lines("GENURLAUTH")
        session.close()
        with nothing_claimed(site, owner):
            session = site.b.session(reader)
            try:
                session.check(session.imap.xatom("URLFETCH", answer))
            except mailclient.Failure as error:
                raise Failed(f"URLFETCH: {error}: {site.b.problems()}") from error
            fetched = session.imap.response("URLFETCH")[1]
            expect(any(b"Hello." in part for part in fetched[0] if isinstance(part, bytes)), True, f"{fetched}")
            session.close()
        expect_look(site.a, owner, "the owner's look")
        expect_look(site.b, owner, "the owner's look on the other backend")
        expect_quiet(site)


# --- what goes wrong -----------------------------------------------------------------------------


def all_services(backend, user):
    """Whoever opens mailboxes; each must do its work."""
    backend.imap(user, "append:work")
    backend.lmtp(f"{user}+work")
    backend.lmtp(user)
    backend.lda(user, "-m", "work")
    with contextlib.redirect_stdout(None):
        mailclient.pop3(backend.pop3_port, user)
    backend.doveadm("save", "-u", user, "-m", "work", input="Subject: saved\n\nHello.\n")
    backend.doveadm("mailbox", "status", "-u", user, "messages", "*")


def expect_no_crash(backend):
    expect([line for line in backend.problems() if "Panic" in line or "killed with signal" in line], [], "crashes")


def expect_said(backend, what):
    expect(what in "".join(backend.problems()), True, f"'{what}' in the log")


def not_a_directory(site, user):
    (site.a.local / user).write_text("in the way")


def symbolic_link(site, user):
    (site.a.local / user).symlink_to("/tmp")


def of_somebody_else(site, user):
    (site.a.local / user).mkdir()


def parent_closed(site, _user):
    site.a.local.chmod(0o711)


def of_unusable_list_index(spoil):
    def run(context):
        with context.site() as site:
            user = site.new_user()
            site.b.imap(user, "create:work", "append:work", "append:INBOX")
            spoil(site, user)
            for _ in range(2):
                all_services(site.a, user)
                expect_look(site.a, user, "a session there")
                expect_look(site.b, user, "a session on the other backend")
            expect_no_crash(site.a)
            expect_said(site.a, "session without list index")
            expect(site.b.problems(), [], "problems on the other backend")

    return run


for spoil in (not_a_directory, symbolic_link, of_somebody_else, parent_closed):
    case(f"no service fails or is wrong where LISTINDEX cannot be used ({spoil.__name__})")(of_unusable_list_index(spoil))


@case("no service fails where the user cannot be claimed, and a later session is right")
def _(context):
    with context.site() as site:
        user = site.new_user()
        operations.prepare(site, user)
        index = operations.claim_of(site, user).parent
        index.chmod(0o555)
        for _ in range(2):
            for backend in (site.b, site.a):
                all_services(backend, user)
                expect_look(backend, user, "a session that cannot claim")
        index.chmod(0o700)
        expect_said(site.b, "cannot write")
        for backend in (site.a, site.b, site.a):
            expect_look(backend, user, "a session that can")
        for backend in (site.a, site.b):
            expect_no_crash(backend)


@case("a lock that somebody keeps is waited for once in a session, and not again at each change")
def _(context):
    with context.site(toml='lock_timeout = "2 s"\n') as site:
        user = site.new_user()
        operations.prepare(site, user)
        site.b.imap(user, "append:work")
        with open(site.a.local / user / ".lasthost", "rb+") as record:
            fcntl.flock(record, fcntl.LOCK_SH)
            began = time.monotonic()
            session = site.a.session(user)
            expect_run(session, site, user, "the session that waited")
            expect(time.monotonic() - began > 1.5, True, "it waited")
            for _ in range(3):
                began = time.monotonic()
                session.run("append:work")
                expect(time.monotonic() - began < 1, True, "a change does not wait")
            session.close()
        expect_look(site.a, user, "a later session")
        expect_look(site.b, user, "the other backend")
        expect_no_crash(site.a)


@case("a wrong setting is an error line with its name, and the session goes on", versions=lambda machine: not machine.is_24)
def _(context):
    settings = ("nfs_hostchange_migration = perhaps", "nfs_hostchange_recheck = often")
    with context.site(more="plugin {\n  %s\n  %s\n}" % settings) as site:
        user = site.new_user()
        operations.prepare(site, user)
        all_services(site.b, user)
        expect_look(site.a, user, "a session")
        for setting in settings:
            expect_said(site.a, setting)


@case("a mistake in the configuration file is an error line with its place, and nothing fails or is wrong")
def _(context):
    with context.site(toml='recheck = "often"\n') as site:
        user = site.new_user()
        operations.prepare(site, user)
        for backend in (site.b, site.a):
            all_services(backend, user)
            expect_look(backend, user, "a session")
            expect_said(backend, "nfs-hostchange.toml:1:")
            expect_no_crash(backend)


@case("a session that cannot write to its list index does not use what is in it")
def _(context):
    with context.site() as site:
        # Dovecot answers the one by a list index in memory, and the other not at all.
        for failure in ("write,pwrite64:error=EIO", "fcntl:error=ENOLCK"):
            user = site.new_user()
            operations.prepare(site, user)
            site.b.imap(user, "append:work", "create:made")
            log = site.a.local / user / "dovecot.list.index.log"
            strace = ["strace", "-f", "-o", "/dev/null", "-P", log, "-e", f"inject={failure}"]
            session = site.a.run(
                [*strace, "/usr/lib/dovecot/imap", "-c", site.a.conf, "-u", user],
                input='1 LIST "" * RETURN (STATUS (MESSAGES))\n2 LOGOUT\n',
            )
            for folder in ("work (MESSAGES 2)", "made (MESSAGES 0)"):
                expect(f"STATUS {folder}" in session.stdout, True, f"{folder} in {session}")
            expect("the list index cannot be written to" in session.stderr, True, f"it is said: {session.stderr}")
            for backend in (site.a, site.b, site.a):
                expect_look(backend, user, "a later session")
        expect_no_crash(site.a)


@case("a list index that went into memory because there is no room is not believed afterwards")
def _(context):
    with context.site() as site, site.a.small_memory() as fill:
        user = site.new_user()
        operations.prepare(site, user)
        session = site.a.session(user)
        session.run("look")
        fill()
        for number in range(150):
            session.run(f"create:a-rather-long-name-of-a-folder-{number}")
        session.close()
        expect_said(site.a, "into memory")
        for _ in range(2):
            all_services(site.a, user)
            expect_look(site.a, user, "a session without room")
        fill(False)
        expect_look(site.a, user, "a session with room")
        expect_look(site.a, user, "a session after that")
        expect_no_crash(site.a)


@case("a session that is killed leaves nothing behind that a later one believes")
def _(context):
    with context.site() as site:
        user = site.new_user()
        operations.prepare(site, user)
        for number in range(4):
            site.b.imap(user, "append:work")
            session = site.a.session(user)
            session.run("look")
            session.run(f"create:killed{number}")
            for pid in site.a.processes_of(user):
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not site.a.processes_of(user), "the session is gone")
            expect_look(site.a, user, "a later session")
            expect_look(site.b, user, "a later session on the other backend")


@case("a mail to many recipients with uids of their own is seen by each of them, and nothing goes wrong")
def _(context):
    with context.site() as site:
        users = [site.new_user() for _ in range(8)]
        for user in users:
            operations.prepare(site, user)
        for folder in ("work", "made", "work"):
            site.b.lmtp(*(f"{user}+{folder}" for user in users))
            for user in users:
                expect_look(site.a, user, f"a recipient, folder {folder}")
        expect_quiet(site)


@case("doveadm works through many users without growing")
def _(context):
    with context.site() as site:
        users = [site.new_user() for _ in range(20)]
        for user in users:
            site.b.imap(user, "create:work")
        sizes = []
        for times in (5, 150):
            names = site.a.dir / "many"
            names.write_text("".join(f"{user}\n" for _ in range(times) for user in users))
            sizes.append(site.a.peak_memory("mailbox", "status", "-F", names, "messages", "*"))
        expect(sizes[1] - sizes[0] < 1024, True, f"kilobytes at the peak, {sizes}")


@case("doveadm works through 10,000 users without growing", long=True)
def _(context):
    with context.site(users=10_000, below="/dev/shm") as site:
        everybody = ["-A"]
        if site.a.machine.is_24:
            # Its list of users breaks off after some thousands, without the plugin, too.
            names = site.a.dir / "names"
            names.write_text("".join(f"user{i + 1}\n" for i in range(10_000)))
            everybody = ["-F", str(names)]
        for command in (("mailbox", "create", *everybody, "work"), ("mailbox", "status", *everybody, "messages", "*")):
            sizes = site.a.memory_over_time(*command)
            # The first tenth is a thousand users.
            early, middle, late = (max(sizes[int(len(sizes) * part) :][:10]) for part in (0.1, 0.5, 0.95))
            print(f"   {' '.join(command)}: {early} KiB after a tenth, {middle} after half, {late} at the end")
            expect(late - early < 512, True, f"kilobytes over time, {early} {middle} {late}")
        expect(len(list(site.store.iterdir())), 10_000, "users with mail")
        expect_quiet(site)


# --- beside the wrapper --------------------------------------------------------------------------


def expect_claimed_by(site, user, host):
    expect(operations.claim_of(site, user).read_text().splitlines()[0], f"{host}.example.org", "who has the user")


@case("a backend with the wrapper and one with the plugin agree on whose the user is")
def _(context):
    with context.site(wrapped="a", plugged="b") as site:
        for _ in range(2):
            user = site.new_user()
            for backend in (site.a, site.b, site.a, site.b):
                backend.imap(user, f"create:by-{backend.name}-{time.monotonic_ns()}")
                expect_look(backend, user, "a session after a change on the same backend")
                expect_claimed_by(site, user, backend.name)
        # The plugin's backend tells the wrapper's of its deliveries; the other way round nobody does.
        for operation in operations.OPERATIONS:
            user = site.new_user()
            operations.prepare(site, user)
            operation(site.b, user)
            expect_look(site.a, user, operation.__name__)
        expect_quiet(site)


@case("wrapper and plugin on one backend find everything settled by the other")
def _(context):
    with context.site(wrapped="ab") as site:
        expect(operations.stale(site), [], "stale operations")
        user = site.new_user()
        first = site.a.session(user)
        first.run("create:first")
        for number in range(3):
            site.a.imap(user, f"create:more{number}")
            expect_run(first, site, user, "the first session")
            expect_look(site.a, user, "a session beside it")
        first.close()
        expect_look(site.b, user, "the other backend")
        expect_look(site.a, user, "this one again")
        site.a.forget_log()
        site.a.look(user)
        expect("hostchange: " in site.a.log(), False, "settled")
        expect_quiet(site)


@case("a session without list index of the wrapper's is not overlooked by the plugin")
def _(context):
    with context.site(wrapped="a") as site:
        user = site.new_user()
        # There is no INDEX yet, so the wrapper vouches for nothing.
        without = site.a.session(user)
        without.run("create:first")
        beside = site.a.session(user)
        without.run("create:second")
        expect_run(beside, site, user, "a session beside it")
        without.close()
        beside.close()
        expect_look(site.a, user, "a later session")
        expect_look(site.b, user, "the other backend")


# --- kills and failing calls ---------------------------------------------------------------------

# What the plugin's part changes files with, and asks and locks; Dovecot uses some of them as well.
CALLS = "openat2,statx,flock,renameat,utimensat,fsync,unlinkat,pwrite64,ftruncate,mkdirat"


def expect_all_right(site, user, what):
    for backend in (site.a, site.b, site.a):
        expect_look(backend, user, what)


@case("a session that is killed while it takes the user over leaves nothing that a later one believes", long=True)
def _(context):
    with context.site() as site:
        user = site.new_user()
        operations.prepare(site, user)
        for number in range(200):
            site.b.imap(user, "append:work", "append:INBOX")
            trace = site.a.alone(
                user,
                'LIST "" * RETURN (STATUS (MESSAGES))',
                strace=("-e", f"trace={CALLS}", "-e", f"inject={CALLS}:signal=KILL:when={number + 1}"),
            )
            killed = any("killed by SIGKILL" in line for line in trace)
            expect_all_right(site, user, f"after a kill at call {number + 1}")
            if not killed:
                expect(number > 5, True, f"it was killed {number} times")
                return
        raise Failed("it has no end")


@case("a command that is killed at any of its system calls leaves nothing that a later session believes", long=True)
def _(context):
    with context.site() as site:
        user = site.new_user()
        operations.prepare(site, user)
        save = ["doveadm", "-c", site.b.conf, "save", "-u", user, "-m", "work"]
        trace = site.b.dir / "trace"
        for number in range(200):
            site.a.look(user)
            strace = ["strace", "-f", "-o", trace, "-e", f"trace={CALLS}"]
            strace += ["-e", f"inject={CALLS}:signal=KILL:when={number + 1}"]
            site.b.run([*strace, *save], input="Subject: saved\n\nHello.\n", check=False)
            expect_all_right(site, user, f"after a kill at call {number + 1}")
            if "killed by SIGKILL" not in trace.read_text():
                expect(number > 5, True, f"it was killed {number} times")
                return
        raise Failed("it has no end")


# Those of them that Dovecot itself does not use, so that it is the plugin's part that fails.
OWN_CALLS = {"openat2": "EACCES", "statx": "EIO", "flock": "ENOLCK", "renameat": "ENOSPC", "utimensat": "EPERM"}


@case("no session fails because a system call of the plugin's fails, and a later one is right")
def _(context):
    with context.site() as site:
        user = site.new_user()
        operations.prepare(site, user)
        for call, error in OWN_CALLS.items():
            failing = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}")
            site.b.imap(user, "append:work")
            site.a.alone(user, 'LIST "" *', f"CREATE made-{call}", f"STATUS made-{call} (MESSAGES)", strace=failing)
            expect(f"made-{call} 0" in site.truth(user), True, f"the folder that was made while {call} failed")
            expect_all_right(site, user, f"after a session in which {call} failed")
            if call in ("statx", "renameat"):
                # INDEX can be neither asked nor written, so nobody can be told of a change.
                continue
            site.b.run(
                ["strace", "-f", "-o", "/dev/null", *failing]
                + ["doveadm", "-c", site.b.conf, "save", "-u", user, "-m", "work"],
                input="Subject: saved\n\nHello.\n",
            )
            expect_all_right(site, user, f"after a command in which {call} failed")
        for backend in (site.a, site.b):
            expect_no_crash(backend)


@case("no single system call that fails makes a session fail, or a later one wrong", long=True)
def _(context):
    calls = ",".join(OWN_CALLS)
    with context.site() as site:
        user = site.new_user()
        operations.prepare(site, user)
        for number in range(1, 200):
            site.b.imap(user, "append:work")
            failing = ("-e", f"trace={calls}", "-e", f"inject={calls}:error=EIO:when={number}")
            made = f"made{number}"
            trace = site.a.alone(user, 'LIST "" *', f"CREATE {made}", f"STATUS {made} (MESSAGES)", strace=failing)
            expect(f"{made} 0" in site.truth(user), True, f"the folder that was made while call {number} failed")
            expect_all_right(site, user, f"after call {number} failed")
            expect_no_crash(site.a)
            if not any("(INJECTED)" in line for line in trace):
                expect(number > 5, True, f"{number} calls")
                return
        raise Failed("it has no end")


# --- what it costs -------------------------------------------------------------------------------


@case("a session asks NFS once when it begins, and once more when it ends if it changed something")
def _(context):
    # On a busy machine it may last for more than a second.
    with context.site(toml='recheck = "0"\n') as site:
        user = site.new_user()
        operations.prepare(site, user)

        def questions(*commands):
            trace = site.a.alone(user, *commands, strace=("-e", "trace=statx"))
            return len([line for line in trace if "AT_STATX_FORCE_SYNC" in line])

        look = 'LIST "" * RETURN (STATUS (MESSAGES))'
        expect(questions(look), 1, "questions of a session that looks")
        expect(questions(look, "CREATE made", look, "CREATE again", look), 2, "of one that changes something")
        expect_quiet(site)


@case("a report asks NFS nothing about a user who has no list index on this backend")
def _(context):
    with context.site() as site:
        user = site.new_user()
        site.a.imap(user, "create:work", "append:work")
        trace = site.b.dir / "trace"
        report = ["doveadm", "-c", site.b.conf, "mailbox", "status", "-u", user, "messages", "*"]
        with nothing_claimed(site, user):
            shown = site.b.run(["strace", "-f", "-o", trace, "-e", "trace=statx", *report]).stdout
        expect("work messages=1" in shown, True, shown)
        expect([line for line in trace.read_text().splitlines() if "AT_STATX_FORCE_SYNC" in line], [], "questions")
        expect(list(site.b.local.iterdir()), [], "list indexes")
        expect_quiet(site)


CONFIGURATION = "/etc/dovecot/nfs-hostchange.toml"


def hooks_of(trace, index):
    """The plugin's system calls at the beginning of each session in TRACE, whose INDEX is one of INDEX."""
    hooks, calls = [], trace
    while begin := next((i for i, call in enumerate(calls) if CONFIGURATION in call or is_look(call, index)), None):
        look = next(i for i, call in enumerate(calls) if i >= begin and is_look(call, index))
        descriptor = calls[look].rsplit(" = ", 1)[1]
        end = next(i for i, call in enumerate(calls) if i > look and f" close({descriptor})" in call)
        # The ids are asked for before, the effective one again once the configuration is read.
        hooks.append(calls[begin - 1 : end + 1])
        calls = calls[end + 1 :]
    return hooks


def is_look(call, index):
    return "O_PATH" in call and any(f'"{each}"' in call for each in index)


@case("a session that finds nothing to do makes at most 22 system calls of its own, and writes nothing")
def _(context):
    toml = 'migration = true\nlock_timeout = "3 s"\n'
    with context.site(toml=toml) as site:
        users = [site.new_user() for _ in range(3)]
        for user in users:
            operations.prepare(site, user)
            site.a.look(user)
        index = [operations.claim_of(site, user).parent for user in users]
        several = site.a.dir / "several"
        several.write_text("".join(f"{user}\n" for user in users))
        trace = site.a.dir / "trace"
        report = ["doveadm", "-c", site.a.conf, "mailbox", "status", "-F", several, "messages", "*"]

        def of_report():
            site.a.run(["strace", "-f", "-o", trace, *report])
            return hooks_of(trace.read_text().splitlines(), index)

        def of_session():
            return hooks_of(site.a.alone(users[0], "NOOP", strace=("-e", "trace=all")), index)

        def names(hook):
            return [re.match(r"\d*\s*(\w+)\(", call)[1] for call in hook]

        for hooks, count in ((of_session(), 1), (of_report(), 3)):
            expect(len(hooks), count, "sessions")
            for hook in hooks:
                expect(len(hook) <= 22, True, f"at most 22 calls, not {len(hook)}: {hook}")
                forbidden = {"write", "pwrite64", "ftruncate", "utimensat", "futimens", "clone", "socket", "getdents64"}
                expect(forbidden & set(names(hook)), set(), "calls that change something")
                expect([call for call in hook if ".lasthost.without" in call], [], "looks for the sign")
                expect(names(hook).count("statx"), 3 + (hook is hooks[0]), f"questions in {hook}")
            expect([CONFIGURATION in "".join(hook) for hook in hooks], [True] + [False] * (count - 1), "the configuration is read")
        record = site.a.local / users[0] / ".lasthost"
        long_ago = record.stat().st_atime - 7200
        os.utime(record, (long_ago, record.stat().st_mtime))
        of_report()
        expect(record.stat().st_atime, long_ago, "the time of the last use after a report")
        of_session()
        expect(record.stat().st_atime > long_ago + 7000, True, "an IMAP session notes that the list index is used")
        expect_quiet(site)


# --- taking over what was there before -----------------------------------------------------------


@case("a list index in INDEX is taken over by the first session, and is right")
def _(context):
    with context.site(plugin=None, list_index="") as site:
        user = site.new_user()
        site.a.imap(user, "create:work", "append:work")
        site.b.look(user)
        index = operations.claim_of(site, user).parent
        expect((index / "dovecot.list.index.log").exists(), True, "the list index is in INDEX")
        for backend in (site.a, site.b):
            backend.begin_anew(
                plugin=context.plugin, list_index="@LOCAL@/@USER@/dovecot.list.index", toml="migration = true\n"
            )
        expect_look(site.a, user, "the first session")
        expect("migrated" in site.a.log(), True, "it is said")
        expect(list(index.glob("dovecot.list.index*")), [], "what is left in INDEX")
        expect(site.a.has_list_index(user), True, "the local one is in use")
        site.b.lmtp(f"{user}+work")
        expect_all_right(site, user, "a later session")
        expect_quiet(site)
