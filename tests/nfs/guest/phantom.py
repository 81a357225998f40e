"""The claim must not look like a folder."""

import os

from lab import ALL, case, check


@case("Maildir++ without INDEX on a nordirplus mount lists no new folder", options=("actimeo=60,nordirplus",), users=("maildir",))
def no_phantom_folder(lab, kind):
    user = lab.user()
    truth = {"INBOX": 1, "folder": 0}
    sizes = [each.log_size() for each in lab.backends]
    lab.a.session(kind, user, ("create", "folder"), ("append", "INBOX"))
    for where in (lab.a, lab.b, lab.a, lab.a):
        seen = where.session(kind, user, ("look",))[0]
        check(seen == truth, f"{where.name} shows {seen}, not {truth}")
    check(lab.trusts(lab.a, kind, user, "Maildir/dovecot.lasthost"), "A has not claimed the user")
    for where, size in zip(lab.backends, sizes):
        check("lasthost/" not in where.logs(size), f"{where.name} takes it for a folder: {where.logs(size)}")
    return ""
