"""The plugin's cases, each a sentence."""

import concurrent.futures
import contextlib
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
    """The Dovecot that is tested, and the plugin that was built for it."""

    machine: Machine
    plugin: str

    def site(self, **options):
        return Site((self.machine, self.machine), **{"plugin": self.plugin, **options})

    def control(self, **options):
        return self.site(plugin=None, **options)


def expect(seen, wanted, what):
    if seen != wanted:
        raise Failed(f"{what}: {seen!r} instead of {wanted!r}")


def expect_quiet(site):
    """No log says that something is wrong."""
    for backend in site.backends.values():
        expect(backend.problems(), [], f"problems on {backend.name}")


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
