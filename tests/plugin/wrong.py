"""Wrong builds of the plugin, each of which makes one of the cases fail: a case that cannot fail shows nothing.

    wrong.py list                   their numbers
    wrong.py break NUMBER SOURCE    breaks the copy of the project in SOURCE, and prints what is wrong with it, and a regular
                                    expression of the cases that must fail

Each is one mistake that was made, or could be, about sessions that overlap.
"""

import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Wrong:
    """CHANGES: file, what is in it once, and what is to be there instead."""

    what: str
    fails: str
    changes: tuple


NO_LOOK_AT_END = (
    "src/plugin/list.rs",
    "        if self.changed {\n            self.check(events, None);\n        }\n",
    "        let _ = self.changed;\n",
)
NO_LOOK_NOW_AND_THEN = ("src/plugin/list.rs", "LOOKS_AFTER_CHANGES_EVERY: Duration = Duration::from_secs(1);", "LOOKS_AFTER_CHANGES_EVERY: Duration = Duration::from_secs(3600);")
PLUGIN = "src/plugin/nfs-hostchange-plugin.c"
NOTIFY = "a client that waits in NOTIFY is told what the other backend did, and nothing else"
OPEN_SESSION = "an open session sees what the other backend did as soon as it looks again"

WRONG = (
    Wrong(
        "a login deletes the list index although other sessions have it open",
        "a session that stays open and a (delivery|session) on the other backend do not disturb",
        (
            (
                "src/reconcile/in_place.rs",
                "        (waits && !files::is_in_use(&directory, &self.prefix)).then(|| self.run())",
                "        let _ = waits;\n        Some(self.run())",
            ),
            ("src/reconcile/mod.rs", "        if self.is_in_use(lock, deadline) {", "        if false && self.is_in_use(lock, deadline) {"),
        ),
    ),
    Wrong(
        "nobody looks at the claim once more when a session ends that changed something",
        "what a session changes after the other backend served the user is seen there once it has ended",
        (NO_LOOK_AT_END, NO_LOOK_NOW_AND_THEN),
    ),
    Wrong(
        "a change is claimed before it is made, and nobody looks again after it",
        "a session that begins while a command commits does not hide what was committed",
        (
            NO_LOOK_AT_END,
            NO_LOOK_NOW_AND_THEN,
            (
                "src/plugin/list.rs",
                "        } else if self.using == Use::Without\n            || !self.place",
                "        } else if !self.place",
            ),
        ),
    ),
    Wrong(
        "a new user's first session goes without list index, and those beside it with it",
        "a new user's first session does not keep those beside it from the list index",
        (
            (
                "src/plugin/list.rs",
                "            Ok(Step::NoIndex) if serves => (Use::ToTakeOver, None),\n            Ok(Step::Out | Step::NoIndex) => (Use::Without, None),",
                "            Ok(Step::NoIndex) if serves => {\n"
                "                let missing = IndexError::Missing(self.place.tracked.index_dir().to_owned());\n"
                "                self.sign = reconciliation.go_without(Doubt::Index(missing));\n"
                "                (Use::Without, None)\n"
                "            }\n"
                "            Ok(Step::Out | Step::NoIndex) => (Use::Without, None),",
            ),
        ),
    ),
    Wrong(
        "whoever finds the lock taken believes that its holder has done the work already",
        "sessions that begin at once after a change of backend all see the truth",
        (
            (
                "src/reconcile/in_place.rs",
                "            (Missing::Make, Err(_)) => Lock::<Shared>::acquire(&directory, deadline)?,",
                "            (Missing::Make, Err(LockError::TimedOut(_))) => {\n"
                "                return Ok(look.claim.map_or(Step::Out, Step::In));\n"
                "            }\n"
                "            (Missing::Make, Err(_)) => Lock::<Shared>::acquire(&directory, deadline)?,",
            ),
        ),
    ),
    Wrong(
        "a claim that is made drops what the one before it said of other backends' sessions",
        "a session whose sign is in the claim is not forgotten because of claims on the other backend",
        (
            (
                "src/reconcile/claims.rs",
                "            .filter(|without| without.host != host || is_still_open(without))",
                "            .filter(|without| without.host == host && is_still_open(without))",
            ),
        ),
    ),
    Wrong(
        "an open session that finds another backend's claim claims again, and keeps what it has in its list index",
        OPEN_SESSION,
        (
            (
                "src/plugin/list.rs",
                "        let goes_on = stands.is_some() && self.using != Use::Without;",
                "        let goes_on = stands.is_none();",
            ),
        ),
    ),
    Wrong(
        "a session that cannot write to its list index goes on with what is in it",
        "a session that cannot write to its list index does not use what is in it",
        (
            (
                "src/plugin/nfs-hostchange-plugin.c",
                "mail_index_move_to_memory(ilist->index) < 0 ||",
                "mail_index_is_in_memory(ilist->index) ||",
            ),
        ),
    ),
    Wrong(
        "what an open session changed is claimed at its end, or with its next command",
        OPEN_SESSION,
        (
            (
                "src/plugin/list.rs",
                "        (self.changed && self.goes_on()).then_some(left)",
                "        (left == Duration::MAX).then_some(left)",
            ),
        ),
    ),
    Wrong(
        "nobody looks while a client waits in NOTIFY",
        NOTIFY,
        ((PLUGIN, "\tif (callback != NULL) {", "\tif (FALSE && callback != NULL) {"),),
    ),
    Wrong(
        "a client in NOTIFY is told of what Dovecot was made to forget",
        NOTIFY,
        ((PLUGIN, "\tif (!hnotify->notifying)\n", "\tif (FALSE && !hnotify->notifying)\n"),),
    ),
    Wrong(
        "a client in NOTIFY is told the same of a new mailbox again and again",
        NOTIFY,
        ((PLUGIN, "ret > 0 && is_told(", "FALSE && is_told("),),
    ),
)


def main():
    if sys.argv[1] == "list":
        print(*range(len(WRONG)))
        return
    wrong, source = WRONG[int(sys.argv[2])], Path(sys.argv[3])
    for name, old, new in wrong.changes:
        text = (source / name).read_text()
        if text.count(old) != 1:
            raise SystemExit(f"wrong.py: {name} is not what it was: {old!r}")
        (source / name).write_text(text.replace(old, new))
    print(wrong.what, wrong.fails, sep="\t")


main()
