"""Two or three backends serve one user at the same moment: at most one trusts its list index afterwards."""

import time

from lab import PLAIN, PLUGIN_TOO, case, check

MANY = 200
FEW = 16
SECONDS = 60
DOVECOT = 2
CLOSE = 20


def rounds(lab, kind, count):
    """Simultaneous logins by hand, the second a little later each time, over the length of a whole login."""
    user = lab.user()
    lab.a.session(kind, user, ("create", "folder"))
    stands = {lab.a.name: 0, lab.b.name: 0, "neither": 0}
    overlapping = 0
    for number in range(count):
        where = (lab.a, lab.b) if number % 2 else (lab.b, lab.a)
        outcomes = lab.at_once(kind, user, *where, skew=number % 20 * 0.002)
        claim = lab.claim(user)
        trusting = [each for each in where if lab.trusts(each, kind, user)]
        check(len(trusting) <= 1, f"round {number}: both backends trust their list index")
        for each in trusting:
            with open(lab.path(user, "mdbox/.lasthost")) as file:
                text = file.read().split()[0]
            check(text == each.name, f"round {number}: {each.name} trusts, but the claim is {text}'s")
        for each, outcome in zip(where, outcomes):
            check(outcome.vouched or each not in trusting, f"round {number}: {each.name} trusts although it did not vouch: {outcome.log}")
        check(claim, f"round {number}: no claim")
        stands[trusting[0].name if trusting else "neither"] += 1
        overlapping += outcomes[1].began < outcomes[0].ended
    check(overlapping * 2 > count, f"only {overlapping} of {count} rounds had both logins under way at the same time")
    return ", ".join([*(f"{name} {number}" for name, number in stands.items()), f"{overlapping} overlapping"])


@case(f"after each of {MANY} simultaneous logins at most one backend trusts its list index, the one whose claim stands", versions=("3", "4.2"), options=(PLAIN,))
def many_rounds(lab, kind):
    return rounds(lab, kind, MANY)


@case(f"after each of {FEW} simultaneous logins at most one backend trusts its list index, the one whose claim stands", users=PLUGIN_TOO)
def few_rounds(lab, kind):
    return rounds(lab, kind, FEW)


@case(f"on a server with whole seconds: after each of {SECONDS} simultaneous logins at most one backend trusts", versions=("3", "4.2"), options=(PLAIN,), export="seconds")
def whole_seconds(lab, kind):
    return rounds(lab, kind, SECONDS)


@case(f"on a server with whole seconds: claims of three backends within one second are told apart ({CLOSE} rounds)", versions=("3", "4.2"), options=(PLAIN,), export="seconds")
def claims_within_a_second(lab, kind):
    user = lab.user()
    lab.run("install", "-d", "-o", "vmail", "-g", "vmail", "-m", "0700", lab.path(user, "mdbox"))
    with lab.clock() as clock:
        start = int(time.time())
        for number in range(CLOSE):
            for each in (lab.a, lab.b, lab.a, lab.c) if number % 2 else (lab.a, lab.b, lab.c):
                # However slow the machine is, it is always the same second.
                clock.set(start + 10 * number)
                outcome = each.login(kind, user)
                trusting = [other.name for other in lab.backends if lab.trusts(other, kind, user)]
                check(outcome.vouched and trusting == [each.name], f"round {number}: after a login on {each.name}, {trusting} trust: {outcome.log}")
    return ""


@case(f"simultaneous IMAP logins through Dovecot show the truth, and so does the next move ({DOVECOT} rounds)", users=PLUGIN_TOO)
def through_dovecot(lab, kind):
    user = lab.user()
    lab.a.session(kind, user, ("create", "folder"))
    truth = {"INBOX": 0, "folder": 0}
    for number in range(DOVECOT):
        where = (lab.a, lab.b) if number % 2 else (lab.b, lab.a)
        for each in where:
            each.begin("session", kind, user, ("look",))
        for each in where:
            seen = each.finish()[0]
            check(seen == truth, f"round {number}: {each.name} shows {seen}, not {truth}")
        check(sum(lab.trusts(each, kind, user) for each in where) <= 1, f"round {number}: both trust")
        where[0].session(kind, user, ("create", f"new{number}"))
        truth[f"new{number}"] = 0
        seen = where[1].session(kind, user, ("look",))[0]
        check(seen == truth, f"round {number}: after the move {where[1].name} shows {seen}, not {truth}")
    return ""
