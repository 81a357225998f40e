"""Configurations of the kinds that public projects ship and administrators report, without nfs-hostchange: check leads from each
to one in which users move rightly. Their shape is real, their text is not.
"""

from case import EVERYBODY, HASH23, HEAD23, HEAD24, INBOX, STATIC23, TMPFILES, both, v23, v24

USERS = ("alice@example.org", "bob@example.net")
# SQLite.
SQL = """sqlite3 /etc/dovecot/users.sqlite "CREATE TABLE users (name, domain, password, uid, active);
INSERT INTO users VALUES ('alice', 'example.org', 'x', 5000, 1), ('bob', 'example.net', 'x', 5000, 1), ('gone', 'example.net', 'x', 5000, 0)"
"""
FROM = "FROM users WHERE name = '%n' AND domain = '%d' AND active = 1"
FROM24 = "FROM users WHERE name = '%{user | username}' AND domain = '%{user | domain}' AND active = 1"
SQL23 = "driver = sqlite\nconnect = /etc/dovecot/users.sqlite\ndefault_pass_scheme = PLAIN\n"
PASSWORD = f"password_query = SELECT name || '@' || domain AS user, password {FROM}\n"
ITERATE = "iterate_query = SELECT name AS username, domain FROM users WHERE active = 1\n"
BOTH_SQL = "passdb {\n  driver = sql\n  args = /etc/dovecot/sql.conf\n}\nuserdb {\n  driver = sql\n  args = /etc/dovecot/sql.conf\n}\n"


def sql24(fields, passdb_fields="", before=""):
    """What Dovecot 2.4 asks SQLite."""
    return f"""sql_driver = sqlite
sqlite_path = /etc/dovecot/users.sqlite
passdb sql {{
  default_password_scheme = PLAIN
  query = SELECT name || '@' || domain AS user, password{passdb_fields} {FROM24}
}}
{before}userdb sql {{
  query = SELECT {fields} {FROM24}
  iterate_query = SELECT name AS username, domain FROM users WHERE active = 1
}}
"""


# Another post-login script.
LAST_LOGIN = """service imap {
  executable = imap imap-postlogin
}
service imap-postlogin {
  executable = script-login /usr/local/lib/chain/last-login.sh
  process_limit = 1024
  unix_listener imap-postlogin {
  }
}
"""
CHAIN = "printf '#!/bin/sh\\nexec \"$@\"\\n' >/usr/local/lib/chain/last-login.sh; chmod 755 /usr/local/lib/chain/last-login.sh"

# Users and groups that are in no file of /etc, and a store for one of those groups alone.
NSS = """mkdir -p /var/lib/extrausers && sed -i 's/^\\(passwd\\|group\\):.*/& extrausers/' /etc/nsswitch.conf
printf 'alice:x:3000:3000::/:/bin/false\\nbob:x:3001:3001::/:/bin/false\\n' >/var/lib/extrausers/passwd
printf 'alice:x:3000:\\nbob:x:3001:\\nstaff:x:3100:alice,bob\\n' >/var/lib/extrausers/group
install -d -m 0700 -o 3000 -g 3000 @STORE@/alice && install -d -m 0700 -o 3001 -g 3001 @STORE@/bob
chown root:3100 @STORE@ && chmod 0770 @STORE@"""

# An LDAP server on a socket of its own in each backend.
SLAPD = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile /run/slapd.pid
database mdb
suffix "dc=example,dc=org"
rootdn "cn=admin,dc=example,dc=org"
rootpw x
maxsize 1048576
directory /etc/dovecot/ldap
"""
LDIF = """dn: dc=example,dc=org
objectClass: domain
dc: example

dn: uid=alice,dc=example,dc=org
objectClass: account
objectClass: posixAccount
uid: alice
cn: alice
userPassword: x
uidNumber: 6001
gidNumber: 6001
homeDirectory: @STORE@/alice

dn: uid=bob,dc=example,dc=org
objectClass: account
objectClass: posixAccount
uid: bob
cn: bob
userPassword: x
uidNumber: 6002
gidNumber: 6002
homeDirectory: @STORE@/bob

