"""The way to INDEX: what an NFS client remembers of it, while others make, move and replace it."""

import os

from dovecot import VMAIL
from lab import PLAIN, VMAIL_TOO, case, check, told

def newcomer(lab, kind):
    """A user who has nothing yet, on a server that A knows well: he has no way, and A's client knows that already."""
    neighbour = lab.user()
    lab.a.session(kind, neighbour, ("create", "folder"))
    lab.users += 1
    return f"user{lab.users}"


def looks_in_vain(lab, kind, user):
    for _ in range(2):
        check(not lab.a.login(kind, user).vouched, "A vouches for a user without INDEX")


def make_home(lab, user):
    os.mkdir(lab.path(user), 0o700)
    os.chown(lab.path(user), VMAIL, VMAIL)


@case("what another backend made on the way to INDEX is seen although its absence was cached", users=VMAIL_TOO)
def made_since(lab, kind):
    user = newcomer(lab, kind)
    looks_in_vain(lab, kind, user)
    make_home(lab, user)
    for _ in range(3):
        lab.b.session(kind, user, ("create", "folder"), ("delete", "folder"))
    check(lab.trusts(lab.b, kind, user), "the user does not settle on B")
    outcome = lab.a.login(kind, user)
    check(outcome.vouched, f"A does not vouch: {outcome.log}")
    check(lab.trusts(lab.a, kind, user), "A did not claim")
    check(not lab.trusts(lab.b, kind, user), "B still trusts its list index")
    return ""


@case("a directory in which only INDEX was missing is asked again", users=VMAIL_TOO)
def made_last(lab, kind):
    user = newcomer(lab, kind)
    make_home(lab, user)
    looks_in_vain(lab, kind, user)
    for _ in range(3):
        lab.b.session(kind, user, ("create", "folder"), ("delete", "folder"))
    outcome = lab.a.login(kind, user)
    check(outcome.vouched and lab.trusts(lab.a, kind, user), f"A does not vouch: {outcome.log}")
    check(not lab.trusts(lab.b, kind, user), "B still trusts its list index")
    return ""


@case("a login of a user without INDEX costs at most 6 RPCs once it is known that there is none", users=VMAIL_TOO, options=(PLAIN,))
def without_index(lab, kind):
    user = newcomer(lab, kind)
    make_home(lab, user)
    first, _ = lab.cost(lab.a, lambda: lab.a.login(kind, user))
    rpcs, outcome = lab.cost(lab.a, lambda: lab.a.login(kind, user))
    check(not outcome.vouched, "A vouched")
    check(sum(rpcs.values()) <= 6, f"it cost {told(rpcs)}")
    return f"first {told(first)}, then {told(rpcs)}"


@case("of a store that was replaced under its name a login sees what IMAP sees, the old one, and later the new one", options=(PLAIN,))
def replaced_on_the_way(lab, kind):
    user = lab.user()
    lab.a.session(kind, user, ("create", "old"))
    for _ in range(2):
        seen = lab.a.session(kind, user, ("list",))[0]
    check(lab.trusts(lab.a, kind, user), "the user does not settle on A")
    os.rename(lab.path(user), lab.path(f"{user}.archived"))
    make_home(lab, user)
    for _ in range(2):
        lab.b.session(kind, user, ("create", "new"), ("delete", "new"))
    lab.b.session(kind, user, ("create", "new"))
    outcome = lab.a.login(kind, user)
    seen = lab.a.session(kind, user, ("list",))[0]
    # Both believe the client's memory of the way, for as long as actimeo says.
    check(outcome.vouched and seen == ["INBOX", "old"], f"{outcome.log}, IMAP lists {seen}")
    check(lab.trusts(lab.b, kind, user), "a login of the old store claimed the new one")
    # As if that time were over.
    mounted = lab.mounted
    lab.release()
    lab.use(*mounted)
    seen = lab.a.session(kind, user, ("list",))[0]
    check(seen == ["INBOX", "new"], f"after that A lists {seen}")
    check(lab.trusts(lab.a, kind, user), "A does not settle on the new store")
    return ""
