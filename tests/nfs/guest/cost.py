"""What a login by the wrapper asks of the server. Counted on the mount itself, one process at a time."""

import time

from lab import PLAIN, VMAIL_TOO, case, check, told, total

LOGINS = 20
SESSIONS = 5


def settled(lab, kind):
    """A user whom A has claimed, with everything in A's caches."""
    user = lab.user()
    lab.a.session(kind, user, ("create", "folder"))
    lab.wait_for_who_stays_behind(user)
    for _ in range(2):
        outcome = lab.a.login(kind, user)
    check(outcome.vouched and lab.trusts(lab.a, kind, user), f"the user does not settle on A: {outcome}")
    return user


def steady(lab, kind):
    user = settled(lab, kind)
    claim = lab.claim(user)
    for number in range(1, LOGINS + 1):
        rpcs, outcome = lab.cost(lab.a, lambda: lab.a.login(kind, user))
        check(outcome.vouched, f"login {number} is not vouched for: {outcome.log}")
        # Such a login opens no file on NFS. What the client gives back in between, after the server's lease of
        # five seconds here, it was lent for files that IMAP had open.
        rpcs.pop("DELEGRETURN", None)
        check(rpcs == {"GETATTR": 1}, f"login {number} cost {told(rpcs)}")
    check(lab.claim(user) == claim, "a steady login claimed")
    return "1 GETATTR each"


@case(f"each of {LOGINS} steady logins costs one GETATTR, and none claims", users=VMAIL_TOO, always=True)
def steady_login(lab, kind):
    return steady(lab, kind)


@case(f"each of {LOGINS} steady logins costs one GETATTR with migration too", users=("migrate", "migrate-vmail"))
def steady_login_with_migration(lab, kind):
    return steady(lab, kind)


@case(f"each of {LOGINS} steady logins costs one GETATTR with the fields of Dovecot 2.4", users=("2.4",))
def steady_login_with_2_4(lab, kind):
    return steady(lab, kind)


@case("a login after a local change in INDEX costs at most 3 RPCs", users=VMAIL_TOO, always=True)
def after_a_local_change(lab, kind):
    user = settled(lab, kind)
    lab.a.sh(f"setpriv --reuid=vmail --regid=vmail --clear-groups mkdir /srv/mail/{user}/mdbox/changed")
    rpcs, outcome = lab.cost(lab.a, lambda: lab.a.login(kind, user))
    check(outcome.vouched, f"not vouched for: {outcome.log}")
    check(total(rpcs) <= 3, f"it cost {told(rpcs)}")
    return told(rpcs)


@case("a claim costs at most 14 RPCs", users=VMAIL_TOO, always=True)
def claim(lab, kind):
    user = settled(lab, kind)
    check(lab.b.login(kind, user).vouched and lab.trusts(lab.b, kind, user), "B could not claim")
    claimed = lab.claim(user)
    rpcs, outcome = lab.cost(lab.a, lambda: lab.a.login(kind, user))
    check(outcome.vouched and lab.claim(user) != claimed, f"A did not claim: {outcome.log}")
    check(total(rpcs) <= 14, f"it cost {told(rpcs)}")
    return told(rpcs)


@case("a session with the plugin asks at most once more than one without, and at most twice more if it changed something", users=("plugin",), options=(PLAIN,))
def session_with_plugin(lab, kind):
    def least(kind, *commands):
        """The fewest GETATTRs of several sessions of a user who is settled on A, and the whole seconds that one took;
        each command has folders' names to itself."""
        user = lab.user()
        for number in range(3):
            lab.a.session(kind, user, ("create", f"before{number}"), ("list",))
        counts = []
        for number in range(SESSIONS):
            each = [(name, *(argument.format(number) for argument in arguments)) for name, *arguments in commands]
            began = time.monotonic()
            rpcs, _ = lab.cost(lab.a, lambda: lab.a.session(kind, user, *each))
            counts.append((rpcs.get("GETATTR", 0), int(time.monotonic() - began)))
        return min(counts)

    details = []
    for what, more, commands in (("that looks", 1, [("list",)]), ("that changes something", 2, [("list",), ("create", "new{}")])):
        (without, _), (with_plugin, seconds) = least("nothing", *commands), least(kind, *commands)
        told = f"a session {what}: {without} GETATTR without, {with_plugin} with the plugin"
        # Once a second it may look again before it lists folders, and after a change.
        check(1 <= with_plugin - without <= more + 2 * seconds, told)
        details.append(told)
    return "; ".join(details)
