"""Runs inside one backend's system, and does there what cases.py says: one JSON object per line, in and out."""

import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

CONFIGURATION = "/etc/dovecot"


def shell(command):
    """Output goes through files: a daemon would hold a pipe open."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        status = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=out, stderr=error, cwd=BIN, timeout=60).returncode
        out.seek(0)
        error.seek(0)
        return status, out.read(), error.read()


def prepare(store):
    """Makes the parts that no case changes."""
    global BIN
    BIN = store + "/bin"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g,mode=0755", "tmpfs", "/dev/shm"], check=True)
    MOUNTS.append(mounts())
    for line in ("vmail:x:5000:", "other:x:5001:", "archive:x:5002:"):
        open("/etc/group", "a").write(line + "\n")
    for line in ("vmail:x:5000:5000::/:/bin/false", "other:x:5001:5001::/:/bin/false"):
        open("/etc/passwd", "a").write(line + "\n")
    for file in KEPT:
        shutil.copy(file, file + ".kept")
    shutil.copy(BIN + "/nfs-hostchange", "/usr/local/bin/")
    os.makedirs("/etc/cron.d", exist_ok=True)
    with open("/usr/local/bin/systemd-tmpfiles", "w") as file:
        file.write(TMPFILES)
    os.chmod("/usr/local/bin/systemd-tmpfiles", 0o755)


MOUNTS = []
KEPT = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf")

# What systemd-tmpfiles does with "d" lines.
TMPFILES = r"""#!/usr/bin/python3
import os, pwd, shutil, sys
for file in sys.argv[2:]:
    for line in sys.stdin if file == "-" else open(file):
        kind, path, mode, user, group, _ = line.split()
        if kind == "d":
            os.makedirs(path, exist_ok=True)
            os.chown(path, pwd.getpwnam(user).pw_uid, 0)
            os.chmod(path, int(mode, 8))
"""


def mounts():
    """How many file systems are mounted over each other at /dev/shm."""
    return sum(line.split()[4] == "/dev/shm" for line in open("/proc/self/mountinfo"))


def begin(files, commands):
    """A system as it was, with these configuration files, after these commands."""
    end()
    while shell("umount --lazy /dev/shm/dovecot-listindex")[0] == 0:
        pass
    while mounts() > MOUNTS[0]:
        subprocess.run(["umount", "--lazy", "/dev/shm"], check=True)
    subprocess.run(["mount", "-o", "remount,rw,size=1g,nr_inodes=1m,mode=0755", "/dev/shm"], check=True)
    os.chmod("/dev/shm", 0o755)
    for file in KEPT:
        shutil.copy(file + ".kept", file)
    shell("rm -rf /dev/shm/* /etc/fstab* /etc/dovecot /etc/tmpfiles.d /etc/systemd/system/dovecot.service.d /usr/local/lib/chain; rm -rf /run/systemd/system /etc/systemd/logind.conf.d /usr/local/bin/systemctl; mkdir -p /etc/dovecot /etc/tmpfiles.d /usr/local/lib/chain")
    shell("rm -f /usr/lib/dovecot/modules/lib90_nfs_hostchange_plugin.so; install -m 0755 nfs-hostchange-login /usr/lib/dovecot/")
    with open("/etc/cron.d/sweep", "w") as file:
        file.write("0 3 * * * root nfs-hostchange usercache sweep 7days /x\n")
    for path, text in files.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
    boot()
    for command in commands:
        status, _, error = shell(command)
        if status:
            return f"{command}: {error}"
    return ""


def boot():
    if os.path.exists("/etc/fstab"):
        os.rename("/etc/fstab", "/etc/fstab.mounted")
        shell("mount --fstab /etc/fstab.mounted /dev/shm")
    if glob.glob("/etc/tmpfiles.d/*.conf"):
        shell("systemd-tmpfiles --create /etc/tmpfiles.d/*.conf")


def end():
    """Ends Dovecot and the other servers of a case."""
    stop()
    for file in glob.glob("/run/*.pid"):
        shell(f"kill $(cat {file}); rm {file}")


def stop():
    """As SIGTERM does, but for the second that Dovecot 2.3 sleeps when only its log process is left."""
    try:
        master = int(open("/run/dovecot/master.pid").read())
        os.kill(master, signal.SIGTERM)
        deadline = time.time() + 10
        # What has ended has no command line, and may still be a child.
        while open(f"/proc/{master}/cmdline").read() and time.time() < deadline:
            children = open(f"/proc/{master}/task/{master}/children").read().split()
            if len(children) <= 1:
                for process in [master, *map(int, children)]:
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.005)
        os.unlink("/run/dovecot/master.pid")
    except (FileNotFoundError, ProcessLookupError):
        pass


def start(port, command):
    """Starts Dovecot; says why it did not."""
    stop()
    shell(": >/var/log/dovecot.log")
    status, out, error = shell(command)
    if status:
        return error or out or "dovecot failed"
    deadline = time.time() + 10
    while time.time() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                if connection.recv(1):
                    return ""
        except OSError:
            pass
        time.sleep(0.02)
    return "no answer"


def check(users):
    options = " ".join(f"--user {user}" for user in users)
    status, out, error = shell(f"nfs-hostchange check --json {options}")
    if not out:
        return {"error": f"status {status}: {error}"}
    return {"status": status, **json.loads(out)}


def apply(finding):
    """Does what a finding says, as it is printed."""
    if finding["command"] is not None:
        status, _, error = shell(finding["command"])
        return error if status else ""
    path, number, lines = finding["file"], finding["line"], finding["lines"].splitlines()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    text = open(path).read().splitlines() if os.path.exists(path) else []
    if number is None:
        text += lines
    elif finding["replaces"]:
        text[number - 1 : number] = lines
    else:
        text[number:number] = lines
    with open(path, "w") as file:
        file.write("".join(line + "\n" for line in text))
    return ""


def log():
    return open("/var/log/dovecot.log").read()


for request in sys.stdin:
    name, *arguments = json.loads(request)
    answer = globals()[name](*arguments)
    print(json.dumps(answer), flush=True)
end()
