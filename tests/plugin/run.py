"""Runs the cases of cases.py with one Dovecot and counts them.

    run.py --plugin FILE --wrapper FILE [--root DIRECTORY] [--beside DIRECTORY FILE] [--only REGEX] [--list] [--quick]

DIRECTORY is another system with a Dovecot, and the FILE behind it the plugin for that. The last line is "N passed, N failed".
"""

import argparse
import re
import sys
import time
import traceback

import cases
from backends import Failed, Machine


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--plugin")
    parser.add_argument("--wrapper")
    parser.add_argument("--root")
    parser.add_argument("--beside", nargs=2, default=())
    parser.add_argument("--only", default="")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.list:
        for case in cases.CASES:
            print(case.sentence)
        return 0
    machine = Machine(arguments.root)
    context = cases.Context(machine, arguments.plugin, arguments.wrapper)
    if arguments.beside:
        context.beside = (Machine(arguments.beside[0]), arguments.beside[1])
    passed = failed = 0
    for case in cases.CASES:
        if not re.search(arguments.only, case.sentence) or (arguments.quick and case.long):
            continue
        if not case.versions(machine):
            continue
        # One that fails is run once more, and says so: on a busy machine a Dovecot may be too slow for it.
        for verdict in ("again", "FAILED"):
            began = time.monotonic()
            try:
                case.run(context)
                verdict = "ok"
            except (Failed, AssertionError, *cases.mailclient.PROBLEMS) as error:
                if isinstance(error, Failed):
                    print(f"   {error}")
                else:
                    traceback.print_exc(file=sys.stdout)
            print(f"{verdict:6} {machine.version}: {case.sentence} ({time.monotonic() - began:.1f} s)", flush=True)
            if verdict == "ok":
                break
        passed += verdict == "ok"
        failed += verdict != "ok"
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
