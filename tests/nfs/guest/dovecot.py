"""The Dovecots of a backend. Several kinds may run side by side, each with its own ports and list indexes."""

import hashlib
from dataclasses import dataclass

VMAIL = 5000  # uid and gid of all mail users
MAIL = "/srv/mail"  # where the NFS mount is
LOG = "/var/log/dovecot.log"
WRAPPER = "/opt/lab/nfs-hostchange-login"


@dataclass(frozen=True)
class Kind:
    """One way to set Dovecot up."""

    name: str
    port: int  # IMAP's; POP3 has the next one
    script: str = ""  # the post-login script with its arguments
    user: str = "root"  # who the post-login script runs as
    root: str = "mdbox:~/mdbox"
    local: bool = True  # the list index is in /dev/shm, not on NFS

    @property
    def location(self):
        return self.root + (f":LISTINDEX=/dev/shm/{self.name}/%2.256Nu/%u/dovecot.list.index" if self.local else "")

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
        """What Dovecot makes of LISTINDEX: %2.256Nu is eight bytes of the name's MD5, modulo 256, in hex."""
        bucket = int.from_bytes(hashlib.md5(user.encode()).digest()[:8], "big") % 256
        return f"/dev/shm/{self.name}/{bucket:02x}/{user}"

    def location_of(self, user):
        """The location as the userdb hands it to a post-login script: expanded but for ~/."""
        return self.location.replace("%2.256Nu/%u", self.list_index_dir(user).removeprefix(f"/dev/shm/{self.name}/"))

    def config(self):
        """dovecot.conf."""
        services = ""
        for service in ("imap", "pop3") if self.script else ():
            services += f"""
service {service} {{
  executable = {service} {service}-postlogin
}}
service {service}-postlogin {{
  executable = script-login {self.script}
  user = {self.user}
  unix_listener {service}-postlogin {{
  }}
}}
"""
        return f"""
base_dir = /run/{self.name}/base
state_dir = /run/{self.name}/state
log_path = {LOG}
protocols = imap pop3 lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
mail_location = {self.location}
mmap_disable = yes
mail_fsync = always
mailbox_list_index = yes
mailbox_list_index_very_dirty_syncs = yes
first_valid_uid = {VMAIL}
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid=vmail gid=vmail home={MAIL}/%u
  default_fields = mail_location={self.location}
}}
service imap-login {{
  service_count = 0
  inet_listener imap {{
    port = {self.port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {self.port + 1}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service lmtp {{
  unix_listener lmtp {{
  }}
}}
{services}
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
        Kind("without", 1470, local=False),
        # Maildir++ with its index files beside the mails.
        Kind("maildir", 1480, _wrapped("maildir"), root="maildir:~/Maildir"),
        # Controls: local list indexes with nothing that makes them safe, and with a plain stat.
        Kind("nothing", 1490),
        Kind("plain-stat", 1500, "/opt/lab/plain-stat.sh", user="vmail"),
    )
}
