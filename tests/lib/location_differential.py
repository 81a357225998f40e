"""Compares `nfs-hostchange locate` with doveadm on random users and locations.

Called by tests/location-differential.sh, which has prepared the work directory.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import random
import subprocess
import sys

UID, GID = 999, 995
HOST = "mx1.example.org"

USERS = [
    "alice", "bob@example.com", "Carol@Example.COM", "dave.smith@mail.example.org", "grace+tag@x",
    "judy@a@b.example", "@dom", "u@", "@", "x", "007", "12345", "18446744073709551615", "-5",
    "josé@münchen.example", "per%u", "%h", "q'uo\"te\\b@c", "sp ace", " trail ", "tab\ttab", "a{b}c", "a;b", "a,b",
    "..", ".", "a/b", "../up", "=", "MEMORY", "~", "~daemon", "*",
    "abcdefghijklmnopqrstuvwxyz" * 5,
]
HOMES = ["{work}/home/{user}", "{work}/h", "{work}/col:on", "{work}/per%u", "{work}/./dot", "{work}/sl//", "/",
         "relative", "", None]
SHORT = "u n d s h i u n d u l r %".split()
SHORT_BAD = list("qawzkLND05.-+ {}$\\:")
LONG = ["user", "username", "domain", "service", "home", "lip", "rip", "local_ip", "remote_ip", "uid", "gid",
        "auth_user", "auth_username", "auth_domain", "hostname"]
LONG_BAD = ["", "User", "u", "nosuch", "userdb", "env", "user}", "{user", "if", "sha1"]
ALGORITHMS = ["md4", "md5", "sha1", "sha256", "sha384", "sha512", "sha3-256", "sha3-512", "size", "pkcs5"]
OPERATORS = ["==", "<", "<=", ">", ">=", "!=", "eq", "lt", "le", "gt", "ge", "ne", "*", "!*", "~", "!~"]
PATTERNS = ["*", "a*", "*e*", "?", "??*", "*@*", "a?ice", "**x**", "^a", "e$", "[a-m]+", "(al|bo).*", "a{2}",
            "[[:digit:]]", "a*?", "x|", "^$", ".", "[^@]*@", "%n", "b+", "^(.+)@?", "(a|l)*", "%u", "%{user}", "*b", "+",
            "(", "[", ""]
KEYS = ["INDEX", "LISTINDEX", "INDEX", "LISTINDEX", "LISTINDEX", "INDEXPVT", "INDEXCACHE", "CONTROL", "ALT",
        "ALTNOCHECK", "LAYOUT", "SUBSCRIPTIONS", "DIRNAME", "MAILBOXDIR", "VOLATILEDIR", "FULLDIRNAME", "BROKENCHAR",
        "ITERINDEX", "NO-NOSELECT", "NO-FS-VALIDATION", "UTF-8", "INBOX"]
KEYS_BAD = ["Index", " INDEX", "INDEX ", "listindex", "UTF8", "X", "LISTINDEX\t", "ITER", "INBOX2"]
DRIVERS = ["maildir", "mbox", "mdbox", "sdbox", "dbox"]
DRIVERS_BAD = ["MdBox", "Maildir", "raw", "nosuch", "auto", "AUTO", "virtual", "a_b", "imapc", "none", "MBOX", "cydir",
               "shared", "fail", "mail dir", "maildir ", ""]
LAYOUTS = ["maildir++", "fs", "index", "Maildir++", "FS", "imapdir", "none", "nosuch", "", "index/", "~"]


class Maker:
    """Makes one case; nasty pieces are rare enough that most cases resolve."""

    def __init__(self, rng, work):
        self.rng, self.work = rng, work

    def odd(self, chance):
        return self.rng.random() < chance

    def pick(self, good, bad=(), chance=0.01):
        return self.rng.choice(bad if bad and self.odd(chance) else good)

    def number(self):
        return self.pick(["0", "1", "2", "3", "5", "8", "10", "16", "20", "256", "1000", "02", "00", ""],
                         ["99999", "2147483647", "2147483648", "4294967295", "4294967296", "9999999999"], 0.02)

    def width(self):
        text = self.pick(["", "", "-", "0", "-0"]) + self.number()
        if self.odd(0.6):
            text += "." + self.pick(["", "", "0", "-", "0-", "-0"]) + self.number()
        return text

    def modifiers(self):
        return "".join(self.rng.choice("LUEXRHNMDTNNHL") for _ in range(self.rng.choice([0, 0, 0, 1, 1, 1, 2, 2, 3, 10 if self.odd(0.9) else 11])))

    def condition(self, depth):
        operator = self.pick(OPERATORS, ["=~", "", "=", "%{if;a;eq;a;==;!=}"], 0.02)
        if operator in OPERATORS[:6] and self.odd(0.95):
            numbers = ["0", "1", "-1", "00", "-0", "2", "9223372036854775807", "-9223372036854775808", "%{uid}", "%i"]
            left, right = self.rng.choice(numbers), self.rng.choice(numbers)
        else:
            left = self.text(depth) if self.odd(0.7) else self.number()
            right = self.pick(PATTERNS[:-7], PATTERNS, 0.3) if self.odd(0.7) else self.text(depth)
        parts = [left, operator, right, self.text(depth)]
        if self.odd(0.8):
            parts.append(self.text(depth))
        if self.odd(0.03):
            parts.append("x")
        if self.odd(0.1):
            at = self.rng.randrange(len(parts))
            parts[at] = self.rng.choice(["\\", "\\;", "\\:", ":", "\\}", "\\%", "{", "%", "\\\\"]) + parts[at]
        return self.pick(["if", "if", "if", "IF"]) + ";" + ";".join(parts)

    def hash(self, depth):
        options = []
        for _ in range(self.rng.choice([0, 0, 1, 1, 2, 3])):
            options.append(self.rng.choice([
                "rounds=" + self.pick(["1", "2", "7", "100"], ["0", "x", "", "+1"], 0.05),
                "truncate=" + self.rng.choice(["1", "4", "7", "8", "12", "16", "31", "64", "300", "0"]),
                "salt=" + self.rng.choice(["xy", "%u", "%{domain", "%q", "", "%{user}", "a=b", "%"]),
                "format=" + self.pick(["hex", "hexuc", "base64"], ["foo", ""]),
                "nosuch=1", "flag", "",
            ]))
        inner = self.pick([self.pick(LONG), self.pick(LONG)], LONG_BAD + ["sha1:user", "if;a;eq;a;b;c", "env:TZ"], 0.05)
        algorithm = self.pick(ALGORITHMS, ["SHA1", "sha", "sha3_256", "Md5"])
        return algorithm + (";" + ",".join(options) if options or self.odd(0.05) else "") + ":" + inner

    def variable(self, depth=0):
        prefix = "%"
        if self.odd(0.5):
            prefix += self.width()
        if self.odd(0.5):
            prefix += self.modifiers()
        kind = self.rng.random()
        if kind < 0.5:
            return prefix + self.pick(SHORT, SHORT_BAD)
        if kind < 0.7 or depth > 3:
            return prefix + "{" + self.pick(LONG, LONG_BAD) + "}"
        if kind < 0.85:
            return prefix + "{" + self.hash(depth + 1) + "}"
        if kind < 0.95:
            return prefix + "{" + self.condition(depth + 1) + "}"
        return prefix + "{" + self.rng.choice(["env:TZ", "env:NOSUCHENV", "userdb:nosuch", "userdb:x:default",
                                               "userdb:x:a:b", "env", "userdb", "passdb:x"]) + "}"

    def text(self, depth=0):
        parts = []
        for _ in range(self.rng.choice([0, 1, 1, 1, 2, 3] if depth else [1, 1, 2, 3])):
            if self.odd(0.5):
                parts.append(self.variable(depth))
            else:
                parts.append(self.pick(["a", "x", "dovecot.list.index", "ix", "li", "b.c", "é"],
                                       ["=", " ", "..", ".", "~", "{", "}", "MEMORY"], 0.1))
        return "".join(parts)

    def path(self):
        start = self.pick(["~/", "~/", self.work + "/", self.work + "/", "%h/", ""],
                          ["~", "~daemon/", "~nosuchuser-q/", "~games", "/", "//", "./", "../", "~%u/", "~~/", "~."], 0.04)
        middle = "/".join(self.text() for _ in range(self.rng.choice([0, 1, 1, 2, 3])))
        end = self.pick(["", "", "", "/"], ["//", "/.", "/..", "\\", " ", "%", "%5", "%L"], 0.08)
        return start + middle + end

    def value(self, key):
        if key == "LAYOUT":
            return self.rng.choice(LAYOUTS)
        if key == "BROKENCHAR":
            return self.pick(["~", "%%", "^", "/"], ["", "ab", "é", "="], 0.2)
        if key in ("INDEX", "LISTINDEX"):
            if self.odd(0.15):
                return self.rng.choice(["MEMORY", "", "MEMORY/", "/", "//", "name", "/name", "//name", "rel/name", "~",
                                        "~/", "memory", "//a//b", "./x", "~/..", "a/", "a//", self.work + "//"])
        if key == "DIRNAME" and self.odd(0.3):
            return self.rng.choice(["", "/", "x"])
        return self.path()

    def key(self):
        key = self.pick(KEYS, KEYS_BAD, 0.02)
        if key in ("ALTNOCHECK", "ITERINDEX", "NO-NOSELECT", "NO-FS-VALIDATION", "UTF-8"):
            return key + ("=x" if self.odd(0.05) else "")
        # Most layouts refuse these, and a refused location tells nothing else.
        if key in ("DIRNAME", "FULLDIRNAME", "ALT", "BROKENCHAR", "ITERINDEX", "SUBSCRIPTIONS") and self.odd(0.6):
            key = "LISTINDEX"
        return key + ("" if self.odd(0.02) else "=" + self.value(key))

    def location(self):
        text = self.pick(DRIVERS, DRIVERS_BAD, 0.05)
        text += "" if self.odd(0.01) else ":"
        text += self.pick([self.path()], ["", "INBOX=~/x", ":~/x"], 0.03)
        for _ in range(self.rng.choice([0, 1, 1, 2, 2, 3, 5])):
            text += self.pick([":"], ["::", ":::", ""], 0.04) + self.key()
        return text + self.pick([""], [":", "::", ":::", "%", ":%", "%5"], 0.1)

    def plain_location(self):
        """Every key that decides something, with values that have no variables."""
        text = self.rng.choice(DRIVERS) + ":" + self.pick(["~/mail", "~", self.work + "/m/", "rel"], ["", ":", "/", "//"], 0.1)
        keys = []
        for key, chance, values in (
            ("LAYOUT", 0.6, LAYOUTS[:6]),
            ("INDEX", 0.6, ["MEMORY", "", "~/ix", "ix", "~/mail", "/", "~/ix//", "MEMORY/", ".", "~/../x"]),
            ("LISTINDEX", 0.8, ["", "/", "x", "x/", "l/x", "l//x", "/x", "//x", "~/l/x", "~", "~/", "~/l/x//", "~/l/",
                                self.work + "/l/x", self.work + "/h/mail/x", self.work + "/h/../y/x", "./x", "../x"]),
            ("DIRNAME", 0.1, ["", "/", "d", "d/"]), ("FULLDIRNAME", 0.1, ["", "d"]), ("ALT", 0.1, ["", "~/alt"]),
            ("INBOX", 0.1, ["", "/", "~/inbox", "inbox"]), ("SUBSCRIPTIONS", 0.05, ["", "/", "s"]),
            ("MAILBOXDIR", 0.1, ["", "/", "m", "m/n/"]), ("CONTROL", 0.1, ["", "~/c"]), ("ITERINDEX", 0.1, [""]),
            ("INDEXPVT", 0.05, ["", "~/p"]), ("INDEXCACHE", 0.05, ["", "~/p"]), ("VOLATILEDIR", 0.05, ["", "~/v"]),
            ("NO-NOSELECT", 0.05, [""]), ("UTF-8", 0.05, [""]), ("BROKENCHAR", 0.05, ["~", "^", "/"]),
        ):
            if self.odd(chance):
                keys.append(key if key in ("UTF-8", "ITERINDEX") else key + "=" + self.rng.choice(values))
        self.rng.shuffle(keys)
        return ":".join([text, *keys])

    def case(self):
        if self.odd(0.3):
            return "alice", self.work + "/h", self.plain_location()
        user = self.pick(USERS, ["col:on", "col::on", ":", "::", "INBOX=x"], 0.05)
        home = self.pick(HOMES[:7], HOMES[7:], 0.05)
        home = home and home.format(work=self.work, user=user.replace("/", "_"))
        return user, home, self.location()


class Asker:
    """Asks both sides."""

    def __init__(self, options):
        self.options = options
        self.errors = []

    def doveadm(self, number, user, home, location):
        stem = f"{self.options.work}/case.{number}"
        # Dovecot may have taken it for a mailbox's directory, and thrown it away.
        directory = f"{self.options.work}/a/b/c/cwd"
        os.makedirs(directory, exist_ok=True)
        os.chmod(directory, 0o777)
        record, config = stem + ".record", stem + ".conf"
        quoted = location.replace("\\", "\\\\").replace('"', '\\"')
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"base_dir = {self.options.work}/run\nstate_dir = {self.options.work}/run\n"
                       f"log_path = /dev/stderr\nmail_uid = {UID}\nmail_gid = {GID}\n"
                       "first_valid_uid = 1\nfirst_valid_gid = 1\nssl = no\nmailbox_list_index = yes\n"
                       f'mail_location = "{quoted}"\n')
        with open(record, "wb"):
            pass
        os.chmod(record, 0o666)
        environment = {
            "PATH": os.environ["PATH"], "USER": user, "TZ": "UTC", "RECORD": record, "DOVECOT_HOSTNAME": HOST,
            "DOVECOT_HOSTDOMAIN": HOST, "LD_PRELOAD": f"{self.options.work}/recorder.so",
            "DOVECOT_PRESERVE_ENVS": "LD_PRELOAD RECORD DOVECOT_HOSTNAME DOVECOT_HOSTDOMAIN TZ",
        }
        if home is not None:
            environment["HOME"] = home
        try:
            log = subprocess.run(["doveadm", "-c", config, "mailbox", "status", "messages", "INBOX"], check=False,
                                  env=environment, cwd=directory, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=20).stderr
        except subprocess.TimeoutExpired:
            # It inserts zeros one by one, up to 2^31 of them; or it waits for a lock.
            log = b"no end in sight"
        finally:
            with open(record, "rb") as file:
                records = [entry.partition(b"=") for entry in file.read().split(b"\0")[:-1]]
            os.unlink(record)
            os.unlink(config)
        return self.understand(records, log)

    @staticmethod
    def understand(records, log):
        """What Dovecot resolved, or its error."""
        names = [name for name, _, _ in records]
        # What fails, or crashes, once a mailbox is looked at has nothing to do with the paths.
        if b"index_dir" not in names:
            lines = log.decode(errors="replace").splitlines() or ["nothing at all"]
            return next((line for line in lines if "Panic: " in line), lines[-1])
        values = [(name, value if equals else None) for name, equals, value in records[:names.index(b"index_dir")]]
        # mdbox has its map, which comes first.
        if values and values[1][1] == b"dovecot.map.index" and values[0][1].endswith(b"/storage"):
            values = values[2:]
        return {
            "index_dir": next(value if equals else None for name, equals, value in records if name == b"index_dir"),
            "list_index_dir": values[0][1] if values else None,
            "list_index_prefix": values[1][1] if values else None,
        }

    def ours(self, user, home, location):
        command = [self.options.program, "locate", "--json", "--user", user, "--location", location]
        if home is not None:
            command += ["--home", home]
        done = subprocess.run(command, check=False, capture_output=True, user=UID, group=GID, extra_groups=[],
                              env={"DOVECOT_HOSTNAME": HOST, "DOVECOT_HOSTDOMAIN": HOST, "TZ": "UTC"},
                              stdin=subprocess.DEVNULL, timeout=60)
        try:
            answer = json.loads(done.stdout)
        except json.JSONDecodeError:
            return f"CRASH: exit {done.returncode}: {done.stdout!r} {done.stderr!r}"
        if "error" in answer:
            return answer["error"]

        def value(field):
            if field + "_hex" in answer:
                return bytes.fromhex(answer[field + "_hex"])
            return None if answer[field] is None else answer[field].encode()

        return {field: value(field) for field in ("index_dir", "list_index_dir", "list_index_prefix")}

    def compare(self, number, case):
        theirs, ours = self.doveadm(number, *case), self.ours(*case)
        if isinstance(ours, str) and "names no driver" in ours:
            # Guessing from the files that exist is refused on purpose.
            return "both refuse", None
        if isinstance(ours, str) and isinstance(theirs, str) and not ours.startswith("CRASH"):
            self.errors.append(theirs.partition(": ")[2][:80])
            return "both refuse", None
        if ours == theirs:
            return "both resolve", None
        if case[2].count("{") != case[2].count("}"):
            # Dovecot reads on behind the end of such a template, and finds what happens to be there.
            return "beyond the end", None
        return "DISAGREE", (case, theirs, ours)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--cases", type=int, required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--errors", type=int, default=0, help="print so many of Dovecot's errors")
    options = parser.parse_args()

    # Deep enough that names next to a directory, or "..", stay in the work directory.
    base = f"{options.work}/a/b/c"
    for name in (f"{options.work}/run", f"{base}/cwd", f"{base}/home"):
        os.makedirs(name)
    for directory, _, _ in os.walk(f"{options.work}/a"):
        os.chmod(directory, 0o777)

    maker = Maker(random.Random(options.seed), base)
    asker = Asker(options)
    outcomes = {"both resolve": 0, "both refuse": 0, "beyond the end": 0, "DISAGREE": 0}
    cases = (maker.case() for _ in range(options.cases))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for outcome, detail in pool.map(asker.compare, range(options.cases), cases):
            outcomes[outcome] += 1
            if detail:
                (user, home, location), theirs, ours = detail
                print(f"DISAGREE user={user!r} home={home!r}\n  location  {location}\n  Dovecot   {theirs}\n"
                      f"  ours      {ours}", flush=True)
            total = sum(outcomes.values())
            if total % 500 == 0:
                print(f"   {total}: {outcomes}", flush=True)
    print(f"   {outcomes}")
    for error, count in collections.Counter(asker.errors).most_common(options.errors):
        print(f"   {count} {error}")
    return 1 if outcomes["DISAGREE"] or not outcomes["both resolve"] else 0


sys.exit(main())
