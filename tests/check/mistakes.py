"""What an administrator gets wrong in a configuration that works."""

import os

from case import (
    BUILT,
    Case,
    INBOX,
    PLUGIN,
    PLUGIN23,
    PLUGIN24,
    V23,
    V24,
    both,
    plugin,
    v23,
    v24,
    executable,
    users,
    HASH23,
    HASH24,
    WRAPPER,
    SERVICE,
    EVERYBODY,
    FIELD23,
    FIELDS24,
    STATIC23,
    STATIC24,
    FILE23,
    FILE24,
    LOCATION23,
)

# Where systemd is told more about Dovecot's service.
DROP_INS = "/etc/systemd/system/dovecot.service.d"

# The file system that Linux systems have for all programs.
SHARED = "mount -t tmpfs -o size=1g,mode=1777 tmpfs /dev/shm"
MAKE = "install -d -m 0700 -o vmail /dev/shm/dovecot-listindex"
# A host that systemd has started, as far as check asks.
SYSTEMD = "mkdir -p /run/systemd/system; printf '#!/bin/sh\\nexit 1\\n' >/usr/local/bin/systemctl; chmod 755 /usr/local/bin/systemctl"
ONE_HASH = "/dev/shm/dovecot-listindex/a7"
HERE = os.path.dirname(os.path.abspath(__file__))

# A script that another one sources, which executes the rest of the chain.
LIBRARY = """cd /usr/local/lib/chain; printf '#!/bin/sh\\n. /usr/local/lib/chain/library\\n' >other.sh; chmod 755 other.sh
printf 'shift\\nexec "$@"\\n' >library"""
SOURCES = 'script-login /usr/local/lib/chain/other.sh --greeting="hi" /usr/lib/dovecot/nfs-hostchange-login'


def hidden(above, base):
    """Starts Dovecot as systemd does with TemporaryFileSystem=above, and BindPaths=base once a drop-in has it."""
    return f"""unshare --mount sh -c 'mount --bind {base} /mnt; mount -t tmpfs tmpfs {above}; install -d -m 0700 -o vmail {base}
! grep -qs ^BindPaths={base}$ {DROP_INS}/*.conf || mount --bind /mnt {base}; exec dovecot'"""


