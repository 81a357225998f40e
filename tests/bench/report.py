"""Tables and pictures of what run.sh measured.

    report.py [--into DOCS] RESULTS PART

Prints the part's tables. With --into they replace what is in DOCS/performance.md between
"<!-- PART -->" and "<!-- /PART -->", and the pictures go to DOCS/performance/.
"""

import argparse
import collections
import os
import pathlib
import platform
import re
import statistics
import subprocess

import plot

NAMES = {
    "exec.bare": "C, executes only, no C library",
    "exec.musl": "C, executes only, static musl",
    "exec.dynamic": "C, executes only, dynamic glibc",
    "job.musl": "h2: C, the job, static musl",
    "job.static": "C, the job, static glibc",
    "wrapper": "nfs-hostchange-login",
    "wrapper.settings": "nfs-hostchange-login, fields of Dovecot 2.4",
    "wrapper.glibc": "nfs-hostchange-login on static glibc",
    "wrapper.defaults": "nfs-hostchange-login, no configuration file",
    "wrapper.idle": "nfs-hostchange-login, nothing is local",
    "exec.sh": "dash, exec \"$@\"",
    "job.sh": "dash, the job",
}


class Goals:
    """What was aimed at and what was had, in the order of telling."""

    def __init__(self):
        self.rows = []

    def at_most(self, what, value, limit):
        """A goal that `value` (a number or a Spread) is not above `limit`."""
        self._add(what, value, f"≤ {limit:,g}", middle(value) <= limit)

    def at_least(self, what, value, limit):
        self._add(what, value, f"≥ {limit:,g}", middle(value) >= limit)

    def _add(self, what, value, limit, met):
        self.rows.append(f"| {what} | {show(value)} | {limit} | {'met' if met else '**missed**'} |")

    def table(self):
        if not self.rows:
            return []
        return ["", "| goal | measured | aimed at | |", "| --- | --: | --: | --- |", *self.rows]


class Spread(collections.namedtuple("Spread", "first median third")):
    """A median between its quartiles."""

    @classmethod
    def of(cls, values):
        values = list(values)
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


def middle(value):
    return value.median if isinstance(value, Spread) else value


def show(value):
    if isinstance(value, Spread):
        return f"{plot.number(value.median)} ({plot.number(value.first)}–{plot.number(value.third)})"
    return plot.number(value)


