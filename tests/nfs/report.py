"""The results of a run, from what the emulated machines wrote down.

report.py list                      the plan on standard input, for people
report.py count DIRECTORY           counts; exit status 1 if anything failed or was not run
report.py table DIRECTORY KERNEL    the Markdown page of what was tested on which mount
"""

import glob
import json
import subprocess
import sys

TITLES = {
    "moves": "Moves",
    "cost": "Cost",
    "migration": "Migration",
    "faults": "Faults",
    "together": "Several backends at once",
    "stay": "Sessions that stay open",
    "phantom": "Phantom folders",
    "command": "The administrator's command",
}
# What the page calls the laboratory's Dovecots.
USERS = {"root": "root", "vmail": "vmail", "migrate": "root", "migrate-vmail": "vmail", "maildir": "root", "nothing": "-", "nothing-mixed": "-", "plain-stat": "vmail", "2.4": "root", "mixed": "root", "migrate-mixed": "root", "plugin": "plugin", "plugin-2.4": "plugin", "plugin-mixed": "plugin", "migrate-plugin": "plugin"}


def results(directory):
    for name in sorted(glob.glob(f"{directory}/results.*")):
        with open(name) as file:
            for line in file:
                yield json.loads(line)


def runs(plan):
    """Every planned run, by what names it."""
    for piece in plan:
        version, options, _ = piece["mount"]
        for item in piece["work"]:
            yield version, options, item["user"], item["group"], item["case"]


def named(run):
    version, options, user, group, case = run
    return f"v{version} {options} {user}: {group}: {case}"


def identity(result):
    return result["version"], result["options"], result["user"], result["group"], result["case"]


def count(directory):
    with open(f"{directory}/plan.json") as file:
        wanted = list(runs(json.load(file)))
    done = {identity(result): result["ok"] for result in results(directory)}
    failed = [run for run in wanted if not done.get(run)]
    for run in failed:
        print(f"{'failed' if run in done else 'not run'}: {named(run)}")
    if failed:
        print(f"logs are in {directory}")
    print(f"{len(wanted) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or not wanted else 0


def column(result):
    """The mount of a result, as the head of a column."""
    options = [option for option in result["options"].split(",") if not option.startswith("actimeo=")]
    return " ".join([f"v{result['version']}", *options])


def table(directory, kernel):
    dovecot = subprocess.run(["dovecot", "--version"], capture_output=True, text=True, check=True).stdout.split()[0]
    everything = list(results(directory))
    print(f"""# What was tested on kernel NFS

`tests/nfs/run.sh --table docs/nfs.md` writes this page. The laboratory boots Linux {kernel} in emulated machines. Each
machine has a kernel NFS server, which exports ext4 with `root_squash`, and three backends. A backend has its own network,
host name, /dev/shm and mount, and therefore its own NFS caches. It runs Dovecot {dovecot}, unless the sentence names
another, with the wrapper as post-login script. All mounts have `actimeo=60`, as Dovecot's documentation advises, and those
of v3 also have `nolock`.

Each row is a sentence that must be true, each column a mount. "as" says which identity the wrapper was started with, or
that the mail plugin was used instead. A dash means that this run did not test the sentence on that mount.
""")
    for group, title in TITLES.items():
        mine = [result for result in everything if result["group"] == group]
        if mine:
            print(f"## {title}\n")
            print_group(mine)


def print_group(mine):
    columns = sorted({column(result) for result in mine}, key=lambda name: (len(name.split()), name))
    print(f"| what must be true | as | {' | '.join(columns)} |")
    print(f"| --- | --- |{' --- |' * len(columns)}")
    details = []
    cases = list(dict.fromkeys(result["case"] for result in sorted(mine, key=lambda result: result["case"])))
    for case in cases:
        these = [result for result in mine if result["case"] == case]
        users = " ".join(sorted({USERS[result["user"]] for result in these}))
        cells = []
        for name in columns:
            here = [result for result in these if column(result) == name]
            cells.append("-" if not here else "yes" if all(result["ok"] for result in here) else "NO")
        print(f"| {case} | {users} | {' | '.join(cells)} |")
        told = {}
        for result in these:
            if result["detail"] and result["ok"]:
                told.setdefault(result["detail"], []).append(f"{column(result)} {USERS[result['user']]}")
        if told:
            details.append((case, told))
    print()
    for case, told in details:
        print(f"- {case}:")
        for detail, where in told.items():
            print(f"  - {detail} ({', '.join(sorted(where))})")
    if details:
        print()


if __name__ == "__main__":
    if sys.argv[1] == "list":
        for each in runs(json.load(sys.stdin)):
            print(named(each))
    elif sys.argv[1] == "count":
        sys.exit(count(sys.argv[2]))
    else:
        table(*sys.argv[2:])
