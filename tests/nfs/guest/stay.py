"""Sessions that stay open on two backends see what is done on either."""

import re
import time

from lab import PLAIN, case, check
from moves import differing

ROUNDS = 12
# An open session looks at the claim again after a second, and so long it may be until what it changed is known elsewhere.
SECONDS = 2.2


@case(f"each of {3 * ROUNDS} looks of three open sessions on two backends shows what was done on either", options=(PLAIN,), users=("plugin", "plugin-2.4", "plugin-mixed"))
def every_look_is_true(lab, kind):
    user = lab.user()
    sizes = [each.log_size() for each in lab.backends]
    lab.b.session(kind, user, ("create", "work"))
    truth = {"INBOX": 0, "work": 0}
    first, second = (lab.a.open_session(kind, user) for _ in range(2))
    other = lab.b.open_session(kind, user)
    sessions = ((lab.a, first), (lab.a, second), (lab.b, other))

    def change(number):
        made = f"made{number}"
        match number % 6:
            case 0 | 3:
                deliver("work")
            case 1:
                deliver(made)
            case 2:
                lab.b.in_session(other, "create", made)
                truth[made] = 0
            case 4:
                for where, session in ((lab.a, first), (lab.b, other)):
                    where.in_session(session, "append", "work")
                    truth["work"] += 1
            case 5:
                lab.a.in_session(second, "create", made)
                lab.a.in_session(second, "append", made)
                truth[made] = 1

    def deliver(folder):
        lab.b.deliver(kind, f"{user}+{folder}", folder)
        truth[folder] = truth.get(folder, 0) + 1

    wrong = []
    for where, session in sessions:
        where.in_session(session, "look")
    for number in range(ROUNDS):
        change(number)
        time.sleep(SECONDS)
        for where, session in sessions:
            difference = differing(where.in_session(session, "look"), truth)
            if difference:
                wrong.append(f"round {number}, session {session} on {where.name}: {difference}")
    lab.a.close_sessions()
    lab.b.close_sessions()
    check(not wrong, "\n".join(wrong))
    seen = lab.a.session(kind, user, ("look",))[0]
    check(seen == truth, f"a later session shows {seen}, not {truth}")
    for each, size in zip(lab.backends, sizes):
        said = [line for line in each.logs(size).splitlines() if re.search(r"(Error|Panic|Fatal|Warning): (?!Time moved )", line)]
        check(not said, f"on {each.name}: {said[:3]}")
    return f"0 of {3 * ROUNDS} looks wrong"
