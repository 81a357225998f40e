"""A user who moves between backends always sees what is there."""

from lab import PLAIN, PLUGIN_TOO, case, check

RETURNS = 3


def wrong_returns(lab, kind):
    """A user works on A, polls there, works on B, comes back, and so back and forth. What was wrong after each return."""
    user = lab.user()
    truth = {"INBOX": 0}
    wrong = []

    def work(where, turn):
        """Looks, makes a new folder, deletes one, renames one, and gets a new mail each way. Whether the look was right."""
        before = dict(truth)
        commands = [("create", f"new{turn}", f"doomed{turn}"), ("append", f"new{turn}"), ("append", "INBOX")]
        truth.update({f"new{turn}": 1, f"doomed{turn}": 0})
        truth["INBOX"] += 1
        if turn:
            commands += [("delete", f"doomed{turn - 1}"), ("rename", f"new{turn - 1}", f"renamed{turn - 1}")]
            del truth[f"doomed{turn - 1}"]
            truth[f"renamed{turn - 1}"] = truth.pop(f"new{turn - 1}")
        try:
            seen = where.session(kind, user, ("look",), *commands)[0]
        finally:
            # Even an old list must not keep mail from arriving.
            where.deliver(kind, user, f"mail {turn}")
            truth["INBOX"] += 1
        return differing(seen, before)

    def poll(where):
        return differing(where.session(kind, user, ("look",))[0], truth)

    work(lab.a, 0)
    for turn in range(1, RETURNS + 1):
        here, there = (lab.a, lab.b) if turn % 2 else (lab.b, lab.a)
        # Twice, so that both this backend's list index and its NFS caches hold what is there now.
        looks = [(f"poll {number} on {here.name}", poll(here)) for number in (1, 2)]
        looks.append((f"return to {there.name}", work(there, turn)))
        story = [f"{moment}: {difference}" for moment, difference in looks if difference]
        if story:
            wrong.append(f"turn {turn}: " + ", ".join(story))
    return wrong


def differing(seen, truth):
    """What was seen wrong: folder -> (number of mails seen, true number), None for no such folder."""
    return {name: (seen.get(name), truth.get(name)) for name in sorted(seen.keys() | truth.keys()) if seen.get(name) != truth.get(name)}


@case("every LIST and STATUS after a move to the other backend is the truth", users=PLUGIN_TOO, always=True)
def every_look_is_true(lab, kind):
    wrong = wrong_returns(lab, kind)
    check(not wrong, "\n".join(wrong))
    return f"0 of {RETURNS} turns wrong"


@case("every LIST and STATUS after a move is the truth on Dovecot 2.4", users=("2.4",))
@case("every LIST and STATUS after a move is the truth where one backend has Dovecot 2.3 and the other 2.4", users=("mixed", "plugin-mixed"))
def every_look_is_true_during_an_upgrade(lab, kind):
    return every_look_is_true(lab, kind)


@case("control: with no program the same moves show wrong lists", versions=("4.2",), options=(PLAIN,), users=("nothing",))
@case(
    "control: with no program they do where one backend has Dovecot 2.3 and the other 2.4",
    versions=("4.2",),
    options=(PLAIN,),
    users=("nothing-mixed",),
)
@case("control: with a plain stat the same moves show wrong lists", versions=("4.2",), options=(PLAIN,), users=("plain-stat",))
def controls_see_wrong_lists(lab, kind):
    wrong = wrong_returns(lab, kind)
    check(wrong, "no look was wrong: then the case that must be right proves nothing")
    return f"{len(wrong)} of {RETURNS} turns wrong"
