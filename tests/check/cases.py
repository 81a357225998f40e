"""cases.py ROOT WORK [--list] [--only REGEX]: see check.sh.

A case breaks a configuration that works. check must find it by name, each remedy is done as it is printed until nothing is
found any more, and then a user moves from a to b and back, and sees everything.
"""

import argparse
import imaplib
import json
import os
import re
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MAIL = b"Subject: hello\r\n\r\nHello.\r\n"
# Found on one machine whatever is done: its store is on a local disk.
IGNORED = {"index_not_shared"}

V23 = """
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
log_path = /var/log/dovecot.log
first_valid_uid = 8
mailbox_list_index_very_dirty_syncs = yes
mail_location = mdbox:~/mdbox:LISTINDEX=/dev/shm/dovecot-listindex/%2.256Nu/%u/dovecot.list.index
!include ports
passdb {
  driver = static
  args = password=x
}
userdb {
  driver = static
  args = uid=vmail gid=vmail home=@STORE@/%u
  default_fields = mail_location=mdbox:~/mdbox:LISTINDEX=/dev/shm/dovecot-listindex/%2.256Nu/%u/dovecot.list.index
}
namespace inbox {
  inbox = yes
  separator = /
}
service imap {
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

V24 = """dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
protocols = imap
listen = 127.0.0.1
ssl = no
auth_allow_cleartext = yes
log_path = /var/log/dovecot.log
first_valid_uid = 8
mailbox_list_index_very_dirty_syncs = yes
mail_driver = mdbox
mail_path = ~/mdbox
mailbox_list_index_prefix = /dev/shm/dovecot-listindex/%{user | md5 | substr(0, 8) % 256 | hex(2)}/%{user}/dovecot.list.index
!include ports
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
namespace inbox {
  inbox = yes
  separator = /
}
service imap {
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

PORTS = """
service imap-login {
  inet_listener imap {
    port = %d
  }
}
"""
TMPFILES = "d /dev/shm/dovecot-listindex 0700 vmail - -\n"
HASH23 = "/dev/shm/dovecot-listindex/%2.256Nu/%u/dovecot.list.index"
HASH24 = "/dev/shm/dovecot-listindex/%{user | md5 | substr(0, 8) % 256 | hex(2)}/%{user}/dovecot.list.index"
WRAPPER = "script-login nfs-hostchange-login"
SERVICE = "service imap-postlogin {\n  %s\n}\n"


FIELDS24 = V24[V24.index("userdb_fields {") : V24.index("namespace inbox")]
STATIC23 = V23[V23.index("userdb {") : V23.index("namespace inbox")]
FILE23 = "userdb {\n  driver = passwd-file\n  args = /etc/dovecot/users\n}\n"
FILE24 = "userdb passwd-file {\n  passwd_file_path = /etc/dovecot/users\n}\n"
LOCATION23 = "userdb_mail_location=mdbox:~/mdbox:LISTINDEX=" + HASH23


def users(*rows, uid=5000, add=False):
    """Writes a passwd-file: user, fields, user, fields..."""
    rows = list(rows) + [""] * (len(rows) % 2)
    lines = "".join(f"{user}::{uid}:{uid}::@STORE@/{user}::{fields}\\n" for user, fields in zip(rows[::2], rows[1::2]))
    return f"printf '{lines.replace('%', '%%')}' >{'>' if add else ''}/etc/dovecot/users"


class Case:
    """What is wrong, by id; for which versions; what is done to the configuration, to the wrapper's, and to the system."""

    def __init__(self, name, finds, only=None, edit=(), add="", own="", run=(), users=("alice", "bob@example.org"), ask=None, after=(), fails=False, starts=True, tmpfiles=TMPFILES, only_found=False):
        self.name, self.finds, self.only, self.own, self.run = name, finds, only, own, run
        self.edit, self.add, self.users, self.fails, self.starts = edit, add, users, fails, starts
        self.tmpfiles, self.after, self.only_found = tmpfiles, after, only_found
        self.ask = users if ask is None else ask

    def dovecot(self, version, store):
        text = V23 if version == "2.3" else V24
        for old, new in self.edit:
            assert old in text, f"{self.name}: {old}"
            text = text.replace(old, new)
        add = self.add[version] if isinstance(self.add, dict) else self.add
        return (text + add).replace("@STORE@", store)

    def commands(self, store):
        return [command.replace("@STORE@", store) for command in self.run]


def both(name, finds, **more):
    return [Case(name, finds, **more)]


def v23(name, finds, **more):
    return [Case(name, finds, only="2.3", **more)]


def v24(name, finds, **more):
    return [Case(name, finds, only="2.4", **more)]


def executable(line):
    return [(WRAPPER, line)]


CASES = [
    *both("a configuration that works has no findings", None),
    # Services.
    *both("no post-login service", "no_post_login", edit=[("executable = imap imap-postlogin", "executable = imap")]),
    *both("no script-login", "no_script_login", edit=executable("nfs-hostchange-login"), fails=True),
    *both("no wrapper", "no_wrapper", edit=executable("script-login /usr/local/lib/chain/other.sh"),
          run=["printf '#!/bin/sh\\nexec \"$@\"\\n' >/usr/local/lib/chain/other.sh; chmod 755 /usr/local/lib/chain/other.sh"]),
    *both("the service's user does not exist", "no_such_user", edit=[("user = vmail", "user = nosuch")], starts=False),
    *both("the service's user is Dovecot's own", "service_user",
          edit=[("user = vmail", "user = dovecot")]),
    *v23("the service's user is Dovecot's example's", "service_user", edit=[("user = vmail", "user = $default_internal_user")]),
    *v24("the service's user is Dovecot's example's", "service_user", edit=[("user = vmail", "user = $SET:default_internal_user")]),
    *both("the service's user is somebody else", "service_user", edit=[("user = vmail", "user = mail")]),
    *both("the service's user is a number", "no_such_user", edit=[("user = vmail", "user = 5000")], starts=False),
    *both("the second program of the chain has no path", "no_path",
          edit=executable("script-login /usr/local/lib/chain/other.sh nfs-hostchange-login"), fails=True,
          run=["printf '#!/bin/sh\\nexec \"$@\"\\n' >/usr/local/lib/chain/other.sh; chmod 755 /usr/local/lib/chain/other.sh"]),
    *both("the first script of the chain is missing", "not_executable",
          edit=executable("script-login /usr/local/lib/chain/missing.sh /usr/lib/dovecot/nfs-hostchange-login"), fails=True),
    *both("the wrapper is missing", "not_executable", run=["rm /usr/lib/dovecot/nfs-hostchange-login"], fails=True),
    *both("only root may execute the wrapper", "not_executable", run=["chmod 0700 /usr/lib/dovecot/nfs-hostchange-login"], fails=True),
    *both("the wrapper is no program", "not_executable", run=["echo nothing >/usr/lib/dovecot/nfs-hostchange-login"], fails=True),
    *both("a mistyped option", "unknown_option", edit=executable(WRAPPER + " --confg=/etc/dovecot/nfs-hostchange.toml"), fails=True),
    *both("the option's value in a word of its own", "unknown_option",
          edit=executable(WRAPPER + " --config /etc/dovecot/nfs-hostchange.toml"), fails=True),
    *both("a configuration file that is not there", "no_configuration", edit=executable(WRAPPER + " --config=/etc/dovecot/nosuch.toml")),
    *both("another script after the wrapper", "not_last",
          edit=executable("script-login nfs-hostchange-login /usr/local/lib/chain/other.sh"),
          run=["printf '#!/bin/sh\\nexec \"$@\"\\n' >/usr/local/lib/chain/other.sh; chmod 755 /usr/local/lib/chain/other.sh"]),
    *both("the post-login service has a chroot", "service_chroot", add=SERVICE % "chroot = /var/empty",
          run=["mkdir -p /var/empty"], fails=True),
    *both("the post-login service has too few processes", "process_limit", edit=[("process_limit = 1024", "process_limit = 100")]),
    *v23("mail processes that serve several logins", "service_count", add="service imap {\n  service_count = 10\n}\n", fails=True),
    *v24("mail processes that serve several logins", "service_count", add="service imap {\n  restart_request_count = 10\n}\n", fails=True),
    *both("the mail user's uid is not valid", "uid_not_valid", edit=[("first_valid_uid = 8", "first_valid_uid = 6000")], fails=True),
    *both("groups that only dovecot.conf knows", "access_groups", add="mail_access_groups = archive\n"),
    *both("hibernation", "hibernation", add="imap_hibernate_timeout = 30s\n"),
    # The wrapper's file.
    *both("the wrapper's user may not read its file", "configuration", run=["chmod 600 /etc/dovecot/nfs-hostchange.toml"]),
    *both("the wrapper's file belongs to somebody", "configuration", run=["chown mail /etc/dovecot/nfs-hostchange.toml"]),
    *both("migration is on", "migration", own="migration = true\n"),
    *both("a name that others have too", "host_name", own='hostname = "localhost"\n'),
    # What the userdb says.
    *v23("the userdb says nothing of the location", "no_location",
         edit=[("  default_fields = mail_location=mdbox:~/mdbox:LISTINDEX=" + HASH23 + "\n", "")]),
    *v24("the userdb says nothing of the location", "no_location",
         edit=[(FIELDS24, "")]),
    *v24("one field is forgotten", "no_location", edit=[("  mail_driver = $SET:mail_driver\n", "")]),
    *v24("a field that matters only if it is set is forgotten", "no_location", add="mail_index_path = ~/index\n"),
    *v23("the home directory in a field", "userdb_variable",
         edit=[("default_fields = mail_location=mdbox:~", "default_fields = mail_location=mdbox:%h")]),
    *v23("the home directory in lower case in a field", "userdb_variable",
         edit=[("default_fields = mail_location=mdbox:~", "default_fields = mail_location=mdbox:%Lh")]),
    *v23("the home directory by its long name in a field", "userdb_variable",
         edit=[("default_fields = mail_location=mdbox:~", "default_fields = mail_location=mdbox:%{home}")]),
    *v24("the home directory in a field", "userdb_variable", edit=[("mail_path = ~/mdbox", "mail_path = %{home}/mdbox")]),
    *v23("the uid in a field", "userdb_variable",
         edit=[("default_fields = mail_location=mdbox:~/mdbox", "default_fields = mail_location=mdbox:~/%i")]),
    *v23("a home that only dovecot.conf knows", "no_home", edit=[(" home=@STORE@/%u", "")], add="mail_home = @STORE@/%u\n"),
    *v24("a home that only dovecot.conf knows", "no_home", edit=[("    home = @STORE@/%{user}\n", "")],
         add="mail_home = @STORE@/%{user}\n"),
    *v23("uid and gid that only dovecot.conf knows", "no_uid", edit=[("uid=vmail gid=vmail ", ""), ("  user = vmail\n", "")],
         add="mail_uid = vmail\nmail_gid = vmail\n"),
    *v24("uid and gid that only dovecot.conf knows", "no_uid",
         edit=[("    uid = vmail\n    gid = vmail\n", ""), ("  user = vmail\n", "")], add="mail_uid = vmail\nmail_gid = vmail\n"),
    *v23("the inbox namespace has a location of its own", "other_location",
         edit=[("  inbox = yes\n", "  inbox = yes\n  location = mdbox:~/other:LISTINDEX=" + HASH23 + "\n")]),
    *v24("the inbox namespace has a path of its own", "block_setting", edit=[("  inbox = yes\n", "  inbox = yes\n  mail_path = ~/other\n")]),
    *v24("a protocol has a path of its own", "block_setting", add="protocol imap {\n  mail_path = ~/other\n}\n"),
    *v24("some clients have a list index of their own", "block_setting",
         add="remote 127.0.0.0/8 {\n  mailbox_list_index_prefix = /dev/shm/dovecot-listindex/other/%{user}/dovecot.list.index\n}\n"),
    *both("the inbox namespace has another name", "inbox_namespace", edit=[("namespace inbox", "namespace private")]),
    *v24("an empty path", "empty_path", edit=[("mail_path = ~/mdbox\n", "")], fails=True),
    *v24("a location of Dovecot 2.3 is left over", "left_over",
         edit=[("userdb_fields {\n", "userdb_fields {\n  mail_location = mdbox:~/mdbox\n")]),
    # Where the list index is.
    *v23("the list index is in INDEX", "no_list_index", edit=[(":LISTINDEX=" + HASH23, "")]),
    *v24("the list index is in INDEX", "shared_list_index",
         edit=[("mailbox_list_index_prefix = " + HASH24, "mailbox_list_index_prefix = dovecot.list.index")]),
    *v23("the file's name is forgotten", "file_name", edit=[("/%2.256Nu/%u/dovecot.list.index", "/%2.256Nu/%u")]),
    *v24("the file's name is forgotten", "file_name", edit=[("/%{user}/dovecot.list.index", "/%{user}")]),
    *v23("one directory for all", "one_directory", edit=[("/%2.256Nu/%u/dovecot.list.index", "/dovecot.list.index")]),
    *v24("one directory for all", "one_directory",
         edit=[(HASH24, "/dev/shm/dovecot-listindex/dovecot.list.index")]),
    *v23("a list index that is no cache is local", "layout_index",
         edit=[("mdbox:~/mdbox:LISTINDEX", "mdbox:~/mdbox:LAYOUT=index:LISTINDEX")], only_found=True),
    *v23("a list index that is no cache is in INDEX", "layout_index",
         edit=[("mdbox:~/mdbox:LISTINDEX=" + HASH23, "mdbox:~/mdbox:LAYOUT=index")], only_found=True),
    *v24("a list index that is no cache is local", "layout_index", add="mailbox_list_layout = index\n",
         edit=[("userdb_fields {\n", "userdb_fields {\n  mailbox_list_layout = index\n")], only_found=True),
    *both("list indexes are switched off", "list_index_off", add="mailbox_list_index = no\n"),
    # Other namespaces.
    *v23("another namespace has a local list index", "other_list_index", add="""namespace archive {
  prefix = Archive/
  separator = /
  location = mdbox:~/archive:LISTINDEX=/dev/shm/dovecot-listindex/%2.256Nu/%u/archive.list.index
}
"""),
    *v23("two namespaces have one list index", "same_list_index", add="""namespace archive {
  prefix = Archive/
  separator = /
  location = mdbox:~/archive:LISTINDEX=""" + HASH23 + """
}
"""),
    *v24("two namespaces have one list index", "same_list_index", add="""namespace archive {
  prefix = Archive/
  separator = /
  mail_path = ~/archive
}
"""),
    *v23("a list index is called as a file of another", "prefix_collision", add="""namespace archive {
  prefix = Archive/
  separator = /
  location = mdbox:~/archive:LISTINDEX=/dev/shm/dovecot-listindex/%2.256Nu/%u/dovecot.list.index.archive
}
"""),
    *v24("another namespace has a local list index", "other_list_index", add="""namespace archive {
  prefix = Archive/
  separator = /
  mail_path = ~/archive
  mailbox_list_index_prefix = /dev/shm/dovecot-listindex/%{user | md5 | substr(0, 8) % 256 | hex(2)}/%{user}/archive.list.index
}
"""),
    *both("two names for one mailbox", "two_names", add="""namespace compat {
  prefix = Compat/
  separator = /
  list = no
  hidden = yes
}
"""),
    *v23("a shared namespace", "shared_namespace", add="""namespace shared {
  type = shared
  prefix = Shared/%%u/
  separator = /
  location = mdbox:%%h/mdbox
  subscriptions = no
  list = children
}
"""),
    *v24("a shared namespace", "shared_namespace", add="""namespace shared {
  type = shared
  prefix = Shared/$user/
  separator = /
  mail_path = %{owner_home}/mdbox
  mailbox_list_index_prefix = dovecot.list.index
  subscriptions = no
  list = children
}
"""),
    # Users of several kinds.
    *v23("one of two userdbs says nothing of the location", "no_location", edit=[(STATIC23, FILE23 + STATIC23)],
         run=[users("bob@example.org")]),
    *v23("a row of the userdb overrides the location", "no_list_index", edit=[(STATIC23, FILE23 + STATIC23)],
         run=[users("bob@example.org", "userdb_mail_location=mdbox:~/mdbox")], only_found=True),
    *v23("only rows of the userdb have locations", None, ask=(),
         edit=[(STATIC23, FILE23), ("mail_location = mdbox:~/mdbox:LISTINDEX=" + HASH23 + "\n", "")],
         run=[users("alice", "userdb_mail=mdbox:~/mdbox:LISTINDEX=/dev/shm/dovecot-listindex/f5/alice/dovecot.list.index",
                    "bob@example.org", "userdb_mail=mdbox:~/mdbox:LISTINDEX=/dev/shm/dovecot-listindex/0b/bob/dovecot.list.index")]),
    *v23("one service's user for users of several uids", "service_user", ask=(), edit=[(STATIC23, FILE23 + STATIC23)],
         run=[users("alice", LOCATION23, uid=5001) + "; " + users("bob@example.org", LOCATION23, add=True)]),
    *v24("one service's user for users of several uids", "service_user", ask=(), edit=[("userdb static", FILE24 + "userdb static")],
         run=[users("alice", "", uid=5001) + "; " + users("bob@example.org", "", add=True)]),
    *v23("a prefetch userdb", "prefetch", edit=[(STATIC23, "userdb {\n  driver = prefetch\n}\n" + STATIC23),
         ("args = password=x", "args = password=x userdb_uid=5000 userdb_gid=5000 userdb_home=@STORE@/%u")]),
    *v24("a prefetch userdb", "prefetch", edit=[("userdb static", "userdb prefetch {\n}\nuserdb static"),
         ("  password = x\n", "  password = x\n  fields {\n    userdb_uid = 5000\n    userdb_gid = 5000\n    userdb_home = @STORE@/%{user}\n  }\n")]),
    *both("users are chrooted", "chroot", add="mail_chroot = /tmp\nvalid_chroot_dirs = /tmp\n", only_found=True),
    *both("nobody is known to ask about", "no_user", ask=(), only_found=True),
    *both("Dovecot has not read its configuration again", "not_reloaded", after=["sleep 0.05; touch /etc/dovecot/dovecot.conf"]),
    *v23("some clients have another location", "block_setting",
         add="remote 127.0.0.0/8 {\n  namespace inbox {\n    location = mdbox:~/other\n  }\n}\n"),
    *v23("a protocol's location, which the userdb's beats", None, add="protocol imap {\n  mail_location = mdbox:~/other\n}\n"),
    *v23("a second name for the inbox's mailboxes, whose list index is taken over", "migration_namespace", own="migration = true\n",
         add="namespace compat {\n  prefix = Compat/\n  separator = /\n  list = no\n  hidden = yes\n  location = mdbox:~/mdbox\n}\n"),
    *v23("everything is in dovecot.conf, and nothing in the userdb", "no_location",
         edit=[(STATIC23, FILE23), ("  user = vmail\n", ""), ("mail_location = mdbox:~/mdbox:LISTINDEX=" + HASH23, "mail_location = maildir:~/Maildir")],
         add="mail_home = @STORE@/%d/%n\nmail_uid = vmail\nmail_gid = vmail\n",
         run=["printf '%s\\n' alice@example.org:::::: bob@example.org:::::: >/etc/dovecot/users"],
         users=("alice@example.org", "bob@example.org"), ask=()),
    *v23("the home directory in the global location", "no_location",
         edit=[("  default_fields = mail_location=mdbox:~/mdbox:LISTINDEX=" + HASH23 + "\n", ""),
               ("mail_location = mdbox:~/mdbox:LISTINDEX=" + HASH23, "mail_location = maildir:%Lh/Maildir/:INDEX=%Lh/Maildir/")]),
    *v23("a second inbox namespace that is disabled", None, add="""namespace courier {
  inbox = yes
  disabled = yes
  prefix = INBOX.
  separator = .
  location = maildir:~/old
}
"""),
    *v24("post-login scripts cannot name the inbox namespace", "inbox_namespace", edit=[("namespace inbox", "namespace Main")], only_found=True),
    *v24("the home directory in the path, and no field", "no_location", edit=[("mail_path = ~/mdbox", "mail_path = %{home}/mdbox"), (FIELDS24, "")]),
    *v23("a blank in a field", "blank_in_field", edit=[("/%u/dovecot.list.index\n}", "/%u/my list.index\n}")], only_found=True),
    *v23("a variable that a login has otherwise than a delivery", "userdb_variable",
         edit=[("default_fields = mail_location=mdbox:~/mdbox:LISTINDEX=/dev/shm/dovecot-listindex", "default_fields = mail_location=mdbox:~/mdbox:LISTINDEX=/dev/shm/dovecot-listindex/%s")]),
    *both("a /proc that hides processes", "hidden_proc", run=["mount -t proc -o hidepid=2 proc /proc"], only_found=True),
    *v23("a shared namespace whose list index would be taken over", "migration_namespace", own="migration = true\n",
         edit=[("very_dirty_syncs = yes", "very_dirty_syncs = no")], add="""namespace shared {
  type = shared
  prefix = Shared/%%u/
  separator = /
  location = mdbox:%%h/mdbox
  subscriptions = no
  list = children
}
"""),
    # Directories.
    *both("no directory for list indexes", "no_base", tmpfiles="", run=["rm -rf /dev/shm/dovecot-listindex"]),
    *both("the directory belongs to somebody else", "foreign_base", run=["chown mail /dev/shm/dovecot-listindex"]),
    *both("the mail user may not write to the directory", "closed_base", run=["chmod 0500 /dev/shm/dovecot-listindex"]),
    *both("others may write to the directory", "writable_base", run=["chmod 0777 /dev/shm/dovecot-listindex"]),
    *both("/dev/shm is read-only", "read_only", run=["mount -o remount,ro /dev/shm"]),
    *both("nothing makes the directory at boot", "no_tmpfiles", run=["rm /etc/tmpfiles.d/*"]),
    *both("a line for a boot names the wrong owner", "tmpfiles_line",
          run=["sed -i 's/vmail/mail/' /etc/tmpfiles.d/*.conf"]),
    *both("less memory than list indexes may take", "memory_limit", after=["""
group=/sys/fs/cgroup/nfs-hostchange-check limit=memory.max
[ ! -d /sys/fs/cgroup/memory ] || group=/sys/fs/cgroup/memory/nfs-hostchange-check limit=memory.limit_in_bytes
mkdir -p $group && echo 400M >$group/$limit && cat /run/dovecot/master.pid >$group/cgroup.procs"""], only_found=True),
    *both("memory without a limit", "unlimited", run=["mount -t tmpfs -o size=0 tmpfs /dev/shm", "install -d -m 0700 -o vmail /dev/shm/dovecot-listindex"], only_found=True),
]


class Backend:
    def __init__(self, root, store, name, port):
        self.port = port
        command = ["unshare", "--uts", "sh", "-c", f'hostname {name}.example.org; exec "$@"', "sh", f"{HERE}/../lib/in-root.sh", root,
                   "python3", f"{HERE}/agent.py"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask("prepare", store)

    def ask(self, *request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{request[0]}: the backend's agent ended")
        return json.loads(answer)

    def end(self):
        self.process.stdin.close()
        self.process.wait()

    def login(self, user):
        connection = imaplib.IMAP4("127.0.0.1", self.port, timeout=30)
        connection.login(user, "x")
        return connection

    def look(self, user, *changes):
        """What the user sees, and then changes: FOLDER is made if it is new, and gets a mail."""
        connection = self.login(user)
        seen = {}
        for line in connection.list()[1]:
            folder = line.split(b'"/" ')[-1].decode().strip('"')
            answer = connection.status(f'"{folder}"', "(MESSAGES)")
            if answer[0] == "OK":
                seen[folder] = int(re.search(rb"MESSAGES (\d+)", answer[1][0]).group(1))
        for folder in changes:
            if folder not in seen:
                connection.create(folder)
            connection.append(folder, None, None, MAIL)
        connection.logout()
        return seen


def moves(backends, user, case):
    """From one backend to the next: each shows what was done on those before."""
    book = {}
    for number, backend in enumerate(backends):
        folder = f"{case}-{number}"
        changes = [folder] + list(book)[:1]
        seen = backend.look(user, *changes)
        mine = {key: value for key, value in seen.items() if key.startswith(f"{case}-")}
        if mine != book:
            return f"{user} saw {mine} at look {number}, there is {book}"
        for change in changes:
            book[change] = book.get(change, 0) + 1
    return ""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def run(case, number, version, store, a, b):
    mails = f"{store}/{number}"
    os.mkdir(mails)
    os.chmod(mails, 0o777)
    text = case.dovecot(version, mails)
    for backend in (a, b):
        files = {
            "/etc/dovecot/dovecot.conf": text,
            "/etc/dovecot/ports": PORTS % backend.port,
            "/etc/dovecot/nfs-hostchange.toml": case.own or "migration = false\n",
        }
        if case.tmpfiles:
            files["/etc/tmpfiles.d/list-indexes.conf"] = case.tmpfiles
        error = backend.ask("begin", files, case.commands(mails))
        if error:
            return error
    error = a.ask("start", a.port)
    if case.starts == bool(error):
        return f"expected Dovecot {'to start' if case.starts else 'not to start'}: {error}"
    if case.fails:
        # With several logins in one process, the first is good.
        try:
            for _ in range(3):
                a.look(case.users[0])
            return "logins do not fail although this is critical"
        except (imaplib.IMAP4.error, OSError):
            pass
    for command in case.after:
        a.ask("shell", command)
    seen = []
    for _ in range(12):
        answer = a.ask("check", list(case.ask))
        if "error" in answer:
            return answer["error"]
        findings = [found for found in answer["findings"] if found["id"] not in IGNORED]
        seen.append([(found["id"], found["severity"]) for found in findings])
        if not findings:
            break
        if len(seen) == 1:
            ids = {found["id"] for found in findings}
            if case.finds is None or case.finds not in ids:
                return f"expected {case.finds}: {json.dumps(findings, indent=1)}"
            worst = max(findings, key=lambda found: found["severity"] == "critical")
            if (case.fails or not case.starts) != (worst["severity"] == "critical"):
                return f"wrong severity: {findings}"
            if case.only_found:
                return ""
        remedied = [found for found in findings if found["command"] or found["file"]]
        # What a restart mends needs no line.
        if not remedied and {found["id"] for found in findings} - {"not_running", "not_reloaded"}:
            return f"no remedy: {findings}"
        for finding in remedied[:1]:
            # b does not run yet.
            for backend in (a,) if "doveadm" in (finding["command"] or "") else (a, b):
                error = backend.ask("apply", finding)
                if error:
                    return f"{finding}: {error}"
        a.ask("boot")
        a.ask("start", a.port)
    else:
        return f"never silent: {seen} {json.dumps(findings, indent=1)}"
    if case.finds is not None and len(seen) == 1:
        return f"{case.finds} is not found"
    for backend in (a, b):
        backend.ask("boot")
        error = backend.ask("start", backend.port)
        if error:
            return f"Dovecot does not start after all remedies: {error}"
    for user, rounds in zip(case.users, (5, 3)):
        error = moves((a, b, a, b, a)[:rounds], user, f"c{number}")
        if error:
            return f"after all remedies: {error}\n{a.ask('log')}"
    log = a.ask("log")
    if re.search(r"Panic|Fatal", log):
        return log
    files = a.ask("shell", "find /dev/shm -name '*.list.index*' -size +0 | head -3")[1]
    if not files:
        return f"nobody has a local list index after all remedies\n{log}"
    return ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("work")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    version = "2.4" if options.root == "trixie" else "2.3"
    cases = [case for case in CASES if case.only in (None, version) and re.search(options.only, f"{case.name} ({case.finds})")]
    if options.list:
        print("\n".join(f"{case.name} ({case.finds})" for case in cases))
        return 0
    store = f"{options.work}/{options.root}"
    os.mkdir(store)
    os.chmod(store, 0o755)
    os.symlink("../bin", f"{store}/bin")
    a, b = (Backend(options.root, store, name, free_port()) for name in "ab")
    failed = 0
    for number, case in enumerate(cases):
        # One that fails is run once more, and says so: on a busy machine a Dovecot may be too slow for it.
        for verdict, place in ("again", number), ("FAIL", number + len(cases)):
            started = time.time()
            try:
                error = run(case, place, version, store, a, b)
            except (imaplib.IMAP4.error, OSError) as exception:
                error = f"{type(exception).__name__}: {exception}\n{a.ask('log')}{b.ask('log')}"
            took = f"({(time.time() - started) * 1000:.0f} ms)"
            print(f"{verdict if error else 'ok':5} {case.name} ({case.finds}) {took}", flush=True)
            if error:
                print("\n".join("      | " + line for line in error.splitlines()[-40:]), flush=True)
            for backend in (a, b):
                backend.ask("shell", "mount -o remount,rw,size=1g /dev/shm || umount /dev/shm; ! grep -q hidepid /proc/self/mountinfo || umount /proc")
            if not error:
                break
        failed += bool(error)
    for backend in (a, b):
        backend.end()
    for group in ("/sys/fs/cgroup/nfs-hostchange-check", "/sys/fs/cgroup/memory/nfs-hostchange-check"):
        if os.path.isdir(group):
            os.rmdir(group)
    print(f"{len(cases) - failed} passed, {failed} failed")
    return int(failed > 0)


sys.exit(main())
