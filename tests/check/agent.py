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
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g,mode=1777", "tmpfs", "/dev/shm"], check=True)
    for line in ("vmail:x:5000:", "other:x:5001:", "archive:x:5002:"):
        open("/etc/group", "a").write(line + "\n")
    for line in ("vmail:x:5000:5000::/:/bin/false", "other:x:5001:5001::/:/bin/false"):
        open("/etc/passwd", "a").write(line + "\n")
    shutil.copy(BIN + "/nfs-hostchange", "/usr/local/bin/")
    os.makedirs("/etc/cron.d", exist_ok=True)
    if not shutil.which("systemd-tmpfiles"):
        with open("/usr/local/bin/systemd-tmpfiles", "w") as file:
            file.write(TMPFILES)
        os.chmod("/usr/local/bin/systemd-tmpfiles", 0o755)


# What systemd-tmpfiles does with "d" lines.
TMPFILES = r"""#!/bin/sh
shift
cat -- "$@" | while read -r kind path mode user group age; do
    [ "$kind" = d ] || continue
    [ "$group" != - ] || group=root
    mkdir -p "$path" && chmod "$mode" "$path" && chown "$user:$group" "$path"
done
"""


def begin(files, commands):
    """A system as it was, with these configuration files, after these commands."""
    stop()
    shell("rm -rf /dev/shm/* /etc/fstab /etc/dovecot /etc/tmpfiles.d /usr/local/lib/chain; mkdir -p /etc/dovecot /etc/tmpfiles.d /usr/local/lib/chain")
    shell("install -m 0755 nfs-hostchange-login /usr/lib/dovecot/")
    with open("/etc/cron.d/sweep", "w") as file:
        file.write("0 3 * * * root nfs-hostchange usercache sweep 7days /x\n")
    for path, text in files.items():
        with open(path, "w") as file:
            file.write(text)
    boot()
    for command in commands:
        status, _, error = shell(command)
        if status:
            return f"{command}: {error}"
    return ""


def boot():
    if glob.glob("/etc/tmpfiles.d/*.conf"):
        shell("systemd-tmpfiles --create /etc/tmpfiles.d/*.conf")
    if os.path.exists("/etc/fstab"):
        shell("mount -o remount /dev/shm")


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


def start(port):
    """Starts Dovecot; says why it did not."""
    stop()
    shell(": >/var/log/dovecot.log")
    status, out, error = shell("dovecot")
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
stop()