class Runs:
    """What spawn printed: for each candidate one start in each round."""

    def __init__(self, path):
        self.rounds = collections.defaultdict(dict)
        for line in path.read_text().splitlines():
            number, name, wall, cpu, memory = line.split("\t")
            # Microseconds.
            self.rounds[int(number)][name] = {"wall": int(wall) / 1000, "cpu": int(cpu), "memory": int(memory)}

    def names(self):
        return list(next(iter(self.rounds.values())))

    def values(self, name, what):
        return [taken[name][what] for taken in self.rounds.values()]

    def spread(self, name, what):
        return Spread.of(self.values(name, what))

    def most(self, name, what):
        return max(self.values(name, what))

    def ratios(self, name, other, what):
        """Round by round."""
        return Spread.of(taken[name][what] / taken[other][what] for taken in self.rounds.values())

    def added(self, names, what, base="end", blocks=30):
        """What each candidate takes more than `base`, median by median of blocks of rounds: a
        single start is as long as a timer interrupt. One dictionary for each block."""
        rounds = list(self.rounds.values())
        size = max(1, len(rounds) // blocks)
        result = []
        for start in range(0, size * (len(rounds) // size), size):
            block = rounds[start : start + size]
            medians = {name: statistics.median(taken[name][what] for taken in block) for name in [base, *names]}
            result.append({name: medians[name] - medians[base] for name in names})
        return result


def block_ratios(blocks, name, other):
    return Spread.of(block[name] / block[other] for block in blocks)


def start(results, goals, pictures):
    lines = []
    ladder = {}
    for who, title in (("user", "As the mail user"), ("root", "As root, with the changes of identity")):
        runs = Runs(results / f"start.{who}")
        names = [name for name in NAMES if name in runs.names()]
        cpu, wall = (runs.added(names, what) for what in ("cpu", "wall"))
        lines += [
            "",
            f"**{title}**, {len(runs.rounds)} starts of each:",
            "",
            "| program | added, µs | to h2 | to h2, by the clock | to dash |",
            "| --- | --: | --: | --: | --: |",
        ]
        for name in names:
            added = Spread.of(block[name] for block in cpu)
            ladder[name, who] = added.median
            lines.append(
                f"| {NAMES[name]} | {show(added)} | {show(block_ratios(cpu, name, 'job.musl'))} "
                f"| {show(block_ratios(wall, name, 'job.musl'))} | {show(block_ratios(cpu, name, 'exec.sh'))} |"
            )
        rows = [(NAMES[name], *block_ratios(cpu, name, "job.musl")) for name in names]
        pictures[f"start-{who}.svg"] = plot.bars(f"Time that a start adds, to h2 ({title.lower()})", "times h2, logarithmic", rows, 2.0)
        goals.at_most(f"start {'as the mail user' if who == 'user' else 'as root'}, to h2 (stretch: 1.6)", block_ratios(cpu, "wrapper", "job.musl"), 2.1)
        goals.at_most("the same, to dash", block_ratios(cpu, "wrapper", "exec.sh"), 0.30)
        if who == "user":
            goals.at_most("the same, to the job as a shell script", block_ratios(cpu, "wrapper", "job.sh"), 0.10)

    h2 = ladder["job.musl", "user"]
    steps = [
        ("executing a second program at all (C without a library)", ladder["exec.bare", "user"]),
        ("the program itself: its size, musl's and Rust's start", ladder["wrapper.idle", "user"] - ladder["exec.bare", "user"]),
        ("the look, the lock, the comparison", ladder["wrapper.defaults", "user"] - ladder["wrapper.idle", "user"]),
        ("the configuration file: reading it, TOML", ladder["wrapper", "user"] - ladder["wrapper.defaults", "user"]),
        ("as root: taking on the user's ids and back", ladder["wrapper", "root"] - ladder["wrapper", "user"]),
    ]
    lines += ["", "Where the wrapper's time goes:", "", "| step | µs | in h2 |", "| --- | --: | --: |"]
    lines += [f"| {what} | {time:.0f} | {time / h2:.2f} |" for what, time in steps]

    lines += [
        "",
        "Counted until the final execve, which is included:",
        "",
        "| program | as | system calls | user instructions |",
        "| --- | --- | --: | --: |",
    ]
    for line in (results / "start.inspect").read_text().splitlines():
        name, who, *counts = line.split()
        calls, instructions = map(int, counts)
        lines.append(f"| {NAMES[name]} | {who} | {calls} | {instructions:,} |")
        if name == "wrapper":
            goals.at_most(f"system calls as {who}", calls, 30 if who == "user" else 40)
            if who == "user":
                goals.at_most("user instructions", instructions, 40_000)
    return lines


SITES = {
    "none": "none",
    "plugin": "none, but the mail plugin",
    "exec": "C program that only executes",
    "wrapper": "nfs-hostchange-login",
    "script": "the job as a shell script",
}


def read_sites(path):
    rounds = collections.defaultdict(dict)
    for line in path.read_text().splitlines():
        number, name, value = line.split()
        rounds[int(number)][name] = float(value)
    return list(rounds.values())


def in_blocks(rounds, blocks=30):
    size = max(1, len(rounds) // blocks)
    return [
        {name: statistics.median(taken[name] for taken in rounds[start : start + size]) for name in rounds[0]}
        for start in range(0, size * (len(rounds) // size), size)
    ]


def dovecot(results, goals, pictures):
    lines = []
    for path in sorted(results.glob("dovecot.*.single")):
        version = path.name.removeprefix("dovecot.").removesuffix(".single")
        lines += logins(version, read_sites(path), read_sites(path.with_suffix(".parallel")), goals, pictures)
    return lines


def logins(version, single, parallel, goals, pictures):
    sites = {name: title for name, title in SITES.items() if name in single[0]}
    blocks = in_blocks(single)
    lines = [
        "",
        f"**Dovecot {version}**, {len(single)} logins one at a time; {len(parallel)} times 160 sessions by 8 clients:",
        "",
        "| post-login service | LOGIN answered after, ms | to the C program | sessions/s, 8 clients | to the C program |",
        "| --- | --: | --: | --: | --: |",
    ]
    for name, title in sites.items():
        latency = Spread.of(taken[name] / 1e6 for taken in single)
        rate = Spread.of(taken[name] for taken in parallel)
        lines.append(
            f"| {title} | {show(latency)} | {show(block_ratios(blocks, name, 'exec'))} "
            f"| {show(rate)} | {show(block_ratios(parallel, name, 'exec'))} |"
        )
    rows = [(title, *Spread.of(taken[name] / 1e6 for taken in single)) for name, title in sites.items()]
    generation = version[:3]
    pictures[f"dovecot-{generation}.svg"] = plot.bars(
        f"IMAP LOGIN until its answer, Dovecot {generation}", "milliseconds, logarithmic", rows
    )
    if "plugin" in sites:
        pictures["logins.svg"] = plot.bars(
            "IMAP sessions per second, 8 clients",
            "sessions/s, logarithmic",
            [(title, *Spread.of(taken[name] for taken in parallel)) for name, title in sites.items() if name != "exec"],
        )
    goals.at_most(f"login through Dovecot {generation}, to the C program", block_ratios(blocks, "wrapper", "exec"), 1.03)
    goals.at_least(f"sessions/s with 8 clients, Dovecot {generation}, to the C program", block_ratios(parallel, "wrapper", "exec"), 0.97)
    return lines


CHANGES = {
    "none": "nothing to do",
    "change": "host change: claim, delete",
    "migrate": "migration: copy, claim, delete",
    "cp": "cp of the two files (a process too)",
}


def change(results, goals, pictures):
    runs = Runs(results / "change.spawn")
    each = int((results / "change.bytes").read_text())
    sizes = sorted({int(name.split(".")[1]) for name in runs.names()})
    lines = [
        "",
        f"{len(runs.rounds)} logins of each kind; {each} bytes of list index and log for each folder, as a real Dovecot wrote "
        "them; INDEX and LISTINDEX on tmpfs. Processor time from the start to the end of the process, µs:",
        "",
        "| folders | list index, KiB | " + " | ".join(CHANGES.values()) + " | migration to cp |",
        "| --: | --: |" + " --: |" * (len(CHANGES) + 1),
    ]
    for size in sizes:
        cells = [show(runs.spread(f"{kind}.{size}", "cpu")) for kind in CHANGES]
        ratio = runs.ratios(f"migrate.{size}", f"cp.{size}", "cpu")
        lines.append(f"| {size:,} | {size * each / 1024:,.0f} | " + " | ".join(cells) + f" | {show(ratio)} |")
    series = [(title, [(size, runs.spread(f"{kind}.{size}", "cpu").median) for size in sizes]) for kind, title in CHANGES.items()]
    pictures["change.svg"] = plot.lines("One login, by the size of the list index", "folders", "µs", series)
    return lines


SWEEPS = {
    "scan.c": "C, the least, one thread",
    "scan.same": "C, the same calls",
    "scan.1": "nfs-hostchange, one thread",
    "scan.2": "nfs-hostchange, all processors",
    "scan.find": "find -name .lasthost -atime",
    "pass.c": "C, the least, one thread",
    "pass.1": "nfs-hostchange, one thread",
    "pass.2": "nfs-hostchange, all processors",
    "pass.tmpfiles": "systemd-tmpfiles --clean",
    "delete.c": "C: four unlinkat, rmdir",
    "delete.same": "C, the same calls",
    "delete.1": "nfs-hostchange, one thread",
    "delete.2": "nfs-hostchange, all processors",
    "commands.1": "nfs-hostchange, one thread",
    "commands.rm": "find, sh with rm and rmdir for each user",
    "commands.clean": "find, nfs-hostchange usercache clean for each user",
    "commands.doveadm": "find, doveadm exec nfs-hostchange usercache clean for each user",
}


def sweep_table(runs, kind, title, users):
    """Ratios are to the first program."""
    base, *_ = [name for name in SWEEPS if name.startswith(kind)]
    lines = [
        "",
        f"**{title}**, {len(runs.rounds)} rounds:",
        "",
        "| program | by the clock, ms | processor time, ms | users/s | to the first, processor time | by the clock | resident, KiB |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for name, program in SWEEPS.items():
        if not name.startswith(kind):
            continue
        wall, cpu = (Spread.of(value / 1000 for value in runs.values(name, what)) for what in ("wall", "cpu"))
        lines.append(
            f"| {program} | {show(wall)} | {show(cpu)} | {users / wall.median * 1000:,.0f} "
            f"| {show(runs.ratios(name, base, 'cpu'))} | {show(runs.ratios(name, base, 'wall'))} "
            f"| {runs.most(name, 'memory'):,} |"
        )
    return lines


def only(results, kind):
    """The number of users and what was measured, of the one file called so."""
    (path,) = results.glob(kind + ".*")
    return int(path.suffix[1:]), Runs(path)


def sweep(results, goals, pictures):
    sizes = sorted(int(path.suffix[1:]) for path in results.glob("scan.*"))
    all_runs = {kind: {users: Runs(results / f"{kind}.{users}") for users in sizes} for kind in ("scan", "pass")}
    lines = []
    for users in [size for size in sizes if size >= 200_000] or sizes[-1:]:
        runs = all_runs["scan"][users]
        lines += sweep_table(runs, "scan", f"Scan of {users:,} users, none of them old enough", users)
        lines += sweep_table(all_runs["pass"][users], "pass", f"Whole pass over {users:,} users, a tenth of them old", users)
        goals.at_most(f"scan of {users:,} users on one thread, to C with the same calls", runs.ratios("scan.1", "scan.same", "cpu"), 1.1)
        goals.at_least("the same, how much faster than find", runs.ratios("scan.find", "scan.1", "cpu"), 4)
        if os.cpu_count() > 1:
            goals.at_most("the same, two threads to one, by the clock", runs.ratios("scan.2", "scan.1", "wall"), 0.55)
    users, deletion = only(results, "deletion")
    lines += sweep_table(deletion, "delete", f"Deleting alone: {users:,} users, all of them old", users)
    goals.at_most("deleting, to C with the same calls", deletion.ratios("delete.1", "delete.same", "cpu"), 1.05)
    goals.at_most("deleting, to C without lock, lease and sign", deletion.ratios("delete.1", "delete.c", "cpu"), 1.75)
    if os.cpu_count() > 1:
        goals.at_most("deleting, two threads to one, by the clock", deletion.ratios("delete.2", "delete.1", "wall"), 0.6)
    users, commands = only(results, "commands")
    lines += sweep_table(commands, "commands", f"A command for each user: {users:,} users, all of them old", users)
    goals.at_least("how much faster than a doveadm for each user, by the clock", commands.ratios("commands.doveadm", "commands.1", "wall"), 100)
    memory = {users: runs.most("pass.2", "memory") for users, runs in all_runs["pass"].items()}
    goals.at_most("resident memory, KiB", max(memory.values()), 8192)
    goals.at_most(f"resident memory with {sizes[-1]:,} users, to that with {sizes[0]:,}", memory[sizes[-1]] / memory[sizes[0]], 1.05)
    rate = [all_runs["scan"][users].spread("scan.1", "cpu").median / users for users in sizes]
    goals.at_most(f"time for each user with {sizes[-1]:,}, to that with {sizes[0]:,}", rate[-1] / rate[0], 1.3)
    series = [
        (f"{kind}: {SWEEPS[kind + suffix]}", [(users, runs.spread(kind + suffix, "cpu").median / 1000) for users, runs in all_runs[kind].items()])
        for kind in ("scan", "pass")
        for suffix in (".c", ".1", ".find" if kind == "scan" else ".tmpfiles")
    ]
    pictures["sweep.svg"] = plot.lines("Cleaning by the number of users", "users", "processor time, ms", series)
    return lines


PLUGINS = {
    "none": "none",
    "empty": "a plugin that does nothing",
    "plugin": "nfs_hostchange",
    "wrapper": "nfs-hostchange-login",
    "exec": "C program that only executes",
}


class Sessions:
    """What was measured with one release of Dovecot."""

    def __init__(self, results, release):
        self.loads = collections.defaultdict(lambda: collections.defaultdict(dict))
        for of, load, number, name, count, wall, cpu in rows(results / "plugin.rounds"):
            if of == release:
                each = {"rate": int(count) / float(wall), "cpu": float(cpu) / int(count) * 1e6}
                self.loads[load][int(number)][name] = each
        self.hooks = collections.defaultdict(list)
        for of, process, name, taken in rows(results / "plugin.hook"):
            if of == release:
                self.hooks[process, name].append(int(taken) / 1000)
        self.memory = collections.defaultdict(list)
        for of, name, kilobytes in rows(results / "plugin.memory"):
            if of == release:
                self.memory[name].append(int(kilobytes))

    def spread(self, load, name, what):
        return Spread.of(each[name][what] for each in self.loads[load].values())

    def ratios(self, load, name, other, what):
        return Spread.of(each[name][what] / each[other][what] for each in self.loads[load].values())

    def added(self, load, name, other):
        """Processor time of a session over that with another one, round by round."""
        return Spread.of(each[name]["cpu"] - each[other]["cpu"] for each in self.loads[load].values())

    def hook(self, process, name="plugin"):
        """Microseconds at the beginning of a session, without the clock's own."""
        empty = statistics.median(self.hooks[process, "empty"])
        return Spread.of(taken - empty for taken in self.hooks[process, name])

    def memory_added(self):
        empty = statistics.median(self.memory["empty"])
        return Spread.of(kilobytes - empty for kilobytes in self.memory["plugin"])


def rows(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def plugin(results, goals, pictures):
    lines = []
    for release in dict.fromkeys(row[0] for row in rows(results / "plugin.rounds")):
        sessions = Sessions(results, release)
        lines += ["", f"**Dovecot {release}**, {len(sessions.loads['POP3'])} rounds; doveadm and LMTP: each user is a session."]
        for load in sessions.loads:
            names = [name for name in PLUGINS if name in sessions.loads[load][0]]
            lines += [
                "",
                f"| {load} | sessions/s | to none | to the empty plugin | processor time, µs | more than none | more than the empty plugin |",
                "| --- | --: | --: | --: | --: | --: | --: |",
            ]
            for name in names:
                rate, cpu = (sessions.spread(load, name, what) for what in ("rate", "cpu"))
                lines.append(
                    f"| {PLUGINS[name]} | {show(rate)} | {show(sessions.ratios(load, name, 'none', 'rate'))} "
                    f"| {show(sessions.ratios(load, name, 'empty', 'rate'))} | {show(cpu)} "
                    f"| {show(sessions.added(load, name, 'none'))} | {show(sessions.added(load, name, 'empty'))} |"
                )
        lines += ["", "| in the hook, µs | nfs_hostchange | the same system calls in C |", "| --- | --: | --: |"]
        for process in ("new", "used"):
            lines.append(f"| {process} process | {show(sessions.hook(process))} | {show(sessions.hook(process, 'calls'))} |")
        for process in ("new", "used"):
            load = f"IMAP, {process} process"
            goals.at_least(f"{release}, {load}: sessions/s to the empty plugin", sessions.ratios(load, "plugin", "empty", "rate"), 0.97)
            goals.at_least(f"{release}, {load}: sessions/s to none", sessions.ratios(load, "plugin", "none", "rate"), 0.95)
            limit = {"new": 35, "used": 20}[process]
            goals.at_most(f"{release}, {load}: in the plugin's hook, µs", sessions.hook(process), limit)
        added = sessions.added("IMAP, new process", "plugin", "empty")
        goals.at_most(f"{release}, IMAP, new process: processor time more than the empty plugin, µs", added, 80)
        for load in ("LMTP, INBOX", "LMTP, folder", "doveadm -A"):
            goals.at_most(f"{release}, {load}: processor time to none", sessions.ratios(load, "plugin", "none", "cpu"), 1.05)
        goals.at_most(f"{release}: memory of a session more than the empty plugin, KiB", sessions.memory_added(), 200)
        bars = [
            (f"{load}: {PLUGINS[name]}", *sessions.spread(load, name, "cpu"))
            for load in ("IMAP, new process", "IMAP, used process")
            for name in PLUGINS
        ]
        pictures[f"plugin-{release}.svg"] = plot.bars(f"Processor time of an IMAP session, Dovecot {release}", "microseconds, logarithmic", bars)
    return lines


PART = {"start": start, "dovecot": dovecot, "plugin": plugin, "change": change, "sweep": sweep}


def machine(load):
    """The machine, in a sentence."""
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    dovecot = subprocess.run(["/usr/sbin/dovecot", "--version"], capture_output=True, text=True, check=True)
    return (
        f"Linux {platform.release()}, {os.cpu_count()} processors ({model[1] if model else platform.machine()}), "
        f"Dovecot {dovecot.stdout.split()[0]}; load average {load}."
    )


def replace(text, part, lines):
    block = f"<!-- {part} -->\n" + "\n".join(lines) + f"\n\n<!-- /{part} -->"
    new, count = re.subn(f"<!-- {part} -->.*?<!-- /{part} -->", lambda _: block, text, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"report: no place for {part}")
    return new


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--into", type=pathlib.Path)
    options.add_argument("results", type=pathlib.Path)
    options.add_argument("part", choices=PART)
    options = options.parse_args()

    goals, pictures = Goals(), {}
    # Over the last five minutes of the measurement.
    load = (options.results / f"{options.part}.load").read_text().split()[1]
    lines = [machine(load), *PART[options.part](options.results, goals, pictures), *goals.table()]
    print("\n".join(lines))
    if not options.into:
        return
    (options.into / "performance").mkdir(exist_ok=True)
    for name, picture in pictures.items():
        (options.into / "performance" / name).write_text(picture)
        lines += ["", f"![{name[:-4]}](performance/{name})"]
    page = options.into / "performance.md"
    page.write_text(replace(page.read_text(), options.part, lines))


main()
