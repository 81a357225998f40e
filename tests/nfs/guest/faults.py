"""Things break. A login goes through as soon as IMAP itself can work, nobody sees old lists, and the next good login heals."""

import os
import shutil
import signal
import time
from contextlib import contextmanager

from backend import wait_until
from dovecot import KINDS, MAIL, VMAIL
from lab import PLAIN, PLUGIN_TOO, VMAIL_TOO, case, check, running, serves

APART = 2 * 3600  # seconds


def known(lab, kind):
    """A user who has worked on B and then on A, whom A trusts, with everything in the caches of both."""
    user = lab.user()
    lab.b.session(kind, user, ("create", "folder", "second"), ("append", "INBOX"))
    lab.wait_for_who_stays_behind(user)
    truth = {"INBOX": 1, "folder": 0, "second": 0}
    for _ in range(2):
        sees(lab.a, kind, user, truth)
    check(lab.trusts(lab.a, kind, user), "the user does not settle on A")
    return user, truth


def sees(where, kind, user, truth):
    seen = where.session(kind, user, ("look",))[0]
    check(seen == truth, f"{where.name} shows {seen}, not {truth}")


def lists(where, kind, user, truth):
    seen = where.session(kind, user, ("list",))[0]
    check(seen == sorted(truth), f"{where.name} lists {seen}, not {sorted(truth)}")


def is_not_vouched_for(lab, where, kind, user):
    """A login by hand: the program says no, and leaves no record, without which no later login trusts anything."""
    outcome = where.login(kind, user)
    check(not outcome.vouched, f"{where.name} vouched")
    check(outcome.log, f"{where.name} did not say why it does not vouch")
    check(where.record(kind, user) is None, f"{where.name} kept a record")


def heals(lab, kind, user, truth, where):
    """As soon as what stayed behind for a session without list index has claimed for it, a login vouches. A change made there
    is seen on the other backend and back."""

    def vouches():
        sees(where, kind, user, truth)
        return lab.trusts(where, kind, user)

    wait_until(vouches, f"{where.name} vouches")
    other = lab.b if where is lab.a else lab.a
    other.session(kind, user, ("create", "healed"), ("delete", "second"))
    truth["healed"] = 0
    del truth["second"]
    sees(where, kind, user, truth)


@case("the server is killed during logins and comes back", users=PLUGIN_TOO)
def server_restarts(lab, kind):
    user, truth = known(lab, kind)
    # A has nothing to do but look; B has to claim.
    lab.server.down()
    try:
        for where in (lab.a, lab.b):
            where.begin("session", kind, user, ("look",))
        lab.wait_for_rpc(KINDS[kind].program, 2)
    finally:
        lab.server.up()
    for where in (lab.a, lab.b):
        seen = where.finish()[0]
        check(seen == truth, f"{where.name} shows {seen}, not {truth}")
    check(lab.trusts(lab.a, kind, user) != lab.trusts(lab.b, kind, user), "not exactly one of them trusts its list index")
    heals(lab, kind, user, truth, lab.a)
    return ""


@case("what stays behind for a session ends when it is told to, although the server does not answer", users=VMAIL_TOO, options=(PLAIN,))
def ends_while_the_server_is_down(lab, kind):
    user, _ = known(lab, kind)
    index = lab.path(user, "mdbox")
    # It cannot claim, and tries again and again.
    os.chown(index, 0, 0)
    lab.a.login(kind, user)
    behind = [pid for pid in running("nfs-hostchange-login") if serves(pid, user)]
    check(len(behind) == 1, f"{len(behind)} stay behind")
    lab.server.down()
    try:
        lab.wait_for_rpc("nfs-hostchange-login", 1)
        began = time.monotonic()
        os.kill(int(behind[0]), signal.SIGTERM)
        wait_until(lambda: not serves(behind[0], user), "it ends", seconds=20)
        took = time.monotonic() - began
    finally:
        lab.server.up()
        os.chown(index, VMAIL, VMAIL)
    return f"after {took:.0f} s"


@case("the export becomes read-only", users=PLUGIN_TOO)
def read_only(lab, kind):
    user, truth = known(lab, kind)
    lab.server.set_read_only("mail", True)
    try:
        # Dovecot opens a folder's log for writing, so STATUS fails by itself.
        lists(lab.a, kind, user, truth)
        check(lab.trusts(lab.a, kind, user), "A, whose claim stands, does not vouch")
        is_not_vouched_for(lab, lab.b, kind, user)
        lists(lab.b, kind, user, truth)
    finally:
        lab.server.set_read_only("mail", False)
    heals(lab, kind, user, truth, lab.b)
    return ""


