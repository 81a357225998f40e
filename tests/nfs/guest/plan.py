"""What is to be run: plan.py VERSIONS REGEX FULL COMMAND prints it as JSON, in pieces that share a mount.

VERSIONS: those of NFS, separated by spaces; empty for all. REGEX: only cases whose "kind of Dovecot: group: sentence"
has a match. FULL: "true" for every case on every version, mount option and identity that it is written for. COMMAND: "true" if the
administrator's command is there, too.
"""

import json
import re
import sys

import command
import cost
import faults
import lab
import migration
import moves
import phantom
import stay
import together
import way

GROUPS = (moves, cost, migration, faults, way, together, stay, phantom, command)


def pieces(versions, only, full, with_command):
    plan = {}
    for number, case in enumerate(lab.CASES):
        if case.group == command.__name__ and not with_command:
            continue
        runs = case.runs(full)
        for version, options, user in runs:
            is_wanted = re.search(only, f"{user}: {case.group}: {case.sentence}")
            if is_wanted and (not versions or version in versions):
                plan.setdefault((version, options, case.export), []).append((number, user))
    # The longest first: several machines take what comes next.
    return sorted(plan.items(), key=lambda piece: -len(piece[1]))


if __name__ == "__main__":
    wanted = pieces(sys.argv[1].split(), sys.argv[2], sys.argv[3] == "true", sys.argv[4] == "true")
    json.dump(
        [
            {
                "mount": mount,
                "work": [
                    {"number": number, "user": user, "group": lab.CASES[number].group, "case": lab.CASES[number].sentence}
                    for number, user in work
                ],
            }
            for mount, work in wanted
        ],
        sys.stdout,
        indent=1,
    )
