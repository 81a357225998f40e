"""The administrator's command where there is NFS."""

import os

from dovecot import KINDS, MAIL, VMAIL
from lab import PLAIN, case, check

COMMAND = "/opt/lab/nfs-hostchange"


def run(where, arguments, uid=0):
    """Exit status and all that was said."""
    command = f"setpriv --reuid {uid} --clear-groups {COMMAND} {arguments}"
    output = where.sh(f"status=0; {command} 2>&1 </dev/null || status=$?; echo $status")
    *lines, status = output.splitlines()
    return int(status), "\n".join(lines)


@case("usercache and status refuse a directory on NFS and touch no claim", options=(PLAIN,))
def claims_are_safe(lab, kind):
    user = lab.user()
    lab.a.session(kind, user, ("create", "folder"))
    lab.a.session(kind, user, ("look",))
    claim = lab.claim(user)
    check(claim, "the user is not claimed")
    for uid in (0, VMAIL):
        for arguments in (
            f"usercache clean 0 {MAIL}/{user}/mdbox",
            f"usercache sweep 0 {MAIL}",
            f"usercache sweep 0 {MAIL} --dry-run",
            f"status --below {MAIL}",
        ):
            status, said = run(lab.a, arguments, uid)
            check(status == 77 and len(said.splitlines()) == 1, f"uid {uid}: {arguments}: {status} {said}")
            # The server lets root look at nothing but the root directory.
            reason = "Permission denied" if uid == 0 and user in arguments else "network file system"
            check(MAIL in said and reason in said, f"uid {uid}: {arguments}: {said}")
    check(lab.claim(user) == claim, "the claim was touched")
    check(lab.trusts(lab.a, kind, user), "A does not trust its list index any more")
    return ""


@case("status of a user tells which backend holds him, and which one is in step", options=(PLAIN,))
def status_of_a_user(lab, kind):
    user = lab.user()
    for number, where in enumerate((lab.a, lab.a, lab.b, lab.b)):
        where.session(kind, user, ("create", f"folder{number}"), ("look",))
    arguments = f"status -u {user} --dovecot-config /run/{kind}/dovecot.conf --config {KINDS[kind].config_file}"
    for where, answer in ((lab.a, "no: the claim in INDEX was made after"), (lab.b, "yes: ")):
        status, said = run(where, arguments)
        check(status == 0, f"{status} {said}")
        check(f"claimed by  {lab.b.name}, " in said and f"in step     {answer}" in said, said)
    return ""


@case("check finds list indexes on NFS, and nothing to say about INDEX there", options=(PLAIN,), users=("vmail",))
def check_knows_nfs(lab, kind):
    def found(file):
        return run(lab.a, f"check --dovecot-config {file}")[1]

    lab.a.session(kind, lab.user(), ("look",))
    said = found(f"/run/{kind}/dovecot.conf")
    check("INDEX below" not in said and "network file system" not in said, said)
    os.makedirs(f"/export/{lab.mounted[2]}/list/{kind}", exist_ok=True)
    lab.a.sh(f"sed 's,LISTINDEX=/dev/shm,LISTINDEX={MAIL}/list,' /run/{kind}/dovecot.conf >/tmp/shared.conf")
    said = found("/tmp/shared.conf")
    check(f"{MAIL}/list" in said and "shared, not local" in said, said)
    return ""