dn: cn=staff,dc=example,dc=org
objectClass: posixGroup
cn: staff
gidNumber: 6100
memberUid: alice
memberUid: bob
"""
LDAP_FILES = {"/etc/dovecot/slapd.conf": SLAPD, "/etc/dovecot/people.ldif": LDIF}
LDAP = """mkdir -m 0700 /etc/dovecot/ldap && slapadd -q -f /etc/dovecot/slapd.conf -l /etc/dovecot/people.ldif &&
slapd -f /etc/dovecot/slapd.conf -h ldapi://%2Frun%2Fldapi"""
LDAP23 = """uris = ldapi://%2Frun%2Fldapi
dn = cn=admin,dc=example,dc=org
dnpass = x
base = dc=example,dc=org
pass_attrs = uid=user,userPassword=password
pass_filter = (&(objectClass=posixAccount)(uid=%n))
user_filter = (&(objectClass=posixAccount)(uid=%n))
iterate_attrs = uid=user
iterate_filter = (objectClass=posixAccount)
default_pass_scheme = PLAIN
"""
BOTH_LDAP = "passdb {\n  driver = ldap\n  args = /etc/dovecot/ldap.conf\n}\nuserdb {\n  driver = ldap\n  args = /etc/dovecot/ldap.conf\n}\n"

LDAP24 = """ldap_uris = ldapi://%2Frun%2Fldapi
ldap_auth_dn = cn=admin,dc=example,dc=org
ldap_auth_dn_password = x
ldap_base = dc=example,dc=org
passdb ldap {
  ldap_filter = (&(objectClass=posixAccount)(uid=%{user | username}))
  fields {
    user = %{ldap:uid}
    password = %{ldap:userPassword}
  }
  default_password_scheme = PLAIN
}
userdb ldap {
  ldap_filter = (&(objectClass=posixAccount)(uid=%{user | username}))
  ldap_iterate_filter = (objectClass=posixAccount)
  ldap_iterate_fields {
    user = %{ldap:uid}
  }
  fields {
@FIELDS@  }
}
"""


def ldap24(*fields):
    """What Dovecot 2.4 asks the LDAP server."""
    return LDAP24.replace("@FIELDS@", "".join(f"    {field}\n" for field in fields))


def rows(mails, fields=""):
    """A passwd-file: alice and bob with their homes and more fields."""
    return "".join(f"{user}:{{PLAIN}}x:5000:5000::{mails}/{user.split('@')[1]}/{user.split('@')[0]}::{fields}\n" for user in USERS)


def small_files(location, databases):
    """Files that include each other."""
    return {
        "/etc/dovecot/conf.d/10-mail.conf": location + "\nfirst_valid_uid = 5000\nlast_valid_uid = 5000\n" + INBOX,
        "/etc/dovecot/conf.d/10-auth.conf": "auth_mechanisms = plain login\n!include auth-passwdfile.inc\n",
        "/etc/dovecot/conf.d/auth-passwdfile.inc": databases,
        "/etc/dovecot/conf.d/20-imap.conf": "service imap {\n}\nprotocol imap {\n  mail_max_userip_connections = 20\n}\n",
        "/etc/dovecot/userdb": rows("@STORE@").replace("::\n", "/home::\n"),
    }


