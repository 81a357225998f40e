"""Two backends, a and b, over one mail store, each a real Dovecot with a list index of its own.

A Dovecot is the machine's own, or that of another system in a directory (a root).
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))
import mailclient  # noqa: E402

PLUGIN = "lib90_nfs_hostchange_plugin.so"
FIRST_UID = 200000
USERS = 200

# driver: location of 2.3, settings of 2.4
DRIVERS = {
    "mdbox": ("mdbox:~/mdbox", {"mail_driver": "mdbox", "mail_path": "~/mdbox"}),
    "sdbox": ("sdbox:~/sdbox", {"mail_driver": "sdbox", "mail_path": "~/sdbox"}),
    "Maildir++": ("maildir:~/Maildir", {"mail_driver": "maildir", "mail_path": "~/Maildir"}),
    "LAYOUT=fs": (
        "maildir:~/Maildir:LAYOUT=fs",
        {"mail_driver": "maildir", "mail_path": "~/Maildir", "mailbox_list_layout": "fs"},
    ),
    "mbox": (
        "mbox:~/mail:INBOX=~/inbox",
        {"mail_driver": "mbox", "mail_path": "~/mail", "mail_inbox_path": "~/inbox"},
    ),
}


class Machine:
    """A system with a Dovecot: this one, or the one in the directory ROOT."""

    def __init__(self, root=None):
        self.root = Path(root) if root else None
        self.version = self.run(["dovecot", "--version"]).stdout.split()[0]
        self.is_24 = self.version.startswith("2.4")

    def command(self, argv, hostname=None, etc=None):
        """ARGV there, with a name of the host and a directory /etc/dovecot of its own."""
        argv = [str(word) for word in argv]
        if etc:
            argv = ["sh", "-c", f'mount --bind {etc} /etc/dovecot && exec "$@"', "sh", *argv]
        if hostname:
            argv = ["sh", "-c", f'hostname {hostname} && exec "$@"', "sh", *argv]
        if self.root:
            mounts = "; ".join(
                f"mount --rbind {place} {self.root}{place}"
                for place in ("/proc", "/dev", "/tmp")
            )
            argv = ["sh", "-c", f'{mounts}; exec chroot {self.root} "$@"', "sh", *argv]
        if hostname or etc or self.root:
            argv = ["unshare", "--mount", "--uts", "--propagation", "private", *argv]
        return argv

    def run(self, argv, hostname=None, etc=None, check=True, **options):
        result = subprocess.run(
            self.command(argv, hostname, etc), capture_output=True, text=True, timeout=120, **options
        )
        if check and result.returncode != 0:
            raise Failed(f"{' '.join(map(str, argv))}: {result.returncode}: {result.stderr}{result.stdout}")
        return result


class Failed(Exception):
    """Something that should work did not."""


class Site:
    """OPTIONS: driver, plugin (its file, one for each backend, or None), more (lines of dovecot.conf), list_index (where, with
    @LOCAL@ for the backend's own directory), per_backend (a function from the name to more lines),
    one_uid (all users share one), toml (the configuration file), wrapper (its file, or that of another post-login program), arguments (its own), wrapped and
    plugged (the names of the backends that have it, or the plugin), modules (files of other plugins), users (how many there are),
    below (where the directories are made)."""

    def __init__(self, machines, **options):
        defaults = {"driver": "mdbox", "plugin": None, "more": "", "per_backend": lambda name: "", "modules": (), "users": USERS}
        self.options = {**defaults, "arguments": "--config=@DIR@/wrapper.toml", "below": "/tmp", **options}
        self.dir = Path(tempfile.mkdtemp(prefix="nfs-hostchange.", dir=self.options["below"]))
        self.shm = Path(tempfile.mkdtemp(prefix="nfs-hostchange.", dir="/dev/shm"))
        self.store = self.dir / "store"
        self.store.mkdir()
        for path, mode in ((self.dir, 0o711), (self.shm, 0o711), (self.store, 0o1777)):
            path.chmod(mode)
        self.users = 0
        self.backends = {}
        try:
            for name, machine in zip("ab", machines):
                self.backends[name] = Backend(self, name, machine)
            for backend in self.backends.values():
                backend.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def __getattr__(self, name):
        try:
            return self.__dict__["backends"][name]
        except KeyError:
            raise AttributeError(name) from None

    def new_user(self):
        self.users += 1
        return f"user{self.users}"

    def home(self, user):
        return self.store / user

    def uid_of(self, number):
        return FIRST_UID + (0 if self.options.get("one_uid") else number)

    def truth(self, user):
        return self.backends["a"].truth(user)

    def close(self):
        for backend in self.backends.values():
            backend.begin_to_stop()
        for backend in self.backends.values():
            backend.stop()
        for directory in (self.dir, self.shm):
            shutil.rmtree(directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Backend:
    """One Dovecot."""

    def __init__(self, site, name, machine):
        self.site, self.name, self.machine = site, name, machine
        self.dir = site.dir / name
        self.local = site.shm / name
        self.local.mkdir()
        self.local.chmod(0o1733)
        self.dir.mkdir()
        self.dir.chmod(0o711)
        self.hostname = f"{name}.example.org"
        self.etc = self.dir / "etc"
        self.etc.mkdir()
        self.configure_plugin()
        self.conf = self.dir / "dovecot.conf"
        self.log_file = self.dir / "log"
        with os.fdopen(os.open(self.log_file, os.O_CREAT | os.O_WRONLY, 0o666), "w"):
            self.log_file.chmod(0o666)
        wrapped = self.name in site.options.get("wrapped", ())
        users = "".join(
            f"user{i}:{{PLAIN}}pw:{site.uid_of(i)}:{site.uid_of(i)}::{site.store}/user{i}::"
            f"{self.userdb_fields(f'user{i}') if wrapped else ''}\n"
            for i in range(1, site.options["users"] + 1)
        )
        (self.dir / "users").write_text(users)
        self.plugin = site.options["plugin"] if self.name in site.options.get("plugged", "ab") else None
        if isinstance(self.plugin, dict):
            self.plugin = self.plugin[self.name]
        # What is executed after a login.
        self.post_login = ""
        if wrapped:
            # A copy: the build tree may be in a home that mail users cannot enter.
            program = Path(shutil.copy(site.options["wrapper"], self.dir))
            self.post_login = f"{program} {site.options['arguments'].replace('@DIR@', str(self.dir))}"
            (self.dir / "wrapper.toml").write_text('[log]\ntarget = "stderr"\n')
        self.install_modules(self.plugin)
        self.imap_port, self.pop3_port, self.lmtp_port = mailclient.free_ports(3)
        self.conf.write_text(self.configuration())
        self.process = None
        self.start()

    def userdb_fields(self, user):
        """What tells the wrapper where the list index is."""
        location, settings = DRIVERS[self.site.options["driver"]]
        list_index = f"{self.local}/{user}/dovecot.list.index"
        if not self.machine.is_24:
            return f"userdb_mail={location}:LISTINDEX={list_index}"
        settings = {**settings, "mailbox_list_index_prefix": list_index}
        return " ".join(f"userdb_{key}={value}" for key, value in settings.items())

    def install_modules(self, plugin):
        """A directory of its own with all of the system's plugins and ours."""
        modules = self.dir / "modules"
        modules.mkdir()
        root = self.machine.root or Path("/")
        for path in (root / "usr/lib/dovecot/modules").iterdir():
            (modules / path.name).symlink_to(Path("/usr/lib/dovecot/modules") / path.name)
        if plugin:
            shutil.copy(plugin, modules / PLUGIN)
        for module in self.site.options["modules"]:
            shutil.copy(module, modules)

    def configuration(self):
        options = self.site.options
        location, settings = DRIVERS[options["driver"]]
        list_index = options.get("list_index", "@LOCAL@/@USER@/dovecot.list.index")
        list_index = list_index.replace("@LOCAL@", str(self.local)) if list_index else ""
        more = options["more"] + "\n" + options["per_backend"](self.name)
        more = more.replace("@LOCAL@", str(self.local)).replace("@STORE@", str(self.site.store))
        common = f"""
base_dir = {self.dir}/run
state_dir = {self.dir}/run
instance_name = nfs-hostchange-plugin-{self.name}-{self.site.dir.name}
log_path = {self.log_file}
listen = 127.0.0.1
ssl = no
first_valid_uid = 1
mail_max_userip_connections = 300
mmap_disable = yes
mail_fsync = always
mailbox_list_index = yes
mailbox_list_index_very_dirty_syncs = yes
postmaster_address = postmaster@example.org
recipient_delimiter = +
lmtp_save_to_detail_mailbox = yes
lda_mailbox_autocreate = yes
mail_plugin_dir = {self.dir}/modules
"""
        ports = f"""
service imap-login {{
  inet_listener imap {{
    port = {self.imap_port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {self.pop3_port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {self.lmtp_port}
  }}
}}
service imap {{
  process_limit = 100
  {"executable = imap imap-postlogin" if self.post_login else ""}
}}
service imap-postlogin {{
  executable = script-login {self.post_login or "/bin/false"}
  process_limit = 100
  unix_listener imap-postlogin {{
  }}
}}
service auth {{
  unix_listener auth-userdb {{
    mode = 0666
  }}
}}
"""
        if self.machine.is_24:
            list_index = list_index.replace("@USER@", "%{user}")
            lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
            plugins = "mail_plugins {\n  nfs_hostchange = yes\n}\n" if self.plugin else ""
            return (
                "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n"
                f"{common}{ports}{plugins}{lines}"
                f"mail_home = {self.site.store}/%{{user}}\n"
                f"{'mailbox_list_index_prefix = ' if list_index else ''}{list_index}\n"
                "auth_allow_cleartext = yes\n"
                "protocols {\n  imap = yes\n  pop3 = yes\n  lmtp = yes\n}\n"
                "namespace inbox {\n  inbox = yes\n  separator = /\n}\n"
                f"passdb passwd-file {{\n  passwd_file_path = {self.dir}/users\n}}\n"
                f"userdb passwd-file {{\n  passwd_file_path = {self.dir}/users\n}}\n"
                f"{more}\n"
            )
        list_index = list_index.replace("@USER@", "%u")
        plugins = "mail_plugins = nfs_hostchange\n" if self.plugin else ""
        return (
            f"{common}{ports}{plugins}"
            "protocols = imap pop3 lmtp\nmail_nfs_storage = yes\nmail_nfs_index = yes\n"
            "disable_plaintext_auth = no\nauth_mechanisms = plain\n"
            f"mail_location = {location}{':LISTINDEX=' if list_index else ''}{list_index}\n"
            f"mail_home = {self.site.store}/%u\n"
            "namespace inbox {\n  inbox = yes\n  separator = /\n}\n"
            f"passdb {{\n  driver = passwd-file\n  args = {self.dir}/users\n}}\n"
            f"userdb {{\n  driver = passwd-file\n  args = {self.dir}/users\n}}\n"
            f"{more}\n"
        )

    def configure_plugin(self):
        if "toml" in self.site.options:
            (self.etc / "nfs-hostchange.toml").write_text(self.site.options["toml"])

    def begin_anew(self, **options):
        """With other OPTIONS."""
        self.stop()
        # Who was just starting complains of that.
        self.forget_log()
        self.site.options.update(options)
        self.plugin = self.site.options["plugin"]
        if self.plugin:
            shutil.copy(self.plugin, self.dir / "modules" / PLUGIN)
        self.configure_plugin()
        self.conf.write_text(self.configuration())
        self.start()
        self.wait_until_ready()

    def start(self):
        out = open(self.dir / "out", "w")
        self.process = subprocess.Popen(
            self.machine.command(["nice", "dovecot", "-F", "-c", self.conf], self.hostname, self.etc),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        out.close()

    def wait_until_ready(self):
        def ready():
            if self.process.poll() is not None:
                raise Failed(f"Dovecot ended: {(self.dir / 'out').read_text()}{self.log()}")
            try:
                mailclient.socket.create_connection(("127.0.0.1", self.imap_port), 1).close()
                return True
            except OSError:
                return False

        wait_until(ready, "Dovecot is ready")

    def begin_to_stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self):
        self.begin_to_stop()
        if self.process is None:
            return
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    # What a user does.

    def session(self, user):
        return mailclient.Session(self.imap_port, user)

    def imap(self, user, *commands):
        """One session; what its last command shows."""
        session = self.session(user)
        shown = [session.run(command) for command in commands]
        session.close()
        return shown[-1] if shown else []

    def look(self, user):
        return self.imap(user, "look")

    def lmtp(self, *recipients):
        """One transaction; LMTP answers for each recipient, which smtplib does not expect."""
        with mailclient.socket.create_connection(("127.0.0.1", self.lmtp_port), 60) as connection:
            file = connection.makefile("rwb")

            def expect(code, command=b""):
                file.write(command)
                file.flush()
                while True:
                    line = file.readline().decode()
                    if not line.startswith(code):
                        raise Failed(f"LMTP: {command!r}: {line}")
                    if line[3:4] != "-":
                        return

            expect("220")
            expect("250", b"LHLO a.example.org\r\n")
            expect("250", b"MAIL FROM:<a@example.org>\r\n")
            for recipient in recipients:
                expect("250", f"RCPT TO:<{recipient}>\r\n".encode())
            expect("354", b"DATA\r\n")
            expect("250", mailclient.MAIL + b".\r\n")
            for _ in recipients[1:]:
                expect("250")
            expect("221", b"QUIT\r\n")

    def lda(self, user, *options):
        self.run(
            ["/usr/lib/dovecot/dovecot-lda", "-c", self.conf, "-d", user, "-f", "a@example.org", *options],
            input=mailclient.MAIL.decode(),
        )

    def alone(self, user, *commands, strace=()):
        """An IMAP session without a client's connection, COMMANDS in the protocol's words; if STRACE, what
        that says of its system calls. Its exit status does not matter."""
        lines = "".join(f"{number} {command}\n" for number, command in enumerate((*commands, "LOGOUT")))
        argv = ["/usr/lib/dovecot/imap", "-c", self.conf, "-u", user]
        trace = self.dir / "trace"
        if strace:
            argv = ["strace", "-f", "-o", trace, *strace, *argv]
        self.run(argv, input=lines, check=False)
        return trace.read_text().splitlines() if strace else []

    def pop3_dele(self, user):
        session = mailclient.poplib.POP3("127.0.0.1", self.pop3_port, timeout=60)
        session.user(user)
        session.pass_("pw")
        session.dele(1)
        session.quit()

    def run(self, argv, **options):
        return self.machine.run(argv, self.hostname, self.etc, **options)

    def popen(self, argv, text):
        """ARGV begun, with TEXT as its input."""
        process = subprocess.Popen(self.machine.command(argv, self.hostname, self.etc), stdin=subprocess.PIPE)
        process.stdin.write(text)
        process.stdin.close()
        return process

    def doveadm(self, *argv, **options):
        return self.run(["doveadm", "-c", self.conf, *argv], **options).stdout

    def truth(self, user):
        """What is in the store, by a Dovecot without list index and without plugin."""
        options = ["-o", "mailbox_list_index=no"]
        if self.plugin:
            options += ["-o", "mail_plugins/nfs_hostchange=no" if self.machine.is_24 else "mail_plugins="]
        out = self.doveadm(*options, "-f", "tab", "mailbox", "status", "-u", user, "messages", "*", "*/*")
        return sorted({line.replace("\t", " ") for line in out.splitlines()[1:]})

    # What it leaves.

    def log(self):
        return self.log_file.read_text(errors="replace")

    def problems(self):
        """Lines of the log that say that something is wrong. Whatever the wrapper says is an error there, and a
        machine that is busy or sleeps is nobody's fault."""
        wrong = re.compile(r"(Error|Fatal|Panic|Warning): (?!nfs-hostchange: |Killed with signal 15|Time moved )")
        return [line for line in self.log().splitlines() if wrong.search(line)]

    def forget_log(self):
        os.truncate(self.log_file, 0)

    def processes_of(self, user):
        """This Dovecot's processes that run as USER, who has a uid of his own here. Other tests give the same uid."""
        uid = self.site.uid_of(int(user.removeprefix("user")))
        parents, of_user = {}, []
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                text = status.read_text()
                pid = int(status.parent.name)
                parents[pid] = int(re.search(r"^PPid:\t(\d+)$", text, re.MULTILINE)[1])
                if f"\nUid:\t{uid}\t" in text:
                    of_user.append(pid)

        def is_ours(pid):
            while pid not in (None, self.process.pid):
                pid = parents.get(pid)
            return pid is not None

        return [pid for pid in of_user if is_ours(pid)]

    def peak_memory(self, *argv):
        """The most kilobytes that `doveadm ARGV` had."""
        code = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        return int(self.run(["python3", "-c", code, "doveadm", "-c", self.conf, *argv]).stdout)

    def memory_over_time(self, *argv):
        """The kilobytes that `doveadm ARGV` has from one moment to the next."""
        argv = self.machine.command(["doveadm", "-c", self.conf, *argv], self.hostname, self.etc)
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        sizes = []
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            # Not of what executes it, and not of what is left of it.
            if "\nVmRSS:" in status and status.startswith("Name:\tdoveadm\n"):
                sizes.append(int(re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)[1]))
            time.sleep(0.005)
        if process.returncode != 0:
            raise Failed(f"{' '.join(map(str, argv))}: {process.returncode}")
        return sizes

    @contextlib.contextmanager
    def small_memory(self):
        """Its list indexes are on a tmpfs that is full, or is not, from one call to the next."""
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=1733", "tmpfs", self.local], check=True)

        def fill(full=True):
            filler = self.local / "filler"
            filler.unlink(missing_ok=True)
            if full:
                with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))

        try:
            # The Dovecot that runs already does not see the new mount.
            self.stop()
            # Who was just starting complains of that.
            self.forget_log()
            self.start()
            self.wait_until_ready()
            yield fill
        finally:
            self.stop()
            subprocess.run(["umount", self.local], check=True)

    def has_list_index(self, user):
        return (self.local / user / "dovecot.list.index.log").exists()


def wait_until(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"not had in time: {what}")
        time.sleep(0.02)
