"""The Dovecots of a backend. Several kinds may run side by side, each with its own ports and list indexes."""

import hashlib
import os
from dataclasses import dataclass

VMAIL = 5000  # uid and gid of all mail users
MAIL = "/srv/mail"  # where the NFS mount is
LOG = "/var/log/dovecot.log"
WRAPPER = "/opt/lab/nfs-hostchange-login"

# Where the Debian with each Dovecot is: the machine's own first, and the other.
ROOTS = dict(item.split("=") for item in os.environ.get("DOVECOTS", "").split())


@dataclass(frozen=True)
class Kind:
    """One way to set Dovecot up."""

    name: str
    port: int
    script: str = ""  # the post-login script with its arguments
    user: str = "root"  # who the post-login script runs as
    root: str = "mdbox:~/mdbox"
    local: bool = True  # the list index is in /dev/shm, not on NFS
    dovecots: tuple = ()  # which Dovecot each backend has, if not the machine's own
    plugin: bool = False  # the mail plugin, and no post-login script

    @property
    def program(self):
        """The name of the process that a login waits for."""
        return "imap" if self.plugin else os.path.basename(WRAPPER)

    @property
    def socket(self):
        return f"/run/{self.name}/base/lmtp"

    @property
    def config_file(self):
        """Of the wrapper."""
        return f"/etc/dovecot/{self.name}.toml"

    def wrapper_config(self):
        """nfs-hostchange.toml: what the wrapper has to say goes to Dovecot's log."""
        migration = "true" if self.name.startswith("migrate") else "false"
        return f'migration = {migration}\n[log]\ntarget = "stderr"\n'

    def list_index_dir(self, user):
        """What Dovecot makes of it: %2.256Nu is eight bytes of the name's MD5, modulo 256, in hex."""
        bucket = int.from_bytes(hashlib.md5(user.encode()).digest()[:8], "big") % 256
        return f"/dev/shm/{self.name}/{bucket:02x}/{user}"

    def dovecot_of(self, backend):
        """Of the backend with that number, the first being 1."""
        return self.dovecots[backend - 1] if self.dovecots else next(iter(ROOTS))

    def fields(self, dovecot, list_index_dir):
        """What the userdb says of a user's mail."""
        list_index = f"{list_index_dir}/dovecot.list.index"
        if dovecot == "2.3":
            return {"mail_location": self.root + (f":LISTINDEX={list_index}" if self.local else "")}
        driver, path = self.root.split(":")
        prefix = list_index if self.local else "dovecot.list.index"
        return {"mail_driver": driver, "mail_path": path, "mailbox_list_index_prefix": prefix}

    def fields_of(self, dovecot, user):
        """The same as a post-login script gets it: expanded but for ~/."""
        return {name.upper(): value for name, value in self.fields(dovecot, self.list_index_dir(user)).items()}

    def config(self, dovecot):
        """dovecot.conf."""
        services = ""
        if self.script:
            services = f"""
service imap {{
  executable = imap imap-postlogin
}}
service imap-postlogin {{
  executable = script-login {self.script}
  user = {self.user}
  unix_listener imap-postlogin {{
  }}
}}
"""
        return f"""
{self.config_of_2_3() if dovecot == "2.3" else self.config_of_2_4()}
{self.config_of_plugin(dovecot) if self.plugin else ""}
base_dir = /run/{self.name}/base
state_dir = /run/{self.name}/state
log_path = {LOG}
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
auth_mechanisms = plain
mmap_disable = yes
mail_fsync = always
mailbox_list_index = yes
mailbox_list_index_very_dirty_syncs = yes
first_valid_uid = {VMAIL}
recipient_delimiter = +
lmtp_save_to_detail_mailbox = yes
lda_mailbox_autocreate = yes
service imap-login {{
  inet_listener imap {{
    port = {self.port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service lmtp {{
  unix_listener lmtp {{
  }}
}}
{services}
"""

    def config_of_plugin(self, dovecot):
        """What loads the mail plugin."""
        plugins = "mail_plugins = nfs_hostchange" if dovecot == "2.3" else "mail_plugins {\n  nfs_hostchange = yes\n}"
        migration = "plugin {\n  nfs_hostchange_migration = yes\n}" if self.name.startswith("migrate") else ""
        return f"mail_plugin_dir = /opt/lab/modules-{dovecot}\n{plugins}\n{migration}\n"

    def config_of_2_3(self):
        """What only Dovecot 2.3 understands."""
        (location,) = self.fields("2.3", f"/dev/shm/{self.name}/%2.256Nu/%u").values()
        return f"""
disable_plaintext_auth = no
mail_location = {location}
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid=vmail gid=vmail home={MAIL}/%u
  default_fields = mail_location={location}
}}
service imap-login {{
  service_count = 0
}}
"""

    def config_of_2_4(self):
        """What only Dovecot 2.4 understands."""
        hashed = "%{user | md5 | substr(0, 8) % 256 | hex(2)}/%{user}"
        fields = self.fields("2.4", f"/dev/shm/{self.name}/{hashed}")
        settings = "\n".join(f"{name} = {value}" for name, value in fields.items())
        copies = "\n".join(f"  {name} = $SET:{name}" for name in fields)
        return f"""
dovecot_config_version = 2.4.1
dovecot_storage_version = {"2.3.19" if "2.3" in self.dovecots else "2.4.1"}
auth_allow_cleartext = yes
{settings}
userdb_fields {{
{copies}
}}
passdb static {{
  password = secret
}}
userdb static {{
  fields {{
    uid = vmail
    gid = vmail
    home = {MAIL}/%{{user}}
  }}
}}
namespace inbox {{
  inbox = yes
}}
service imap-login {{
  restart_request_count = unlimited
}}
"""