CLUSTERS = [
    # mailcow: SQL returns the location, another script is there already, other users' folders are shared.
    *both(
        "SQL that returns each location, a post-login script and shared folders",
        "no_wrapper",
        text={"2.3": HEAD23 + """
mail_home = @STORE@/%d/%n
mail_location = maildir:~/
mail_plugins = quota acl
first_valid_uid = 5000
mail_shared_explicit_inbox = yes
namespace inbox {
  inbox = yes
  location =
  separator = /
  mailbox Trash {
    auto = subscribe
    special_use = \\Trash
  }
  prefix =
}
namespace {
  type = shared
  separator = /
  prefix = Shared/%%u/
  location = maildir:%%h/:INDEX=~/Shared/%%u
  subscriptions = no
  list = children
}
protocol imap {
  mail_plugins = quota imap_quota acl imap_acl
}
plugin {
  acl = vfile
  acl_shared_dict = file:@STORE@/shared-mailboxes.db
}
""" + LAST_LOGIN + BOTH_SQL, "2.4": HEAD24 + """
mail_home = @STORE@/%{user | domain}/%{user | username}
mail_driver = maildir
mail_path = ~/
mail_plugins {
  quota = yes
  acl = yes
}
first_valid_uid = 5000
mail_shared_explicit_inbox = yes
namespace inbox {
  inbox = yes
  separator = /
  mailbox Trash {
    auto = subscribe
    special_use = \\Trash
  }
  prefix =
}
namespace shared {
  type = shared
  separator = /
  prefix = Shared/$user/
  mail_path = %{owner_home}/
  mail_index_path = ~/Shared/%{owner_user}
  subscriptions = no
  list = children
}
protocol imap {
  mail_plugins {
    imap_quota = yes
    imap_acl = yes
  }
}
acl_driver = vfile
acl_sharing_map {
  dict file {
    path = @STORE@/shared-mailboxes.db
  }
}
""" + LAST_LOGIN + sql24("'maildir' AS mail_driver, '~/Maildir' AS mail_path, '@STORE@/index/%{user}' AS mail_index_path, 5000 AS uid, 5000 AS gid, '@STORE@/%{user | domain}/%{user | username}' AS home")},
        files={"/etc/dovecot/sql.conf": SQL23 + PASSWORD + ITERATE
               + f"user_query = SELECT 'maildir:~/Maildir:INDEX=@STORE@/index/%u' AS mail, 5000 AS uid, 5000 AS gid, '@STORE@/%d/%n' AS home, '*:bytes=0' AS quota_rule {FROM}\n"},
        run=[SQL, CHAIN],
        users=USERS, ask=(),
        by_hand={"no_list_index": f"sed -i 's|/%u. AS mail|/%u:LISTINDEX={HASH23}\\o047 AS mail|' /etc/dovecot/sql.conf"},
    ),
    # iRedMail: namespaces without names, the home in lower case, an INDEX that is the store, valid uids of one user only.
    *both(
        "SQL, and the home directory in the location",
        "no_location",
        text={"2.3": HEAD23 + """
mail_uid = 5000
mail_gid = 5000
first_valid_uid = 5000
last_valid_uid = 5000
auth_default_realm = example.org
mail_location = maildir:%Lh/Maildir/:INDEX=%Lh/Maildir/
namespace {
  type = private
  separator = /
  prefix =
  inbox = yes
  mailbox Drafts {
    auto = subscribe
    special_use = \\Drafts
  }
}
namespace {
  type = shared
  separator = /
  prefix = Shared/%%u/
  location = maildir:%%Lh/Maildir/:INDEX=%%Lh/Maildir/Shared/%%Ld/%%Ln
  subscriptions = yes
  list = children
}
service imap-login {
  service_count = 1
  process_limit = 500
}
""" + BOTH_SQL, "2.4": HEAD24 + """
mail_uid = 5000
mail_gid = 5000
first_valid_uid = 5000
last_valid_uid = 5000
auth_default_domain = example.org
mail_driver = maildir
mail_path = %{home | lower}/Maildir/
mail_index_path = %{home | lower}/Maildir/
namespace inbox {
  type = private
  separator = /
  prefix =
  inbox = yes
  mailbox Drafts {
    auto = subscribe
    special_use = \\Drafts
  }
}
namespace shared {
  type = shared
  separator = /
  prefix = Shared/$user/
  mail_path = %{owner_home | lower}/Maildir/
  mail_index_path = %{owner_home | lower}/Maildir/Shared/%{owner_user | domain | lower}/%{owner_user | username | lower}
  subscriptions = yes
  list = children
}
service imap-login {
  restart_request_count = 1
  process_limit = 500
}
""" + sql24("'@STORE@/' || domain || '/' || name AS home")},
        files={"/etc/dovecot/sql.conf": SQL23 + PASSWORD + ITERATE + f"user_query = SELECT '@STORE@/' || domain || '/' || name AS home, '*:bytes=0' AS quota_rule {FROM}\n"},
        run=[SQL], users=USERS, ask=(),
    ),
    # docker-mailserver: a container with a passwd-file, files that include each other, and as little /dev/shm as containers get.
    *both(
        "a container with a passwd-file and a small /dev/shm",
        "space",
        text={version: head + "!include conf.d/*.conf\n" for version, head in (("2.3", HEAD23), ("2.4", HEAD24))},
        files={
            "2.3": small_files("mail_location = maildir:@STORE@/%d/%n", """passdb {
  driver = passwd-file
  mechanisms = plain login
  args = scheme=PLAIN username_format=%u /etc/dovecot/userdb
}
userdb {
  driver = passwd-file
  args = username_format=%u /etc/dovecot/userdb
  default_fields = uid=vmail gid=vmail home=@STORE@/%d/%n/home/
}
"""),
            "2.4": small_files("mail_driver = maildir\nmail_path = @STORE@/%{user | domain}/%{user | username}", """passdb passwd-file {
  mechanisms_filter = plain login
  default_password_scheme = PLAIN
  passwd_file_path = /etc/dovecot/userdb
}
userdb passwd-file {
  passwd_file_path = /etc/dovecot/userdb
  fields {
    uid:default = vmail
    gid:default = vmail
    home:default = @STORE@/%{user | domain}/%{user | username}/home/
  }
}
"""),
        },
        run=["mount -t tmpfs -o size=64m,mode=1777 tmpfs /dev/shm", "install -d -m 0700 -o vmail /dev/shm/dovecot-listindex"],
        users=USERS, ask=(),
    ),
    # chatmail: a dict for the userdb, many processes, hibernation.
    *v23(
        "a dict as userdb, many processes and hibernation",
        "hibernation",
        text=HEAD23 + """
mail_home = @STORE@/%u
mail_location = maildir:@STORE@/%u
mail_plugins = quota
imap_hibernate_timeout = 30s
default_client_limit = 20000
first_valid_uid = 5000
passdb {
  driver = dict
  args = /etc/dovecot/auth.conf
}
userdb {
  driver = dict
  args = /etc/dovecot/auth.conf
}
service imap {
  process_limit = 50000
  unix_listener imap-master {
    user = dovecot
  }
}
""" + INBOX,
        files={
            "/etc/dovecot/auth.conf": "uri = file:/etc/dovecot/auth.dict\niterate_disable = yes\ndefault_pass_scheme = plain\npassword_key = passdb/%u\nuser_key = userdb/%u\n",
            "/etc/dovecot/auth.dict": "".join(
                f"shared/passdb/{user}\n" '{"password":"x"}\n' f"shared/userdb/{user}\n" '{"uid":"5000","gid":"5000","home":"@STORE@/' + user + '"}\n' for user in USERS
            ),
        },
        users=USERS,
    ),
    # There is no dict in Dovecot 2.4, and Lua in its place is a package of its own. Nobody can be listed here either.
    *v24(
        "a userdb that lists nobody, many processes and hibernation",
        "hibernation",
        text=HEAD24 + """
mail_home = @STORE@/%{user}
mail_driver = maildir
mail_path = @STORE@/%{user}
mail_plugins {
  quota = yes
}
imap_hibernate_timeout = 30s
default_client_limit = 20000
first_valid_uid = 5000
passdb static {
  password = x
}
userdb static {
  fields {
    uid = 5000
    gid = 5000
    home = @STORE@/%{user}
  }
}
service imap {
  process_limit = 50000
  unix_listener imap-master {
    user = dovecot
  }
}
""" + INBOX,
        users=USERS,
    ),
    # Mailu: everything is in dovecot.conf, the userdb knows only that somebody exists; mail belongs to a group, too.
    *both(
        "a userdb that knows nothing but names, and a group for all mail",
        "access_groups",
        text={"2.3": HEAD23 + """
mail_uid = vmail
mail_gid = vmail
mail_access_groups = archive
mail_home = @STORE@/%u
mail_location = maildir:@STORE@/%u
maildir_stat_dirs = yes
first_valid_uid = 5000
mail_plugins = quota
passdb {
  driver = static
  args = password=x
}
userdb {
  driver = passwd-file
  args = username_format=%u /etc/dovecot/users
}
service imap-login {
  service_count = 1
  client_limit = 1
}
""" + INBOX, "2.4": HEAD24 + """
mail_uid = vmail
mail_gid = vmail
mail_access_groups = archive
mail_home = @STORE@/%{user}
mail_driver = maildir
mail_path = @STORE@/%{user}
maildir_stat_dirs = yes
first_valid_uid = 5000
mail_plugins {
  quota = yes
}
passdb static {
  password = x
}
userdb passwd-file {
  passwd_file_path = /etc/dovecot/users
}
service imap-login {
  restart_request_count = 1
  client_limit = 1
}
""" + INBOX},
        files={"/etc/dovecot/users": "".join(f"{user}::::::\n" for user in USERS)},
        users=USERS,
    ),
    # FreedomBox: LDAP, one mail user, names in lower case.
    *both(
        "LDAP, and one mail user for all",
        "no_location",
        text={"2.3": HEAD23 + """
auth_username_format = %Ln
mail_location = maildir:~/Maildir
first_valid_uid = 8
""" + INBOX + BOTH_LDAP, "2.4": HEAD24 + """
auth_username_format = %{user | username | lower}
mail_driver = maildir
mail_path = ~/Maildir
first_valid_uid = 8
""" + INBOX + ldap24("uid = vmail", "gid = vmail", "home = @STORE@/%{user | username}")},
        files={**LDAP_FILES, "/etc/dovecot/ldap.conf": LDAP23 + "user_attrs = =uid=vmail,=gid=vmail,=home=@STORE@/%n\n"},
        run=[LDAP], users=("alice", "bob"), ask=(),
    ),
    # Large sites: LDAP, and each user has a uid of his own.
    *both(
        "LDAP, and a uid for each user",
        "no_location",
        text={"2.3": HEAD23 + "mail_location = mdbox:~/mdbox\nfirst_valid_uid = 1000\n" + INBOX + BOTH_LDAP, "2.4": HEAD24 + """
mail_driver = mdbox
mail_path = ~/mdbox
first_valid_uid = 1000
""" + INBOX + ldap24("uid = %{ldap:uidNumber}", "gid = %{ldap:gidNumber}", "home = %{ldap:homeDirectory}")},
        files={**LDAP_FILES, "/etc/dovecot/ldap.conf": LDAP23 + "user_attrs = uidNumber=uid,gidNumber=gid,homeDirectory=home\n"},
        run=[LDAP, "mkdir -p @STORE@/alice @STORE@/bob; chown 6001 @STORE@/alice; chown 6002 @STORE@/bob"], users=("alice", "bob"), ask=(), tmpfiles="",
    ),
    # The NixOS mail server: one file, INDEX apart from the store, a group that is the mail user's own.
    *both(
        "one file, an INDEX apart, and the mail user's own group",
        "no_location",
        text={"2.3": HEAD23 + """
mail_location = maildir:@STORE@/%d/%n/mail:LAYOUT=fs:INDEX=@STORE@/indices/%d/%n
mail_access_groups = vmail
first_valid_uid = 5000
passdb {
  driver = passwd-file
  args = /etc/dovecot/users
}
userdb {
  driver = passwd-file
  args = /etc/dovecot/users
  default_fields = home=@STORE@/%d/%n uid=5000 gid=5000
}
protocol imap {
  mail_max_userip_connections = 100
  mail_plugins = imap_sieve
}
""" + INBOX, "2.4": HEAD24 + """
mail_driver = maildir
mail_path = @STORE@/%{user | domain}/%{user | username}/mail
mail_index_path = @STORE@/indices/%{user | domain}/%{user | username}
mailbox_list_layout = fs
mail_access_groups = vmail
first_valid_uid = 5000
passdb passwd-file {
  passwd_file_path = /etc/dovecot/users
}
userdb passwd-file {
  passwd_file_path = /etc/dovecot/users
  fields {
    home:default = @STORE@/%{user | domain}/%{user | username}
    uid:default = 5000
    gid:default = 5000
  }
}
protocol imap {
  mail_max_userip_connections = 100
  mail_plugins {
    imap_sieve = yes
  }
}
""" + INBOX},
        files={"/etc/dovecot/users": "".join(f"{user}:{{PLAIN}}x::::::\n" for user in USERS)},
        users=USERS, ask=(),
    ),
    # Postfixadmin's, with one query for a login.
    *both(
        "SQL with a prefetch",
        "prefetch",
        text={"2.3": HEAD23 + "mail_location = maildir:~/Maildir\nfirst_valid_uid = 5000\n" + INBOX
        + BOTH_SQL.replace("userdb {", "userdb {\n  driver = prefetch\n}\nuserdb {", 1), "2.4": HEAD24 + """
mail_driver = maildir
mail_path = ~/Maildir
first_valid_uid = 5000
""" + INBOX + sql24("5000 AS uid, 5000 AS gid, '@STORE@/%{user}' AS home", ", 5000 AS userdb_uid, 5000 AS userdb_gid, '@STORE@/%{user}' AS userdb_home", "userdb prefetch {\n}\n")},
        files={"/etc/dovecot/sql.conf": SQL23 + ITERATE
               + f"password_query = SELECT name || '@' || domain AS user, password, 5000 AS userdb_uid, 5000 AS userdb_gid, '@STORE@/%u' AS userdb_home {FROM}\n"
               + f"user_query = SELECT 5000 AS uid, 5000 AS gid, '@STORE@/%u' AS home {FROM}\n"},
        run=[SQL], users=USERS, ask=(),
    ),
    # ISPConfig's and others': each row of a passwd-file has its own location.
    *v23(
        "a passwd-file with a location in each row",
        "no_list_index",
        text=HEAD23 + """
first_valid_uid = 5000
passdb {
  driver = passwd-file
  args = /etc/dovecot/users
}
userdb {
  driver = passwd-file
  args = /etc/dovecot/users
}
""" + INBOX,
        files={"/etc/dovecot/users": rows("@STORE@", "userdb_mail=maildir:~/Maildir")},
        users=USERS, ask=(),
        by_hand={"no_list_index": f"sed -i 's|:~/Maildir$|:~/Maildir:LISTINDEX={HASH23}|' /etc/dovecot/users"},
    ),
    *v24(
        "a passwd-file with a location in each row",
        "no_location",
        text=HEAD24 + """
first_valid_uid = 5000
passdb passwd-file {
  passwd_file_path = /etc/dovecot/users
}
userdb passwd-file {
  passwd_file_path = /etc/dovecot/users
}
""" + INBOX,
        files={"/etc/dovecot/users": rows("@STORE@", "userdb_mail_driver=maildir userdb_mail_path=~/Maildir")},
        users=USERS, ask=(),
    ),
    # A stock Debian 13, whose own users have mail in mboxes: paths with the home, another inbox.
    *v24(
        "a stock Debian's own users",
        "no_location",
        text=HEAD24 + """
mail_driver = mbox
mail_home = @STORE@/%{user | username}
mail_path = %{home}/mail
mail_inbox_path = @STORE@/spool-%{user}
mail_privileged_group = archive
namespace inbox {
  inbox = yes
  separator = /
}
passdb static {
  password = x
}
userdb passwd {
}
""",
        run=["for user in alice bob; do useradd -d @STORE@/$user $user; mkdir -p @STORE@/$user; chown $user: @STORE@/$user; done"],
        users=("alice", "bob"), tmpfiles="",
    ),
    # A hardened unit: /proc shows nothing but the own processes.
    *both(
        "a unit that hides other processes and the kernel's files in /proc",
        None,
        start="unshare --mount sh -c 'mount -t proc -o hidepid=2,subset=pid proc /proc; exec dovecot'",
    ),
    # A container without root: Dovecot, its services and mail all have one uid.
    *v24(
        "a container in which nobody is root",
        "no_location",
        text=HEAD24 + """
mail_driver = maildir
mail_path = ~/mail
first_valid_uid = 5000
default_internal_user = vmail
default_login_user = vmail
default_internal_group = vmail
mail_uid = vmail
mail_gid = vmail
mail_home = @STORE@/%{user}
passdb static {
  password = x
}
userdb static {
  fields {
    home = @STORE@/%{user}
  }
}
service anvil {
  chroot =
}
service imap-login {
  chroot =
}
service pop3-login {
  chroot =
}
""" + INBOX,
        start="chown -R vmail /run/dovecot; touch /var/log/dovecot.log; chown vmail /var/log/dovecot.log; exec setpriv --reuid 5000 --regid 5000 --clear-groups dovecot",
    ),
    # Directory services: users are the system's, but not in /etc/passwd, and their groups not in /etc/group.
    *both(
        "users and groups of a directory service",
        "groups",
        edit={
            "2.3": [(STATIC23, STATIC23.replace("static", "passwd").replace("args = uid=vmail gid=vmail", "override_fields =")), ("  user = vmail\n", "")],
            "2.4": [("userdb static", "userdb passwd"), ("    uid = vmail\n    gid = vmail\n", ""), ("  user = vmail\n", "")],
        },
        run=[NSS], users=("alice", "bob"), ask=("alice",), tmpfiles=EVERYBODY,
    ),
]