@case("the file system is full", users=PLUGIN_TOO, export="small")
def full(lab, kind):
    user, truth = known(lab, kind)
    with filled("/export/small"):
        sees(lab.a, kind, user, truth)
        check(lab.trusts(lab.a, kind, user), "A, whose claim stands, does not vouch")
        is_not_vouched_for(lab, lab.b, kind, user)
        sees(lab.b, kind, user, truth)
        litter = [name for name in os.listdir(lab.path(user, "mdbox")) if name.startswith(".lasthost.")]
        check(not litter, f"failed claims left {litter}")
    heals(lab, kind, user, truth, lab.b)
    return ""


@contextmanager
def filled(directory):
    """Takes every block of the file system."""
    name = f"{directory}/filling"
    try:
        with open(name, "wb", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                        os.fsync(file.fileno())
                except OSError:
                    pass
        yield
    finally:
        os.unlink(name)
        os.sync()


@case("the directory may be read by root only, whom the server squashes", users=PLUGIN_TOO)
def forbidden(lab, kind):
    user, truth = known(lab, kind)
    index = lab.path(user, "mdbox")
    os.chown(index, 0, 0)
    try:
        is_not_vouched_for(lab, lab.a, kind, user)
        is_not_vouched_for(lab, lab.b, kind, user)
    finally:
        os.chown(index, VMAIL, VMAIL)
    heals(lab, kind, user, truth, lab.a)
    return ""


@case("the directory is replaced on the server behind the client's back", users=PLUGIN_TOO)
def replaced(lab, kind):
    user, truth = known(lab, kind)
    index = lab.path(user, "mdbox")
    # With all attributes kept, times too: only the inode numbers tell.
    lab.run("cp", "-a", index, f"{index}.new")
    shutil.rmtree(index)
    os.rename(f"{index}.new", index)
    outcome = lab.a.login(kind, user)
    check(outcome.vouched, f"A does not vouch: {outcome.log}")
    heals(lab, kind, user, truth, lab.a)
    return ""


def unmounted(lab, kind, owner):
    user, truth = known(lab, kind)
    mount = lab.mounted
    lab.a.unmount()
    try:
        lab.a.sh(f"chown {owner} {MAIL}")
        if KINDS[kind].plugin:
            # It cannot tell this from a new user's first session, and IMAP makes what it needs.
            check(not lab.a.login(kind, user).vouched, "A vouched")
        else:
            is_not_vouched_for(lab, lab.a, kind, user)
            check(lab.a.sh(f"ls -A {MAIL}") == "", "something was made in the empty mount point")
        try:
            seen = lab.a.session(kind, user, ("list",))[0]
        except RuntimeError:
            seen = ["INBOX"]  # IMAP itself cannot work
        check(seen == ["INBOX"], f"without NFS, LIST shows {seen}")
    finally:
        lab.a.sh(f"find {MAIL} -mindepth 1 -delete; chown root {MAIL}")
        lab.a.mount(*mount)
    heals(lab, kind, user, truth, lab.a)
    return ""


@case("NFS is not mounted and users cannot write to the mount point", users=PLUGIN_TOO)
def unmounted_and_protected(lab, kind):
    return unmounted(lab, kind, "root")


@case("NFS is not mounted and users can write to the mount point", users=PLUGIN_TOO)
def unmounted_and_writable(lab, kind):
    return unmounted(lab, kind, "vmail")


@case("the clocks of the backends are two hours apart", users=PLUGIN_TOO)
def clocks_apart(lab, kind):
    user, truth = known(lab, kind)
    # The machine has one clock. It is set to the time of the backend whose turn it is. Dovecot does not survive that,
    # so most logins are by hand, and the session on the backend that is ahead has a Dovecot of its own.
    with lab.clock() as clock:
        for turn in range(6):
            where, other, ahead = (lab.a, lab.b, 0) if turn % 2 else (lab.b, lab.a, APART)
            clock.set_ahead(ahead)
            outcome = where.login(kind, user)
            check(outcome.vouched and lab.trusts(where, kind, user), f"turn {turn}: {where.name} does not vouch: {outcome}")
            check(not lab.trusts(other, kind, user), f"turn {turn}: {other.name} still trusts its list index")
        clock.set_ahead(APART)
        lab.b.session(kind, user, ("create", "ahead"))
        truth["ahead"] = 0
    heals(lab, kind, user, truth, lab.a)
    return ""