def _wrapped(name):
    return f"{WRAPPER} --config=/etc/dovecot/{name}.toml"


KINDS = {
    kind.name: kind
    for kind in (
        # The program under test, started as root and as the mail user.
        Kind("root", 1430, _wrapped("root")),
        Kind("vmail", 1440, _wrapped("vmail"), user="vmail"),
        # The same with migration, and the Dovecot whose list indexes it migrates: no LISTINDEX, no program.
        Kind("migrate", 1450, _wrapped("migrate")),
        Kind("migrate-vmail", 1460, _wrapped("migrate-vmail"), user="vmail"),
        Kind("without", 1470, local=False, dovecots=("2.3", "2.3", "2.3")),
        # An upgrade: every backend has the new one, or one has not yet.
        Kind("2.4", 1510, _wrapped("2.4"), dovecots=("2.4", "2.4", "2.4")),
        Kind("mixed", 1520, _wrapped("mixed"), dovecots=("2.3", "2.4", "2.3")),
        Kind("migrate-mixed", 1530, _wrapped("migrate-mixed"), dovecots=("2.4", "2.3", "2.3")),
        # The plugin.
        Kind("plugin", 1550, plugin=True),
        Kind("plugin-2.4", 1580, plugin=True, dovecots=("2.4", "2.4", "2.4")),
        Kind("plugin-mixed", 1560, plugin=True, dovecots=("2.3", "2.4", "2.3")),
        Kind("migrate-plugin", 1570, plugin=True, dovecots=("2.3", "2.3", "2.3")),
        # Maildir++ with its index files beside the mails.
        Kind("maildir", 1480, _wrapped("maildir"), root="maildir:~/Maildir"),
        # Controls: local list indexes with nothing that makes them safe, and with a plain stat.
        Kind("nothing", 1490),
        Kind("nothing-mixed", 1540, dovecots=("2.3", "2.4", "2.3")),
        Kind("plain-stat", 1500, "/opt/lab/plain-stat.sh", user="vmail"),
    )
}
