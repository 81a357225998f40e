"""One Dovecot host: a process with its own network, mount and UTS namespaces, and what it is asked to do there."""

import ctypes
import hashlib
import os
import pickle
import re
import socket
import struct
import subprocess
import time
import traceback
from dataclasses import dataclass

import imap
import server
from dovecot import KINDS, LOG, MAIL, ROOTS, VMAIL, WRAPPER

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWNET = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)


def wait_until(condition, what, seconds=60):
    """Polls until the condition holds; says what did not come if it never does."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds} s in vain: {what}")
        time.sleep(0.02)


class Backend:
    """What runs inside the namespaces. Methods without an underscore are called from outside by name."""

    def __init__(self, name, number):
        self.name = name
        self.number = number
        self.dovecots = {}
        self.clients = []

    # -- the host itself

    def _enter(self):
        if libc.unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS):
            raise OSError(ctypes.get_errno(), "unshare")
        socket.sethostname(self.name)
        server.run("mount", "--make-rprivate", "/")
        for directory, mode in (("/run", "0755"), ("/var/log", "0755"), ("/tmp", "1777"), ("/dev/shm", "1777")):
            server.run("mount", "-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", directory)
        # A mount point of its own, for the cases that look at it with nothing mounted.
        os.makedirs(os.path.dirname(MAIL), exist_ok=True)
        server.run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", os.path.dirname(MAIL))
        os.mkdir(MAIL)
        server.run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/etc/dovecot")
        for kind in KINDS.values():
            with open(kind.config_file, "w") as file:
                file.write(kind.wrapper_config())
        self._enter_roots()

    def _enter_roots(self):
        """Lets the other Debian see this host's files, and every mount that is still to come on them."""
        server.run("mount", "--make-shared", os.path.dirname(MAIL))
        for root in ROOTS.values():
            if root != "/":
                for directory in ("/dev", "/proc", "/run", "/tmp", "/var/log", "/etc/dovecot", "/opt/lab", os.path.dirname(MAIL)):
                    server.run("mount", "--rbind", directory, root + directory)

    def connect(self):
        """Called once the other end has moved this host's network interface in."""
        server.run("ip", "link", "set", "lo", "up")
        server.run("ip", "addr", "add", f"10.9.0.{10 + self.number}/24", "dev", "eth0")
        server.run("ip", "link", "set", "eth0", "up")

    def mount(self, version, options, export="mail"):
        # NLM is of no use here: no program under test locks a file on NFS in a way another backend must see.
        extra, root = (",nolock", "/export") if version == "3" else ("", "")
        server.run("mount", "-t", "nfs", "-o", f"vers={version},hard,{options}{extra}", f"{server.ADDRESS}:{root}/{export}", MAIL)

    def unmount(self):
        wait_until(lambda: subprocess.run(["umount", MAIL], capture_output=True).returncode == 0, f"umount {MAIL}")

    # -- Dovecot and the wrapper

    def _need(self, kind):
        """Starts that Dovecot unless it runs already."""
        if kind.name in self.dovecots:
            return
        dovecot = kind.dovecot_of(self.number)
        os.makedirs(f"/run/{kind.name}/state")
        with open(f"/run/{kind.name}/dovecot.conf", "w") as file:
            file.write(kind.config(dovecot))
        command = ["chroot", ROOTS[dovecot], "dovecot", "-F", "-c", f"/run/{kind.name}/dovecot.conf"]
        with open(LOG, "ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.dovecots[kind.name] = process

        def answers():
            if process.poll() is not None:
                raise RuntimeError(f"Dovecot {kind.name} ended: {self.logs(0)}")
            return os.path.exists(kind.socket) and imap.greets(kind.port)

        wait_until(answers, f"Dovecot {kind.name} answers")

    def stop_dovecots(self):
        """For the cases that Dovecot itself does not survive, or must not see."""
        for process in self.dovecots.values():
            process.terminate()
        for name, process in self.dovecots.items():
            process.wait()
            server.run("rm", "-r", f"/run/{name}")
        self.dovecots = {}

    def log_size(self):
        return os.path.getsize(LOG) if os.path.exists(LOG) else 0

    def logs(self, start):
        """Dovecot's log, which takes the wrapper's too, from an offset on."""
        if not os.path.exists(LOG):
            return ""
        with open(LOG, "rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace")

    def session(self, kind, user, *commands):
        """A whole IMAP session: log in, the commands, log out. What each of them returned."""
        self._need(KINDS[kind])
        with imap.Imap(KINDS[kind].port, user) as client:
            results = [getattr(client, name)(*arguments) for name, *arguments in commands]
        # The plugin looks at the claim once more after the connection is closed.
        master = self.dovecots[kind].pid
        wait_until(lambda: not KINDS[kind].plugin or "imap" not in children(master), "the mail process ends")
        return results

    def open_session(self, kind, user):
        """Logs in and stays, until close_sessions; returns what in_session calls it."""
        self._need(KINDS[kind])
        self.clients.append(imap.Imap(KINDS[kind].port, user))
        return len(self.clients) - 1

    def in_session(self, number, command, *arguments):
        return getattr(self.clients[number], command)(*arguments)

    def close_sessions(self):
        while self.clients:
            self.clients.pop().logout()

    def deliver(self, kind, user, text):
        self._need(KINDS[kind])
        imap.lmtp(KINDS[kind].socket, user, text)

    def login(self, kind, user, at=0.0):
        """A login by hand: the wrapper with env(1) as its program, or a mail process that lists the folders.

        at: when to start, on the clock of time.monotonic(); the process is ready and waits for that.
        """
        kind = KINDS[kind]
        return (self._login_of_plugin if kind.plugin else self._login_of_wrapper)(kind, user, at)

    def _login_of_plugin(self, kind, user, at):
        self._need(kind)
        logged = self.log_size()
        command = ["chroot", ROOTS[kind.dovecot_of(self.number)], "/usr/lib/dovecot/imap", "-c", f"/run/{kind.name}/dovecot.conf", "-u", user]
        began = max(at, time.monotonic())
        time.sleep(max(0, at - time.monotonic()))
        done = subprocess.run(command, input=b'a LIST "" *\nb LOGOUT\n', stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        # Without a master it logs to standard error.
        answered = done.stdout.decode(errors="replace")
        said = "\n".join(line for line in (answered + self.logs(logged)).splitlines() if "nfs_hostchange" in line)
        if "b OK" not in answered:
            said += f"\nimap ended with {done.returncode}: {answered}"
        return Outcome(self.record(kind.name, user) is not None, said, began, time.monotonic())

    def _login_of_wrapper(self, kind, user, at):
        fields = kind.fields_of(kind.dovecot_of(self.number), user)
        environment = {
            "USER": user,
            "HOME": f"{MAIL}/{user}",
            "UID": str(VMAIL),
            "GID": str(VMAIL),
            **fields,
            "USERDB_KEYS": " ".join(("HOME", "UID", "GID", *fields, "")),
        }
        with open("/tmp/wrapper.out", "w+b") as output, open("/tmp/wrapper.log", "w+b") as log:
            began = max(at, time.monotonic())
            pid = os.fork()
            if pid == 0:
                try:
                    os.chdir("/")
                    os.umask(0o077)
                    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
                    os.dup2(output.fileno(), 1)
                    os.dup2(log.fileno(), 2)
                    if kind.user == "vmail":
                        os.setgroups([])
                        os.setgid(VMAIL)
                        os.setuid(VMAIL)
                    time.sleep(max(0, at - time.monotonic()))
                    os.execve(WRAPPER, [WRAPPER, f"--config={kind.config_file}", "/usr/bin/env"], environment)
                finally:
                    os._exit(126)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            output.seek(0)
            log.seek(0)
            said = log.read().decode(errors="replace")
            with open(LOG, "a") as file:
                file.write(said)
            if status:
                raise RuntimeError(f"the wrapper ended with {status}: {said}")
            seen = dict(line.split("=", 1) for line in output.read().decode(errors="replace").splitlines())
        vouched = all(seen.get(name) == value for name, value in fields.items())
        return Outcome(vouched, said, began, time.monotonic())

    # -- what can be seen from here

    def rpcs(self):
        """Every RPC sent for the mail mount so far, by name, without the kernel's own renewals of its lease."""
        counts = {}
        inside = False
        with open("/proc/self/mountstats") as file:
            for line in file:
                if line.startswith("device "):
                    inside = f" mounted on {MAIL} " in line
                    continue
                found = inside and re.match(r"\s*([A-Z_0-9]+): (\d+) ", line)
                if found and found[1] not in ("NULL", "RENEW", "SEQUENCE") and int(found[2]):
                    counts[found[1]] = int(found[2])
        return counts

    def record(self, kind, user):
        """LISTINDEX/.lasthost: the claim's "inode seconds.nanoseconds", or None if there is none or it is empty."""
        try:
            with open(f"{KINDS[kind].list_index_dir(user)}/.lasthost", "rb") as file:
                lines = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return None
        is_record = len(lines) == 2 and lines[0].startswith("2 ")
        return " ".join(lines[1].split()[:2]) if is_record else None

    def list_index_files(self, kind, user):
        """Name -> checksum of every file of the user's local list index."""
        directory = KINDS[kind].list_index_dir(user)
        return checksums(directory)

    def sh(self, command):
        return server.run("bash", "-ec", command)


@dataclass(frozen=True)
class Outcome:
    """Of a login by hand."""

    vouched: bool
    log: str
    began: float  # on the clock of time.monotonic()
    ended: float


def checksums(directory):
    """Of all list index files in a directory."""
    files = {}
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        if name.startswith("dovecot.list.index"):
            with open(f"{directory}/{name}", "rb") as file:
                files[name] = hashlib.sha256(file.read()).hexdigest()
    return files


def children(parent):
    """The names of a process's children."""
    names = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                name, after = stat.read().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue  # it has ended
        if int(after.split()[1]) == parent:
            names.append(name)
    return names


class RemoteError(RuntimeError):
    """Something went wrong in a backend's process; the message holds that process's own traceback."""


class Remote:
    """A backend as the cases see it: the same methods, run in the backend's own process."""

    def __init__(self, name, number):
        ours, theirs = socket.socketpair()
        self.name = name
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            serve(Backend(name, number), theirs)
            os._exit(0)
        theirs.close()
        self.socket = ours
        self.finish()
        server.run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        server.run("ip", "link", "set", f"to-{name}", "master", "br0")
        server.run("ip", "link", "set", f"to-{name}", "up")
        self.connect()

    def __getattr__(self, method):
        def call(*arguments, **named):
            self.begin(method, *arguments, **named)
            return self.finish()
        return call

    def begin(self, method, *arguments, **named):
        """Starts a call and comes back at once; finish() waits for its answer."""
        send(self.socket, (method, arguments, named))

    def finish(self):
        fine, answer = receive(self.socket)
        if not fine:
            raise RemoteError(f"on {self.name}: {answer}")
        return answer


def serve(backend, channel):
    try:
        backend._enter()
        send(channel, (True, None))
    except BaseException:
        send(channel, (False, traceback.format_exc()))
    while True:
        try:
            method, arguments, named = receive(channel)
        except EOFError:
            return
        try:
            answer = (True, getattr(backend, method)(*arguments, **named))
        except BaseException:
            answer = (False, traceback.format_exc())
        send(channel, answer)


def send(channel, thing):
    data = pickle.dumps(thing)
    channel.sendall(struct.pack("!I", len(data)) + data)


def receive(channel):
    def exactly(size):
        data = b""
        while len(data) < size:
            part = channel.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data
    return pickle.loads(exactly(struct.unpack("!I", exactly(4))[0]))