MISTAKES = [
    *both("a configuration that works has no findings", None),
    # What is rare, but valid.
    *v24("values in quotes, other words for yes, and copies of Dovecot's own settings", None, run=[LIBRARY], add=(SERVICE % "group = $SET:default_internal_group")
         + "remote 10.0.0.0/8 {\n  mailbox_list_index = no\n}\n",
         edit=[("inbox = yes", "inbox = Y"), ("mail_path = ~/mdbox", 'mail_path = "~/md#box"'), *executable(SOURCES)]),
    *v24("no namespace, and another list index for clients from elsewhere", None, edit=[(INBOX, "")], add="remote 10.0.0.0/8 {\n  mailbox_list_index = no\n}\n"),
    *v24("a list index in a directory of INDEX", "shared_list_index", add="mail_index_path = ~/index\nuserdb_fields {\n  mail_index_path = $SET:mail_index_path\n}\n",
         edit=[(HASH24, "lists/dovecot.list.index")]),
    *v23("inbox namespaces of which the userdb enables one", None,
         edit=[("  inbox = yes\n", "  inbox = yes\n  disabled = yes\n"), ("default_fields = ", "default_fields = namespace/inbox/disabled=no ")],
         add="namespace courier {\n  inbox = yes\n  disabled = yes\n  prefix = INBOX.\n  separator = .\n}\n"),
    *v23("a group with a blank, a long certificate, and a script that sources another", None, edit=executable(SOURCES),
         add=(SERVICE % "group = domain users") + "ssl_ca = </etc/dovecot/ca.pem\n",
         run=[LIBRARY, "echo 'domain users:x:6000:' >>/etc/group; head -c 200000 /dev/zero | tr '\\0' x >/etc/dovecot/ca.pem"]),
    *[case for version, old in (("2.3", "gid=vmail"), ("2.4", "gid = vmail")) for case in [Case(
        "directories for a group that only the mail process has", None, only=version,
        edit=[(old, old.replace("vmail", "archive")), ("user = vmail", "user = root"), *executable("script-login -d nfs-hostchange-login"),
              ("/dev/shm/dovecot-listindex/", "/dev/shm/above/lists/")],
        tmpfiles="d /dev/shm/above/lists 0700 vmail - -\n",
        run=["chown root:archive /dev/shm/above @STORE@; chmod 0750 /dev/shm/above; chmod 0770 @STORE@"])]],
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
    *both("the service's group does not exist", "no_such_user", add=SERVICE % "group = nosuch", starts=False),
    *both("nobody is called as the socket's owner", "no_such_user", starts=False,
          edit=[("unix_listener imap-postlogin {\n", "unix_listener imap-postlogin {\n    user = nosuch\n")]),
    *both("the socket's group does not exist", "no_such_user", starts=False,
          edit=[("unix_listener imap-postlogin {\n", "unix_listener imap-postlogin {\n    group = nosuch\n")]),
    *both("the service is for a protocol that is not in use", "no_socket", add=SERVICE % "protocol = pop3", fails=True),
    *both("the wrapper twice", "not_last", edit=executable(WRAPPER + " /usr/lib/dovecot/nfs-hostchange-login --config=/etc/dovecot/nosuch.toml")),
    *both("Dovecot's program at the end of the chain", "no_path", edit=executable(WRAPPER + " imap"), fails=True),
    *both("the socket by its full path", None, edit=[("imap imap-postlogin", "imap /run/dovecot/imap-postlogin")]),
    *both("the socket below /var/run", None, edit=[("imap imap-postlogin", "imap /var/run/dovecot/imap-postlogin")]),
    *both("the second program of the chain has no path", "no_path",
          edit=executable("script-login /usr/local/lib/chain/other.sh nfs-hostchange-login"), fails=True,
          run=["printf '#!/bin/sh\\nexec \"$@\"\\n' >/usr/local/lib/chain/other.sh; chmod 755 /usr/local/lib/chain/other.sh"]),
    *both("the first script of the chain is missing", "not_executable",
          edit=executable("script-login /usr/local/lib/chain/missing.sh /usr/lib/dovecot/nfs-hostchange-login"), fails=True),
    *both("the wrapper is missing", "not_executable", run=["rm /usr/lib/dovecot/nfs-hostchange-login"], fails=True),
    *both("only root may execute the wrapper", "not_executable", run=["chmod 0700 /usr/lib/dovecot/nfs-hostchange-login"], fails=True),
    *both("the wrapper is no program", "not_executable", run=["echo nothing >/usr/lib/dovecot/nfs-hostchange-login"], fails=True),
    *both("the arguments of a shell script", "shell_words", edit=executable('script-login /usr/lib/dovecot/nfs-hostchange-login "$@"'), fails=True),
    *v23("the arguments of a shell script without quotes", "shell_words", edit=executable("script-login nfs-hostchange-login $*"), starts=False),
    *v24("the arguments of a shell script without quotes", "shell_words", edit=executable("script-login nfs-hostchange-login $*"), fails=True),
    *both("the wrapper's path in quotes", "shell_words", edit=executable('script-login "/usr/lib/dovecot/nfs-hostchange-login"'), fails=True),
    *both("the socket's name in quotes", "shell_words", edit=[("executable = imap imap-postlogin", 'executable = imap "imap-postlogin"')], fails=True),
    *both("the whole executable in quotes", None, edit=executable('"script-login nfs-hostchange-login"')),
    *v23("hardly any address space for the post-login service", "vsz_limit", add=SERVICE % "vsz_limit = 4M", fails=True),
    *v24("hardly any address space for the post-login service", "vsz_limit", add=SERVICE % "vsz_limit = 32M", fails=True),
    *both("enough address space for the post-login service", None, add=SERVICE % "vsz_limit = 64M"),
    *v24("hardly any address space for all services but those that have their own", "vsz_limit", add="default_vsz_limit = 40M\n" + "".join(
        "service %s {\n  vsz_limit = 1G\n}\n" % service for service in ("auth", "config", "imap-login", "imap", "log", "stats", "anvil")), fails=True),
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
    *both("groups that only dovecot.conf knows", "access_groups", add="mail_access_groups = archive\n",
          run=["install -d -o vmail @STORE@/alice @STORE@/bob@example.org; chown root:archive @STORE@; chmod 0770 @STORE@"]),
    *both("hibernation", "hibernation", add="imap_hibernate_timeout = 30s\n"),
    *both("a script that does not execute the rest of the chain", "not_executable", fails=True,
          edit=executable("script-login /usr/local/lib/chain/other.sh /usr/lib/dovecot/nfs-hostchange-login"),
          run=["printf '#!/bin/sh\n: nothing\n' >/usr/local/lib/chain/other.sh; chmod 755 /usr/local/lib/chain/other.sh"]),
    *both("a script that exits before the rest of the chain", "not_executable", fails=True,
          edit=executable("script-login /usr/local/lib/chain/other.sh /usr/lib/dovecot/nfs-hostchange-login"),
          run=["printf '#!/bin/sh\nexit 0\n' >/usr/local/lib/chain/other.sh; chmod 755 /usr/local/lib/chain/other.sh"]),
    *both("an additional group of the service does not exist", "no_such_user", add=SERVICE % "extra_groups = nosuch", starts=False),
    *both("the service's privileged group does not exist", "no_such_user", add=SERVICE % "privileged_group = nosuch", starts=False),
    *both("no namespace has the inbox", "no_inbox", edit=[("  inbox = yes\n", "")], fails=True),
    *both("the inbox's namespace says no", "no_inbox", edit=[("  inbox = yes\n", "  inbox = no\n")], fails=True),
    # The wrapper's file.
    *both("the wrapper's user may not read its file", "configuration", run=["chmod 600 /etc/dovecot/nfs-hostchange.toml"]),
    *both("the wrapper's user may not enter its directory", "configuration", own='recheck = "2 secs"\n', run=["chmod 0700 /etc/dovecot"]),
    *both("the wrapper's file belongs to somebody", "configuration", run=["chown mail /etc/dovecot/nfs-hostchange.toml"]),
    *both("migration is on", "migration", own="migration = true\n"),
    *both("a name that others have too", "host_name", own='hostname = "localhost"\n'),
    # How locations are spelled.
    *v24("LISTINDEX in mail_path", "spelling", edit=[("mail_path = ~/mdbox", "mail_path = ~/mdbox:LISTINDEX=" + HASH24)], lost=True),
    *v24("a location of Dovecot 2.3 in mail_path", "spelling", fails=True,
         edit=[("mail_path = ~/mdbox", "mail_path = mdbox:~/mdbox:LISTINDEX=" + HASH23), ("mail_driver = mdbox\n", ""),
               ("mailbox_list_index_prefix = " + HASH24 + "\n", "")]),
    *v24("the driver in front of mail_path", "spelling", edit=[("mail_path = ~/mdbox", "mail_path = mdbox:~/mdbox")], lost=True),
    *v24("a copy without its dollar sign", "spelling", edit=[("$SET:mail_path", "SET:mail_path")], lost=True),
    *v24("a copy as Dovecot 2.3 writes it, of the path", "spelling", edit=[("$SET:mail_path", "$mail_path")], lost=True),
    *v24("a copy in small letters", "spelling", edit=[("$SET:mail_path", "$set:mail_path")], lost=True),
    *v24("a copy in braces", "spelling", edit=[("$SET:mail_path", "%{SET:mail_path}")], fails=True),
    *v24("a copy of the driver without its dollar sign", "spelling", edit=[("$SET:mail_driver", "SET:mail_driver")], fails=True),
    *v24("a copy of a setting that does not exist", "spelling", edit=[("$SET:mail_path", "$SET:mail_paht")], starts=False),
    *v24("a path that is not absolute", "spelling", edit=[("mail_path = ~/mdbox", "mail_path = mdbox")], lost=True),
    *v24("variables of Dovecot 2.3 in a path", "spelling", edit=[("mail_path = ~/mdbox", "mail_path = @STORE@/%d/%n")]),
    *v24("a prefix that is not absolute", "spelling", edit=[("= " + HASH24, "= " + HASH24.removeprefix("/"))], fails=True),
    *v24("a prefix that ends in a slash", "file_name", edit=[(HASH24, HASH24.removesuffix("dovecot.list.index"))]),
    *v23("two colons before LISTINDEX", "spelling", edit=[(":LISTINDEX", "::LISTINDEX")], lost=True),
    *v23("a semicolon before LISTINDEX", "spelling", edit=[(":LISTINDEX", ";LISTINDEX")], lost=True),
    *v23("LISTINDEX in small letters", "spelling", edit=[(":LISTINDEX=", ":listindex=")], fails=True),
    *v23("LISTINDEX mistyped", "spelling", edit=[(":LISTINDEX=", ":LIST_INDEX=")], fails=True),
    *v23("a colon in place of LISTINDEX's equals sign", "spelling", edit=[(":LISTINDEX=", ":LISTINDEX:")], fails=True),
    *v23("a blank after LISTINDEX, and nothing in the userdb", "spelling", edit=[(FIELD23, ""), (":LISTINDEX=", ":LISTINDEX =")], fails=True),
    *v23("a blank before LISTINDEX, and nothing in the userdb", "spelling", edit=[(FIELD23, ""), (":LISTINDEX=", " LISTINDEX=")], lost=True),
    *v23("LISTINDEX without a value", "spelling", edit=[(":LISTINDEX=" + HASH23, ":LISTINDEX")]),
    *v23("an unknown driver", "spelling", edit=[("mdbox:", "mdbx:")], fails=True),
    *v23("a variable that Dovecot does not know", "refused", add="mail_plugins = $mail_plugin quota\n", starts=False,
         by_hand={"refused": "sed -i 's/^mail_plugins.*//' /etc/dovecot/dovecot.conf"}),
    *v24("a variable that Dovecot does not know", "refused", add="mail_home = $SET:mail_hom\n", starts=False,
         by_hand={"refused": "sed -i 's/^mail_home.*//' /etc/dovecot/dovecot.conf"}),
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
    *v23("a home that is not absolute", "location", edit=[("home=@STORE@/%u", "home=mail/%u")], fails=True,
         by_hand={"location": "sed -i 's|home=mail/%u|home=@STORE@/%u|' /etc/dovecot/dovecot.conf"}),
    *v24("a home that is not absolute", "location", edit=[("home = @STORE@/%{user}", "home = mail/%{user}")], fails=True,
         by_hand={"location": "sed -i 's|home = mail|home = @STORE@|' /etc/dovecot/dovecot.conf"}),
    *v23("no home anywhere", "location", edit=[(" home=@STORE@/%u", "")], fails=True,
         by_hand={"location": "sed -i 's|gid=vmail|& home=@STORE@/%u|' /etc/dovecot/dovecot.conf"}),
    *v24("no home anywhere", "location", edit=[("    home = @STORE@/%{user}\n", "")], fails=True,
         by_hand={"location": "sed -i 's|    gid = vmail|&\\n    home = @STORE@/%{user}|' /etc/dovecot/dovecot.conf"}),
    *v23("uid and gid that only dovecot.conf knows", "no_uid", edit=[("uid=vmail gid=vmail ", ""), ("  user = vmail\n", "")],
         add="mail_uid = vmail\nmail_gid = vmail\n"),
    *v24("uid and gid that only dovecot.conf knows", "no_uid",
         edit=[("    uid = vmail\n    gid = vmail\n", ""), ("  user = vmail\n", "")], add="mail_uid = vmail\nmail_gid = vmail\n"),
    *v23("the inbox namespace has a location of its own", "other_location",
         edit=[("  inbox = yes\n", "  inbox = yes\n  location = mdbox:~/other:LISTINDEX=" + HASH23 + "\n")]),
    *v23("the inbox namespace has the userdb's location of its own", "own_location",
         edit=[("  inbox = yes\n", "  inbox = yes\n  location = mdbox:~/mdbox:LISTINDEX=" + HASH23 + "\n")]),
    *v23("the inbox namespace has the userdb's location of its own, and no name", "own_location",
         edit=[("namespace inbox", "namespace"), ("  inbox = yes\n", "  inbox = yes\n  location = mdbox:~/mdbox:LISTINDEX=" + HASH23 + "\n")]),
    *v23("the inbox namespace has the userdb's location of its own, and a name in capitals", "own_location", own='inbox_namespace = "Main"\n',
         edit=[("namespace inbox", "namespace Main"), ("  inbox = yes\n", "  inbox = yes\n  location = mdbox:%h/mdbox:LISTINDEX=" + HASH23 + "\n")]),
    *v23("the inbox namespace has a location of its own, and the userdb says nothing", "no_location",
         edit=[(FIELD23, ""), ("  inbox = yes\n", "  inbox = yes\n  location = mdbox:~/own:LISTINDEX=" + HASH23 + "\n")]),
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
    *v23("one directory for all, and files called like the users", "one_directory", edit=[("/%2.256Nu/%u/dovecot.list.index", "/%u")]),
    *v24("one directory for all", "one_directory",
         edit=[(HASH24, "/dev/shm/dovecot-listindex/dovecot.list.index")]),
    *v23("a list index that is no cache is local", "layout_index",
         edit=[("mdbox:~/mdbox:LISTINDEX", "mdbox:~/mdbox:LAYOUT=index:LISTINDEX")], local=False),
    *v23("a list index that is no cache is in INDEX", "layout_index",
         edit=[("mdbox:~/mdbox:LISTINDEX=" + HASH23, "mdbox:~/mdbox:LAYOUT=index")], local=False),
    *v24("a list index that is no cache is local", "layout_index",
         edit=[("mail_driver = mdbox\n", "mail_driver = mdbox\nmailbox_list_layout = index\n"), ("userdb_fields {\n", "userdb_fields {\n  mailbox_list_layout = $SET:mailbox_list_layout\n")], local=False),
    *both("list indexes are switched off", "list_index_off", add="mailbox_list_index = no\n"),
    *both("list indexes are switched off for a protocol", "list_index_off", add="protocol imap {\n  mailbox_list_index = no\n}\n"),
    *v24("list indexes are switched off for the inbox's namespace", "list_index_off", edit=[("  inbox = yes\n", "  inbox = yes\n  mailbox_list_index = no\n")]),
    *v24("a copy as Dovecot 2.3 writes it", "shared_list_index",
         edit=[("$SET:mailbox_list_index_prefix", "$mailbox_list_index_prefix")]),
    *both("an INDEX on a local disk", "index_not_shared"),
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
    *v23("another namespace's list index leads into INDEX", "inbox_index", add="""namespace archive {
  prefix = Archive/
  separator = /
  location = mdbox:~/archive:LISTINDEX=~/mdbox/dovecot.list.index
}
"""),
    *v23("another namespace's list index leads into INDEX by its full path", "inbox_index", add="""namespace archive {
  prefix = Archive/
  separator = /
  location = mdbox:~/archive:LISTINDEX=@STORE@/%u/mdbox/dovecot.list.index
}
"""),
    *v23("another namespace has the inbox's INDEX", "inbox_index", add="""namespace archive {
  prefix = Archive/
  separator = /
  location = mdbox:~/archive:INDEX=~/mdbox
}
"""),
    *v24("another namespace's list index leads into INDEX", "inbox_index", add="""namespace archive {
  prefix = Archive/
  separator = /
  mail_path = ~/archive
  mailbox_list_index_prefix = @STORE@/%{user}/mdbox/dovecot.list.index
}
"""),
    *v24("another namespace has the inbox's INDEX", "inbox_index", add="""namespace archive {
  prefix = Archive/
  separator = /
  mail_path = ~/archive
  mail_index_path = ~/mdbox
  mailbox_list_index_prefix = dovecot.list.index
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
         run=[users("bob@example.org", "userdb_mail_location=mdbox:~/mdbox")],
         by_hand={"no_list_index": "sed -i 's|mdbox$|mdbox:LISTINDEX=/dev/shm/dovecot-listindex/%2.256Nu/%u/dovecot.list.index|' /etc/dovecot/users"}),
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
    *v23("users are chrooted", "chroot", add="mail_chroot = @STORE@\nvalid_chroot_dirs = /tmp\n", local=False,
         edit=[("~/mdbox", "/%u/mdbox"), ("home=@STORE@/%u", "home=/%u")]),
    *v24("users are chrooted", "chroot", add="mail_chroot = @STORE@\nvalid_chroot_dirs = /tmp\n", local=False,
         edit=[("home = @STORE@/%{user}", "home = /%{user}")]),
    *v23("the userdb says that users are chrooted", "chroot", add="valid_chroot_dirs = /tmp\n", local=False,
         edit=[("home=@STORE@/%u", "home=@STORE@/./%u")]),
    *both("nobody is known to ask about", "no_user", ask=(), by_hand={"no_user": "--user alice"}),
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
    *v24("post-login scripts cannot name the inbox namespace", "inbox_namespace", edit=[("namespace inbox", "namespace Main")]),
    *v24("the home directory in the path, and no field", "no_location", edit=[("mail_path = ~/mdbox", "mail_path = %{home}/mdbox"), (FIELDS24, "")]),
    *v23("a blank in a field", "blank_in_field", edit=[("/%u/dovecot.list.index\n}", "/%u/my list.index\n}")]),
    *v23("a variable that a login has otherwise than a delivery", "userdb_variable",
         edit=[("default_fields = mail_location=mdbox:~/mdbox:LISTINDEX=/dev/shm/dovecot-listindex", "default_fields = mail_location=mdbox:~/mdbox:LISTINDEX=/dev/shm/dovecot-listindex/%s")]),
    *v23("a shared namespace whose list index would be taken over", "migration_namespace", own="migration = true\n", add="""namespace shared {
  type = shared
  prefix = Shared/%%u/
  separator = /
  location = mdbox:%%h/mdbox
  subscriptions = no
  list = children
}
"""),
    # What else goes wrong on a stock Debian.
    *both("a mistyped key in the wrapper's file", "configuration", own="migratoin = true\n",
          by_hand={"configuration": "echo 'migration = false' >/etc/dovecot/nfs-hostchange.toml"}),
    *both("a text without quotes in the wrapper's file", "configuration", own="hostname = a.example.org\n",
          by_hand={"configuration": "echo 'migration = false' >/etc/dovecot/nfs-hostchange.toml"}),
    *both("the socket has another name than the one that is asked for", "no_socket", edit=[("unix_listener imap-postlogin", "unix_listener imap-post-login")], fails=True),
    *both("the post-login service has no socket", "no_socket", edit=[("  unix_listener imap-postlogin {\n  }\n", "")], fails=True),
    *both("the socket is switched off", "no_socket", edit=[("unix_listener imap-postlogin {\n", "unix_listener imap-postlogin {\n    mode = 0\n")], fails=True),
    *both("the socket is in another service's block", "no_socket", fails=True,
          edit=[("  unix_listener imap-postlogin {\n  }\n", "")], add="service imap {\n  unix_listener imap-postlogin {\n  }\n}\n"),
    *both("the mail service runs as the mail user", None, add="service imap {\n  user = vmail\n}\n"),
    *both("a mail process for several clients", None, add="service imap {\n  client_limit = 5\n}\n"),
    *both("POP3 logins pass no wrapper", "no_post_login", edit=[("protocols = imap", "protocols = imap pop3")],
          add="service pop3-login {\n  inet_listener pop3 {\n    port = 0\n  }\n  inet_listener pop3s {\n    port = 0\n  }\n}\n"),
    *both("the administrator's command in the wrapper's place", "no_wrapper", edit=executable("script-login nfs-hostchange"), fails=True),
    *both("a script whose interpreter is missing", "not_executable", fails=True,
          edit=executable("script-login /usr/local/lib/chain/other.sh /usr/lib/dovecot/nfs-hostchange-login"),
          run=["printf '#!/usr/local/bin/bash\nexec \"$@\"\n' >/usr/local/lib/chain/other.sh; chmod 755 /usr/local/lib/chain/other.sh"]),
    *both("a script with Windows' line ends", "not_executable", fails=True,
          edit=executable("script-login /usr/local/lib/chain/other.sh /usr/lib/dovecot/nfs-hostchange-login"),
          run=["printf '#!/bin/sh\r\nexec \"$@\"\r\n' >/usr/local/lib/chain/other.sh; chmod 755 /usr/local/lib/chain/other.sh"]),
    *both("the wrapper is on a file system without programs", "not_executable", fails=True,
          edit=executable("script-login /usr/local/lib/chain/nfs-hostchange-login"),
          run=["mount -t tmpfs -o noexec,mode=0755 tmpfs /usr/local/lib/chain", "cp /usr/lib/dovecot/nfs-hostchange-login /usr/local/lib/chain/"]),
    *both("script-login shall take on ids that it already has", None, edit=executable("script-login -d nfs-hostchange-login")),
    *both("the mail user's gid is not valid", "gid_not_valid", add="first_valid_gid = 6000\n", fails=True),
    *v23("one directory for a domain", "one_directory", edit=[("/%2.256Nu/%u/", "/%d/")], users=("alice@example.org", "bob@example.org"), ask=("alice@example.org",)),
    *v23("one directory for a hash", "one_directory", edit=[("/%2.256Nu/%u/", "/%2.256Nu/")], ask=("alice",)),
    *v24("one directory for a domain", "one_directory", edit=[("/%{user | md5 | substr(0, 8) % 256 | hex(2)}/%{user}/", "/%{user | domain}/")],
         users=("alice@example.org", "bob@example.org"), ask=("alice@example.org",)),
    *v24("one directory for a hash", "one_directory", edit=[("/%{user}/dovecot.list.index", "/dovecot.list.index")], ask=("alice",)),
    *v23("two users with one name in two domains", "one_directory", edit=[(STATIC23, FILE23), ("/%2.256Nu/%u/", "/%2.256Nn/%n/")],
         run=[users("alice@example.org", LOCATION23.replace("%2.256Nu/%u", "%2.256Nn/%n"), "alice@example.net", LOCATION23.replace("%2.256Nu/%u", "%2.256Nn/%n"))],
         users=("alice@example.org", "alice@example.net"), by_hand={"one_directory": "sed -i 's|%2.256Nn/%n|%2.256Nu/%u|' /etc/dovecot/users"}),
    *v23("two users with one mailbox", "one_index", edit=[(STATIC23, FILE23)],
         run=[users("alice", LOCATION23, "bob@example.org", LOCATION23) + "; sed -i 's|/bob@example.org::|/alice::|' /etc/dovecot/users"],
         by_hand={"one_index": "sed -i '/^bob/s|userdb_mail|userdb_user=alice userdb_mail|' /etc/dovecot/users"},
         users=("bob@example.org",), ask=("alice", "bob@example.org")),
    *v23("quotes inside a field", "quoted_field", fails=True, edit=[("default_fields = mail_location=mdbox:~/mdbox:LISTINDEX=" + HASH23, 'default_fields = mail_location="mdbox:~/mdbox:LISTINDEX=' + HASH23 + '"')]),
    *both("tmpfiles.d cleans list indexes", "tmpfiles_line", run=["sed -i 's/ - -$/ - 10d/' /etc/tmpfiles.d/*.conf"]),
    *both("tmpfiles.d does not read the file", "no_tmpfiles", run=["mv /etc/tmpfiles.d/list-indexes.conf /etc/tmpfiles.d/list-indexes"]),
    *v24("fields above the settings that they copy", "empty_path", edit=[(FIELDS24, ""), ("mail_driver = mdbox\n", FIELDS24 + "mail_driver = mdbox\n")], fails=True),
    *both("list indexes in /dev/shm itself", "shared_base", edit=[("/dev/shm/dovecot-listindex/", "/dev/shm/")], tmpfiles=""),
    *both("list indexes on a disk", "disk_list_index", edit=[("/dev/shm/dovecot-listindex/", "@STORE@-lists/")], tmpfiles="",
          run=["install -d -m 0700 -o vmail @STORE@-lists"]),
    *both("list indexes on a network file system", "network_list_index", edit=[("/dev/shm/dovecot-listindex/", "@STORE@-net/")],
          run=[f"python3 {HERE}/network.py @STORE@-net /run/network.pid"]),
    *both("list indexes share their file system with everybody's files", "common_file_system", run=[f"{SHARED}; {MAKE}"]),
    *both("the file system for list indexes is not mounted", "not_mounted",
          run=[f"echo 'tmpfs /dev/shm/dovecot-listindex tmpfs size=1g,mode=0711 0 0' >/etc/fstab; {SHARED}; {MAKE}"]),
    *v24("a list index is called as a file of another", "prefix_collision", add="""namespace archive {
  prefix = Archive/
  separator = /
  mail_path = ~/archive
  mailbox_list_index_prefix = """ + HASH24 + """.archive
}
"""),
    *v24("a shared namespace whose list index would be taken over", "migration_namespace", own="migration = true\n", add="""namespace shared {
  type = shared
  prefix = Shared/$user/
  separator = /
  mail_path = %{owner_home}/mdbox
  mailbox_list_index_prefix = dovecot.list.index
  subscriptions = no
  list = children
}
"""),
    *v24("two users with one mailbox", "one_index", edit=[("userdb static", FILE24 + "userdb static")],
         run=[users("alice", "", "bob@example.org", "") + "; sed -i 's|/bob@example.org::|/alice::|' /etc/dovecot/users"],
         by_hand={"one_index": "sed -i '/^bob/s|$|userdb_user=alice|' /etc/dovecot/users"},
         users=("bob@example.org",), ask=("alice", "bob@example.org")),
    *v24("a variable that a login has otherwise than a delivery", "userdb_variable",
         edit=[("= /dev/shm/dovecot-listindex/", "= /dev/shm/dovecot-listindex/%{protocol}/")]),
    *v23("clients that come to one address have another location", "block_setting",
         add="local 127.0.0.1 {\n  namespace inbox {\n    location = mdbox:~/other\n  }\n}\n"),
    *v23("somebody whom no userdb knows", "unknown_user", edit=[(STATIC23, FILE23)], run=[users("alice", LOCATION23)], users=("alice",), ask=("nosuch",),
         by_hand={"unknown_user": "--user alice", "no_location": "--user alice"}),
    *v24("somebody whom no userdb knows", "unknown_user", edit=[(STATIC24, FILE24)], run=[users("alice", "")], users=("alice",), ask=("nosuch",),
         by_hand={"unknown_user": "--user alice", "no_location": "--user alice"}),
    *v23("INDEX in memory", "index_in_memory", edit=[("mdbox:~/mdbox:LISTINDEX", "maildir:~/Maildir:INDEX=MEMORY:LISTINDEX")]),
    *v24("INDEX in memory", "index_in_memory", edit=[("mail_driver = mdbox\nmail_path = ~/mdbox\n", "mail_driver = maildir\nmail_path = ~/Maildir\nmail_index_path = MEMORY\n"),
         ("userdb_fields {\n", "userdb_fields {\n  mail_index_path = $SET:mail_index_path\n")]),
    *both("a unit that shows Dovecot another /dev/shm", "hidden_base", start=hidden("/dev/shm", "/dev/shm/dovecot-listindex")),
    *both("a unit that shows Dovecot another /tmp", "hidden_base", edit=[("/dev/shm/dovecot-listindex/", "/var/tmp/lists/")], tmpfiles="", local=False,
          run=["mount -t tmpfs -o mode=0755 tmpfs /var/tmp; install -d -m 0700 -o vmail /var/tmp/lists"], start=hidden("/var/tmp", "/var/tmp/lists")),
    *both("a unit that lets Dovecot only read /dev/shm", "read_only",
          start=f"! grep -qs ReadWritePaths=/dev/shm/dovecot-listindex {DROP_INS}/*.conf || exec dovecot; exec unshare --mount sh -c 'mount --bind /dev/shm /dev/shm; mount -o remount,bind,ro /dev/shm; exec dovecot'"),
    *v23("a second name with a location of its own", "same_list_index", edit=[("very_dirty_syncs = yes", "very_dirty_syncs = no")],
         add="namespace compat {\n  prefix = Compat/\n  separator = /\n  list = no\n  hidden = yes\n  location = mdbox:~/mdbox:LISTINDEX=" + HASH23 + "\n}\n"),
    *v24("an unknown variable in a path", "lookup_fails", edit=[("mail_path = ~/mdbox", "mail_path = ~/%{nosuch}/mdbox")], fails=True,
         by_hand={"lookup_fails": "sed -i 's|%{nosuch}/||' /etc/dovecot/dovecot.conf"}),
    *v24("a row's location that the fields for all override", "overridden_field", edit=[("userdb static", FILE24 + "userdb static")],
         run=[users("alice", "userdb_mail_path=~/other", "bob@example.org", "userdb_mail_path=~/mdbox")], users=("alice",), ask=("alice",)),
    *v24("an unknown driver", "location", edit=[("mail_driver = mdbox", "mail_driver = mdbx")], fails=True,
         by_hand={"location": "sed -i s/mdbx/mdbox/ /etc/dovecot/dovecot.conf"}),
    *v23("an unknown layout", "location", edit=[("mdbox:~/mdbox:", "mdbox:~/mdbox:LAYOUT=maildir:")], fails=True,
         by_hand={"location": "sed -i s/LAYOUT=maildir/LAYOUT=fs/ /etc/dovecot/dovecot.conf"}),
    *v24("an inbox that Debian's configuration has elsewhere", "inbox_path", add="mail_inbox_path = /var/mail/%{user}\n"),
    # What is pasted into the wrong place, or half.
    *both("the mail service itself executes the wrapper", "no_script_login", fails=True,
          edit=[("executable = imap imap-postlogin", "executable = script-login nfs-hostchange-login")]),
    *both("the wrapper executes the mail service", "no_script_login", fails=True,
          edit=[("executable = imap imap-postlogin", "executable = nfs-hostchange-login imap")]),
    *v23("a second line of default fields", "second_line", fails=True,
          edit=[("args = uid=vmail gid=vmail home=@STORE@/%u", "args = uid=vmail gid=vmail\n  default_fields = home=@STORE@/%u")]),
    *v23("a second line of default fields, and a home that only dovecot.conf knows", "second_line", add="mail_home = @STORE@/%u\n",
          edit=[("args = uid=vmail gid=vmail home=@STORE@/%u", "args = uid=vmail gid=vmail\n  default_fields = home=@STORE@/%u")]),
    *v23("blanks around a field's equals sign", "lookup_fails", fails=True, edit=[("default_fields = mail_location=", "default_fields = mail_location = ")]),
    *v23("commas between fields", "lookup_fails", fails=True, edit=[("uid=vmail gid=vmail home", "uid=vmail,gid=vmail,home")],
         by_hand={"lookup_fails": "sed -i 's/,gid/ gid/; s/,home/ home/' /etc/dovecot/dovecot.conf"}),
    *v23("no location anywhere", "no_location", edit=[(FIELD23, ""), ("mail_location = mdbox:~/mdbox:LISTINDEX=" + HASH23 + "\n", "")],
         by_hand={"no_location": "sed -i '1i mail_location = mdbox:~/mdbox' /etc/dovecot/dovecot.conf"}),
    *v23("the hash of Dovecot 2.4", "blank_in_field", edit=[("/%2.256Nu/%u/dovecot.list.index", HASH24.removeprefix("/dev/shm/dovecot-listindex"))]),
    *v24("the hash of Dovecot 2.3", "one_directory", edit=[(HASH24, HASH23)]),
    *v23("LISTINDEX is a directory", "file_name", edit=[("/%u/dovecot.list.index", "/%u/")]),
    *v23("percent signs as for a shared namespace", "one_directory", edit=[("%2.256Nu/%u", "%%2.256Nu/%%u")]),
    *v23("the list index in the home directory", "disk_list_index", edit=[("/dev/shm/dovecot-listindex/%2.256Nu/%u/", "~/listindex/")]),
    *v24("the list index in the home directory", "userdb_variable", edit=[("= " + HASH24, "= %{home}/listindex/dovecot.list.index")]),
    *v23("a prefetch with another list index than deliveries have", "prefetch", edit=[(STATIC23, "userdb {\n  driver = prefetch\n}\n" + STATIC23),
         ("args = password=x", "args = password=x userdb_uid=5000 userdb_gid=5000 userdb_home=@STORE@/%u userdb_mail_location=mdbox:~/mdbox:LISTINDEX=/dev/shm/dovecot-listindex/pre/%u/dovecot.list.index")]),
    *both("the wrapper's file is a directory", "configuration", run=["rm /etc/dovecot/nfs-hostchange.toml; mkdir /etc/dovecot/nfs-hostchange.toml"]),
    *both("post-login processes for several logins", None,
          add={"2.3": SERVICE % "service_count = 100", "2.4": SERVICE % "restart_request_count = 100"}),
    *both("nobody but root may use the post-login service's socket", None,
          edit=[("unix_listener imap-postlogin {\n", "unix_listener imap-postlogin {\n    user = root\n    mode = 0600\n")]),
    *both("list indexes in /run", None, edit=[("/dev/shm/dovecot-listindex/", "/run/lists/")], run=["install -d -m 0700 -o vmail /run/lists"],
          tmpfiles="d /run/lists 0700 vmail - -\n", local=False),
    # Directories.
    *both("no directory for list indexes", "no_base", tmpfiles="", run=["rm -rf /dev/shm/dovecot-listindex"]),
    *both("a link in the place of the directory", "no_base", run=["mv /dev/shm/dovecot-listindex /dev/shm/real; ln -s real /dev/shm/dovecot-listindex"]),
    *both("a file in the place of the directory", "no_base", run=["rm -r /dev/shm/dovecot-listindex; touch /dev/shm/dovecot-listindex"]),
    *both("a directory below a link of the mail user's", "no_base", edit=[("/dev/shm/dovecot-listindex/", "/run/memory/lists/")],
          run=["ln -sfn /dev/shm /run/memory; chown -h vmail /run/memory; install -d -m 0700 -o vmail /dev/shm/lists"]),
    *both("the directory belongs to somebody else", "foreign_base", run=["chown mail /dev/shm/dovecot-listindex"]),
    *both("a directory of a hash belongs to root", "foreign_base", run=["install -d -m 0755 /dev/shm/dovecot-listindex/f5"]),
    *both("a user's directory belongs to root", "foreign_base",
          run=["install -d -m 0700 -o vmail /dev/shm/dovecot-listindex/f5; install -d -m 0700 /dev/shm/dovecot-listindex/f5/alice"]),
    *both("the mail user may not write to the directory", "closed_base", run=["chmod 0500 /dev/shm/dovecot-listindex"]),
    *both("mail users may not enter a directory above", "closed_base", run=["chmod 0700 /dev/shm"]),
    *both("mail users may not write to the store", "closed_index", run=["chmod 0755 @STORE@"],
          by_hand={"closed_index": "chmod 0777 @STORE@"}),
    *both("somebody else's INDEX", "closed_index", run=["mkdir -p @STORE@/alice/mdbox"]),
    *both("the store is not mounted", "closed_index", edit=[("@STORE@/", "@STORE@/mounted/")], run=["chmod 0755 @STORE@"],
          by_hand={"closed_index": "install -d -m 0700 -o vmail @STORE@/mounted"}),
    *both("others may write to the directory", "writable_base", run=["chmod 0777 /dev/shm/dovecot-listindex"]),
    *both("/dev/shm is read-only", "read_only", run=["mount -o remount,ro /dev/shm"]),
    *both("nothing makes the directory at boot", "no_tmpfiles", run=["rm /etc/tmpfiles.d/*"]),
    *both("a line for a boot names the wrong owner", "tmpfiles_line",
          run=["sed -i 's/vmail/mail/' /etc/tmpfiles.d/*.conf"]),
    *both("less memory than list indexes may take", "memory_limit", after=["""
group=/sys/fs/cgroup/nfs-hostchange-check limit=memory.max
[ ! -d /sys/fs/cgroup/memory ] || group=/sys/fs/cgroup/memory/nfs-hostchange-check limit=memory.limit_in_bytes
mkdir -p $group && echo 400M >$group/$limit && cat /run/dovecot/master.pid >$group/cgroup.procs"""]),
    *both("memory without a limit", "unlimited", run=["mount -t tmpfs -o size=0 tmpfs /dev/shm", "install -d -m 0700 -o vmail /dev/shm/dovecot-listindex"]),
    *both("a small tmpfs", "space", run=["mount -o remount,size=64m /dev/shm"]),
    *both("a tmpfs with few files", "space", run=["mount -o remount,nr_inodes=2000 /dev/shm"]),
    *v23("a tmpfs with enough files for the few users", None, ask=(), edit=[(STATIC23, FILE23)],
         run=["mount -o remount,nr_inodes=2000 /dev/shm", users("alice", LOCATION23, "bob@example.org", LOCATION23)]),
    # The host.
    *v23("a directory of a hash is missing", "no_hash_directories", edit=[("  user = vmail\n", ""), (STATIC23, FILE23)], ask=(), tmpfiles=EVERYBODY,
         run=[users("alice", LOCATION23) + "; " + users("bob@example.org", LOCATION23, uid=5001, add=True)], after=[f"rmdir {ONE_HASH}"]),
    *v24("a directory of a hash is missing", "no_hash_directories", edit=[("  user = vmail\n", ""), (STATIC24, FILE24)], ask=(), tmpfiles=EVERYBODY,
         run=[users("alice", "") + "; " + users("bob@example.org", "", uid=5001, add=True)], after=[f"rmdir {ONE_HASH}"]),
    *both("logind deletes the mail user's files", "remove_ipc", run=[SYSTEMD]),
    *both("nothing sweeps", "no_sweep", run=["rm /etc/cron.d/sweep"]),
    *both("Dovecot does not run", "not_running", after=["doveadm stop"]),
    # The plugin.
    *plugin("a plugin that works", None),
    *plugin("mail users may not read the plugin's file", "configuration", run=["chmod 600 /etc/dovecot/nfs-hostchange.toml"]),
    *plugin("a mistyped plugin", "no_plugin", edit=[("nfs_hostchange", "nfs-hostchange")], fails=True),
    *plugin("a mistyped setting of the plugin", "plugin_setting", only=("2.3",), add="plugin {\n  nfs_hostchange_migraton = no\n}\n"),
    *plugin("a setting of the plugin with dashes", "plugin_setting", only=("2.3",), add="plugin {\n  nfs-hostchange-recheck = 5\n}\n"),
    *plugin("a setting of the plugin with a wrong value", "plugin_setting", only=("2.3",), add="plugin {\n  nfs_hostchange_recheck = fast\n}\n"),
    *plugin("a setting that the plugin reads from its file", "plugin_setting", only=("2.3",), add="plugin {\n  nfs_hostchange_hostname = a\n}\n"),
    *plugin("good settings of the plugin", None, only=("2.3",), add="plugin {\n  nfs_hostchange_recheck = 5 secs\n  nfs_hostchange_migration = no\n}\n"),
    *v23("a setting of the plugin without the plugin", "plugin_setting", add="plugin {\n  nfs_hostchange_recheck = 5\n}\n"),
    *plugin("the plugin is not installed", "no_plugin", run=[f"rm {PLUGIN}"], by_hand={"no_plugin": f"cp {BUILT['2.3']} {PLUGIN}"}, only=("2.3",), fails=True),
    *plugin("the plugin is for another Dovecot", "plugin_abi", run=[f"cp {BUILT['2.4']} {PLUGIN}"], by_hand={"plugin_abi": f"cp {BUILT['2.3']} {PLUGIN}"},
            only=("2.3",), fails=True),
    *plugin("the plugin is for another Dovecot", "plugin_abi", run=[f"cp {BUILT['2.3']} {PLUGIN}"], by_hand={"plugin_abi": f"cp {BUILT['2.4']} {PLUGIN}"},
            only=("2.4",), fails=True),
    *plugin("a protocol's plugins without it", "plugin_protocols", only=("2.3",), edit=[("protocols = imap", "protocols = imap lmtp")],
            add="protocol lmtp {\n  mail_plugins = sieve\n}\n"),
    *plugin("a protocol without it", "plugin_protocols", only=("2.4",), edit=[("protocols = imap", "protocols = imap lmtp")],
            add="protocol lmtp {\n  mail_plugins {\n    nfs_hostchange = no\n  }\n}\n"),
    *plugin("a protocol that is not in use has no plugin", None, only=("2.3",), add="protocol lmtp {\n  mail_plugins = sieve\n}\n"),
    *plugin("the plugin and the wrapper", "both_front_ends", only=("2.3",), edit=[(PLUGIN23, V23 + "mail_plugins = nfs_hostchange\n")]),
    *plugin("the plugin and the wrapper", "both_front_ends", only=("2.4",), edit=[(PLUGIN24, V24 + "mail_plugins {\n  nfs_hostchange = yes\n}\n")]),
    *plugin("a public namespace with a local list index", "public_namespace", only=("2.4",), add="""namespace public {
  type = public
  prefix = Public/
  separator = /
  mail_path = @STORE@/public
  mailbox_list_index_prefix = /dev/shm/dovecot-listindex/public/%{user}/dovecot.list.index
  subscriptions = no
}
"""),
    *plugin("the plugin, and the wrapper after another script", "both_front_ends", only=("2.3",),
            edit=[(PLUGIN23, V23 + "mail_plugins = nfs_hostchange\n"), (WRAPPER, "script-login /usr/local/lib/chain/other.sh /usr/lib/dovecot/nfs-hostchange-login --config=/etc/dovecot/nfs-hostchange.toml")],
            run=["printf '#!/bin/sh\\nexec \"$@\"\\n' >/usr/local/lib/chain/other.sh; chmod 755 /usr/local/lib/chain/other.sh"]),
    *plugin("a shared namespace's list index for each reader", "shared_by_reader", only=("2.3",), add="""namespace shared {
  type = shared
  prefix = Shared/%%u/
  separator = /
  location = mdbox:%%h/mdbox:LISTINDEX=/dev/shm/dovecot-listindex/%2.256Nu/%u/shared.%%u.index
  subscriptions = no
  list = children
}
"""),
    *plugin("a shared namespace's list index for each reader", "shared_by_reader", only=("2.4",), add="""namespace shared {
  type = shared
  prefix = Shared/$user/
  separator = /
  mail_path = %{owner_home}/mdbox
  subscriptions = no
  list = children
}
"""),
    *plugin("a public namespace with a local list index", "public_namespace", only=("2.3",), add="""namespace public {
  type = public
  prefix = Public/
  separator = /
  location = mdbox:@STORE@/public:LISTINDEX=/dev/shm/dovecot-listindex/public/%u/dovecot.list.index
  subscriptions = no
}
"""),
    *plugin("another namespace's local list index", None, only=("2.3",), add="""namespace archive {
  prefix = Archive/
  separator = /
  location = mdbox:~/archive:LISTINDEX=/dev/shm/dovecot-listindex/%2.256Nu/%u/archive.list.index
}
"""),
    *plugin("a second name with a location of its own", "same_list_index", only=("2.3",), edit=[("very_dirty_syncs = yes", "very_dirty_syncs = no")],
            add="namespace compat {\n  prefix = Compat/\n  separator = /\n  list = no\n  hidden = yes\n  location = mdbox:~/mdbox:LISTINDEX=" + HASH23 + "\n}\n"),
]
