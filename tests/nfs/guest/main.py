"""Runs the planned cases in the emulated machine and writes down what came of them.

Several machines may share the work. The directory /lab/claimed is the host's: whoever makes a directory in it does
that piece.
"""

import json
import os
import time
import traceback

import backend
import lab as laboratory
import plan

MACHINE = os.environ["MACHINE"]
LOG_LINES = 30  # of each backend's log, shown with a failure

assert plan.GROUPS  # importing the groups is what fills laboratory.CASES


def attempt(lab, case, user, mount):
    """Runs one case once."""
    began = time.monotonic()
    sizes = [each.log_size() for each in lab.backends]
    logs = []
    try:
        lab.use(*mount)
        detail, fine = case.function(lab, user) or "", True
    except Exception as error:
        told = isinstance(error, (laboratory.Failure, backend.RemoteError))
        detail, fine = str(error) if told else traceback.format_exc(), False
        for each, size in zip(lab.backends, sizes):
            lines = [line for line in each.logs(size).splitlines() if "no auth attempts" not in line]
            logs += [f"{each.name}: {line}" for line in lines[-LOG_LINES:]]
    return {
        "group": case.group,
        "case": case.sentence,
        "version": mount[0],
        "options": mount[1],
        "user": user,
        "ok": fine,
        "detail": detail,
        "logs": logs,
        "seconds": round(time.monotonic() - began, 1),
    }


def told(result):
    """One line for people, and the story if it failed."""
    verdict = "ok    " if result["ok"] else "FAILED"
    line = f"{verdict} v{result['version']} {result['options']} {result['user']}: {result['group']}: {result['case']}"
    if result["ok"]:
        return f"{line}{result['detail'] and ' [' + result['detail'] + ']'} ({result['seconds']} s)"
    return "\n    ".join([f"{line} ({result['seconds']} s)", *result["detail"].splitlines(), *result["logs"]])


def main(say):
    with open("/lab/plan.json") as file:
        pieces = json.load(file)
    lab = laboratory.Lab()
    say(f"       machine {MACHINE}: the server and {len(lab.backends)} backends are up")
    with open(f"/lab/results.{MACHINE}", "w") as results:
        for number, piece in enumerate(pieces):
            try:
                os.mkdir(f"/lab/claimed/{number}")
            except FileExistsError:
                continue
            for item in piece["work"]:
                work = laboratory.CASES[item["number"]], item["user"], tuple(piece["mount"])
                result = attempt(lab, *work)
                if not result["ok"]:
                    # Once more, and said: on a busy machine the emulated ones may be too slow for it.
                    say(f"again: {told(result)}")
                    result = attempt(lab, *work)
                print(json.dumps(result), file=results, flush=True)
                say(told(result))
    with open(f"/lab/done.{MACHINE}", "w") as file:
        file.write("done\n")


with open(f"/lab/progress.{MACHINE}", "w") as progress:
    try:
        main(lambda text: print(text, file=progress, flush=True))
    except BaseException:
        print(f"       machine {MACHINE}: the laboratory itself failed\n{traceback.format_exc()}", file=progress)
        raise
