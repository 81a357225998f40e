"""A case: a configuration that works, and what is done to it."""

HEAD23 = """
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
log_path = /var/log/dovecot.log
mailbox_list_index_very_dirty_syncs = yes
!include ports
"""
HEAD24 = """dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
protocols = imap
listen = 127.0.0.1
ssl = no
auth_allow_cleartext = yes
log_path = /var/log/dovecot.log
mailbox_list_index_very_dirty_syncs = yes
!include ports
"""
INBOX = """
namespace inbox {
  inbox = yes
  separator = /
}
"""
SERVICES = """service imap {
  executable = imap imap-postlogin
}
service imap-postlogin {
  executable = script-login nfs-hostchange-login
  process_limit = 1024
  user = vmail
  unix_listener imap-postlogin {
  }
}
"""

V23 = HEAD23 + """first_valid_uid = 8
mail_location = mdbox:~/mdbox:LISTINDEX=/dev/shm/dovecot-listindex/%2.256Nu/%u/dovecot.list.index
passdb {
  driver = static
  args = password=x
}
userdb {
  driver = static
  args = uid=vmail gid=vmail home=@STORE@/%u
  default_fields = mail_location=mdbox:~/mdbox:LISTINDEX=/dev/shm/dovecot-listindex/%2.256Nu/%u/dovecot.list.index
}
""" + INBOX + SERVICES

V24 = HEAD24 + """first_valid_uid = 8
mail_driver = mdbox
mail_path = ~/mdbox
mailbox_list_index_prefix = /dev/shm/dovecot-listindex/%{user | md5 | substr(0, 8) % 256 | hex(2)}/%{user}/dovecot.list.index
passdb static {
  password = x
}
userdb static {
  fields {
    uid = vmail
    gid = vmail
    home = @STORE@/%{user}
  }
}
userdb_fields {
  mail_driver = $SET:mail_driver
  mail_path = $SET:mail_path
  mailbox_list_index_prefix = $SET:mailbox_list_index_prefix
}
""" + INBOX + SERVICES

PORTS = """
service imap-login {
  inet_listener imap {
    port = %d
  }
}
"""
TMPFILES = "d /dev/shm/dovecot-listindex 0700 vmail - -\n"
# For users with uids of their own.
EVERYBODY = TMPFILES.replace("0700 vmail -", "0711 root root") + "".join(
    f"d /dev/shm/dovecot-listindex/{number:02x} 1733 root root -\n" for number in range(256)
)
HASH23 = "/dev/shm/dovecot-listindex/%2.256Nu/%u/dovecot.list.index"
HASH24 = "/dev/shm/dovecot-listindex/%{user | md5 | substr(0, 8) % 256 | hex(2)}/%{user}/dovecot.list.index"
WRAPPER = "script-login nfs-hostchange-login"
SERVICE = "service imap-postlogin {\n  %s\n}\n"


FIELDS24 = V24[V24.index("userdb_fields {") : V24.index(INBOX)]
STATIC23 = V23[V23.index("userdb {") : V23.index(INBOX)]
STATIC24 = V24[V24.index("userdb static {") : V24.index("userdb_fields {")]
FILE23 = "userdb {\n  driver = passwd-file\n  args = /etc/dovecot/users\n}\n"
FILE24 = "userdb passwd-file {\n  passwd_file_path = /etc/dovecot/users\n}\n"
LOCATION23 = "userdb_mail_location=mdbox:~/mdbox:LISTINDEX=" + HASH23


def users(*rows, uid=5000, add=False):
    """Writes a passwd-file: user, fields, user, fields..."""
    rows = list(rows) + [""] * (len(rows) % 2)
    lines = "".join(f"{user}::{uid}:{uid}::@STORE@/{user}::{fields}\\n" for user, fields in zip(rows[::2], rows[1::2]))
    return f"printf '{lines.replace('%', '%%')}' >{'>' if add else ''}/etc/dovecot/users"


# The same with the plugin in the wrapper's place.
FIELD23 = "  default_fields = mail_location=mdbox:~/mdbox:LISTINDEX=" + HASH23 + "\n"
PLUGIN23 = V23.replace(SERVICES, "").replace(FIELD23, "") + "mail_plugins = nfs_hostchange\n"
PLUGIN24 = V24.replace(SERVICES, "").replace(FIELDS24, "") + "mail_plugins {\n  nfs_hostchange = yes\n}\n"
PLUGIN = "/usr/lib/dovecot/modules/lib90_nfs_hostchange_plugin.so"
BUILT = {"2.3": "modules-2.3/lib90_nfs_hostchange_plugin.so", "2.4": "modules-2.4/lib90_nfs_hostchange_plugin.so"}


def of(version, what):
    """What may be different for each version."""
    return what[version] if isinstance(what, dict) and version in what else what


class Case:
    """What is wrong, by id; for which versions; what is done to the configuration, to the wrapper's, and to the system.

    text is Dovecot's whole configuration, if it is not one that works; files are other files; these, edit and add may be
    dictionaries of what each version has; by_hand is what an
    administrator does about findings that name no line or command; local says whether list indexes are in /dev/shm in the end.
    fails says that logins fail, and lost that they work, but do not find any mail.
    """

    def __init__(self, name, finds, only=None, text=None, files=None, edit=(), add="", own="", run=(), users=("alice", "bob@example.org"), ask=None,
                 after=(), fails=False, lost=False, starts=True, tmpfiles=TMPFILES, only_found=False, by_hand=None, start="dovecot", local=True):
        self.name, self.finds, self.only, self.own, self.run = name, finds, only, own, run
        self.text, self.others, self.start, self.local = text, files or {}, start, local
        self.edit, self.add, self.users, self.fails, self.lost, self.starts = edit, add, users, fails, lost, starts
        self.tmpfiles, self.after, self.only_found, self.by_hand = tmpfiles, after, only_found, by_hand or {}
        self.ask = users if ask is None else ask

    def files(self, version, store, port):
        """All configuration files, by path."""
        text = of(version, self.text) or (V23 if version == "2.3" else V24)
        for old, new in of(version, self.edit):
            assert old in text, f"{self.name}: {old}"
            text = text.replace(old, new)
        files = {
            "/etc/dovecot/dovecot.conf": text + of(version, self.add),
            "/etc/dovecot/ports": PORTS % port,
            "/etc/dovecot/nfs-hostchange.toml": self.own or "migration = false\n",
            **of(version, self.others),
        }
        if self.tmpfiles:
            files["/etc/tmpfiles.d/list-indexes.conf"] = self.tmpfiles
        return {path: text.replace("@STORE@", store) for path, text in files.items()}

    def commands(self, store):
        return [command.replace("@STORE@", store) for command in self.run]


def both(name, finds, **more):
    return [Case(name, finds, **more)]


def v23(name, finds, **more):
    return [Case(name, finds, only="2.3", **more)]


def v24(name, finds, **more):
    return [Case(name, finds, only="2.4", **more)]


def plugin(name, finds, only=("2.3", "2.4"), run=(), **more):
    """Cases with the plugin, built for that Dovecot."""
    texts = {"2.3": PLUGIN23, "2.4": PLUGIN24}
    return [
        Case(name, finds, only=version, text=texts[version], run=[f"install -m 0644 {BUILT[version]} {PLUGIN}", *run], **more)
        for version in only
    ]


def executable(line):
    return [(WRAPPER, line)]
