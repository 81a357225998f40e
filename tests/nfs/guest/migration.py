"""List indexes of a Dovecot without local list indexes move to the backend where the user logs in."""

import os
import shutil

from backend import checksums
from dovecot import VMAIL
from moves import differing
from lab import PLAIN, case, check, told, total

BOTH = ("migrate", "migrate-vmail", "migrate-plugin")
ROUNDS = 12
LOOKS = 2  # rounds after which the user also logs in through Dovecot


def without_program(lab, folders):
    """A user with that many folders, whom a Dovecot with its list index on NFS has served so far."""
    user = lab.user()
    names = [f"folder{number}" for number in range(folders)]
    lab.c.session("without", user, ("create", *names), ("append", "folder0"), ("look",))
    # Dovecot writes its index file anew when the log has grown; let it, so that later changes are no part of that.
    lab.c.session("without", user, ("look",))
    return user, dict.fromkeys(names, 0) | {"folder0": 1, "INBOX": 0}


def copied(lab, user):
    """The same mail under another user's name. Copied by the server, so no client has it in its caches."""
    twin = lab.user()
    os.rmdir(lab.path(twin))
    shutil.copytree(lab.path(user), lab.path(twin))
    for directory, _, files in os.walk(lab.path(twin)):
        for name in (directory, *(os.path.join(directory, file) for file in files)):
            os.chown(name, VMAIL, VMAIL)
    return twin


def take_over(lab, kind, folders):
    """Lets A take such a user over. What sessions that list and STATUS everything cost: without and with migration."""
    user, truth = without_program(lab, folders)
    originals = checksums(lab.path(user, "mdbox"))
    check("dovecot.list.index.log" in originals, "Dovecot made no list index to migrate")
    plain = copied(lab, user)

    def session(kind, user):
        rpcs, (seen,) = lab.cost(lab.a, lambda: lab.a.session(kind, user, ("look",)))
        check(seen == truth, f"wrong lists: {differing(seen, truth)}")
        return rpcs

    # A new, empty list index, as every user gets without migration.
    rebuilt = session({"migrate": "root", "migrate-mixed": "2.4", "migrate-plugin": "plugin"}.get(kind, "vmail"), plain)
    migrated = session(kind, user)
    after = lab.a.list_index_files(kind, user)
    check(after == originals, f"the files are not the originals: {after}, {originals}")
    check(lab.trusts(lab.a, kind, user), "the migrated list index is not vouched for")
    check(not checksums(lab.path(user, "mdbox")), "originals are still on NFS")
    later = session(kind, user)
    check(lab.a.list_index_files(kind, user) == originals, "the session after that wrote the files anew")
    return rebuilt, migrated, later


@case("a list index on NFS is taken over as it is, and nothing is rebuilt", users=BOTH)
def taken_over(lab, kind):
    rebuilt, migrated, later = take_over(lab, kind, 8)
    check(total(migrated) < total(rebuilt), f"migrated {told(migrated)}, rebuilt {told(rebuilt)}")
    return f"8 folders: {total(rebuilt)} RPCs rebuilt, {total(migrated)} migrated, {total(later)} afterwards"


@case("Dovecot 2.4 uses a list index of 2.3's on NFS that it takes over, and nothing is rebuilt", users=("migrate-mixed",))
def taken_over_by_another_release(lab, kind):
    return taken_over(lab, kind)


@case("with 200 folders the session after a migration costs a fraction of a rebuilding one", versions=("4.2",), options=(PLAIN,), users=("migrate",))
def two_hundred_folders(lab, kind):
    rebuilt, migrated, later = take_over(lab, kind, 200)
    check(total(migrated) * 4 < total(rebuilt), f"migrated {told(migrated)}, rebuilt {told(rebuilt)}")
    return f"{total(rebuilt)} RPCs rebuilt, {total(migrated)} migrated, {total(later)} afterwards"


@case("a backend without the program that comes back later is noticed at once", users=BOTH)
def marker(lab, kind):
    user, truth = without_program(lab, 3)
    for _ in range(2):
        # The second time the absence of the marker is in A's cache.
        lab.a.session(kind, user, ("look",))
    check(lab.trusts(lab.a, kind, user), "the user does not settle on A")
    lab.c.session("without", user, ("create", "later"), ("delete", "folder1"), ("append", "folder2"))
    truth |= {"later": 0, "folder2": 1}
    del truth["folder1"]
    left = checksums(lab.path(user, "mdbox"))
    for _ in range(2):
        seen = lab.a.session(kind, user, ("look",))[0]
        check(seen == truth, f"A shows {seen}, not {truth}")
    check(left and checksums(lab.path(user, "mdbox")) == left, "the other backend's list index was not left alone")
    return ""


@case(f"two backends that migrate a user at the same moment never both trust, and show the truth ({ROUNDS} rounds)", users=("migrate",))
def at_the_same_moment(lab, kind):
    model, truth = without_program(lab, 3)
    originals = checksums(lab.path(model, "mdbox"))
    winners = {"neither": 0, lab.a.name: 0, lab.b.name: 0}
    for number in range(ROUNDS):
        user = copied(lab, model)
        where = (lab.a, lab.b) if number % 2 else (lab.b, lab.a)
        outcomes = lab.at_once(kind, user, *where, skew=number * 0.002)
        trusting = [each for each in (lab.a, lab.b) if lab.trusts(each, kind, user)]
        check(len(trusting) <= 1, f"round {number}: both trust")
        winners[trusting[0].name if trusting else "neither"] += 1
        left = checksums(lab.path(user, "mdbox"))
        check(left in ({}, originals), f"round {number}: a part of the list index is left on NFS: {left}, {outcomes}")
        for each in trusting:
            files = each.list_index_files(kind, user)
            check(files in ({}, originals), f"round {number}: {each.name} trusts a part of the list index: {files}")
        if number < LOOKS:
            for each in (lab.a, lab.b, lab.a):
                seen = each.session(kind, user, ("look",))[0]
                check(seen == truth, f"round {number}: {each.name} shows {seen}, not {truth}")
    return ", ".join(f"{name} {count}" for name, count in winners.items())
