"""The twelve things that one user does on a backend, and the folders that another backend shows then."""

def imap_create_and_append(backend, user):
    backend.imap(user, "create:made", "append:made", "append:work")


def lmtp_inbox(backend, user):
    backend.lmtp(user)


def lda_inbox(backend, user):
    backend.lda(user)


def lmtp_folder(backend, user):
    backend.lmtp(f"{user}+work")


def lda_folder(backend, user):
    backend.lda(user, "-m", "work")


def lmtp_three_recipients(backend, user):
    backend.lmtp(f"{user}+work", f"{user}+made", user)


def doveadm_create(backend, user):
    backend.doveadm("mailbox", "create", "-u", user, "made")


def doveadm_create_file(backend, user):
    users = backend.dir / f"users-{user}"
    users.write_text(f"{user}\n")
    backend.doveadm("mailbox", "create", "-F", users, "made")


def doveadm_save(backend, user):
    backend.doveadm("save", "-u", user, "-m", "work", input="Subject: saved\n\nHello.\n")


def doveadm_flags(backend, user):
    backend.doveadm("flags", "add", "-u", user, "\\Seen", "mailbox", "INBOX", "1")


def pop3_dele(backend, user):
    backend.pop3_dele(user)


def doveadm_index(backend, user):
    backend.doveadm("index", "-u", user, "INBOX")


OPERATIONS = (
    imap_create_and_append,
    lmtp_inbox,
    lda_inbox,
    lmtp_folder,
    lda_folder,
    lmtp_three_recipients,
    doveadm_create,
    doveadm_create_file,
    doveadm_save,
    doveadm_flags,
    pop3_dele,
    doveadm_index,
)


def prepare(site, user):
    """The user has folders and mails, and backend a has all of them in its list index."""
    site.b.imap(user, "create:work", "append:work", "append:INBOX", "append:INBOX")
    site.a.look(user)
    site.a.look(user)


INDEX_OF = {"Maildir++": "Maildir", "LAYOUT=fs": "Maildir", "mbox": "mail/.imap"}


def claim_of(site, user):
    """The claim's file."""
    driver = site.options["driver"]
    name = "dovecot.lasthost" if driver == "Maildir++" else ".lasthost"
    return site.home(user) / INDEX_OF.get(driver, driver) / name


def stale(site, operations=OPERATIONS):
    """The names of those operations on b that a does not see afterwards."""
    wrong = []
    for operation in operations:
        user = site.new_user()
        prepare(site, user)
        operation(site.b, user)
        seen, truth = site.a.look(user), site.truth(user)
        if seen != truth:
            wrong.append(operation.__name__)
    return wrong
