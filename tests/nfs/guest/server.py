"""The NFS server: the kernel's own, exporting ext4 file systems out of loop files."""

import os
import subprocess

ADDRESS = "10.9.0.1"


def run(*command):
    """Runs a command to its end; what it had to say goes into the error if it failed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}: {done.stdout.decode(errors='replace')}")
    return done.stdout.decode(errors="replace")


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


class Server:
    """knsfd in the machine's first network namespace. `path(...)` names files as the server itself sees them."""

    def __init__(self):
        self.read_only = set()
        self.exports = {}

    def start(self):
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "addr", "add", f"{ADDRESS}/24", "dev", "br0")
        run("ip", "link", "set", "br0", "up")
        os.makedirs("/run/rpcbind", exist_ok=True)
        os.makedirs("/var/lib/nfs/v4recovery", exist_ok=True)
        for name in ("etab", "rmtab"):
            open(f"/var/lib/nfs/{name}", "w").close()
        run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
        run("rpcbind", "-w")
        # NFSv4 sees one tree. Its root must be on a file system with file handles, which the machine's own is not.
        os.makedirs("/export")
        run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/export")
        # Room for the inode sizes and the trouble that the cases want.
        self.make_export("mail", 700, 256)
        self.make_export("seconds", 100, 128)  # timestamps there are whole seconds
        self.make_export("small", 24, 256)  # the one that gets full
        run("rpc.mountd", "--port", "20048")
        # Locks, of NFSv4 too, wait for lockd's grace period as well.
        write("/proc/sys/fs/nfs/nlm_grace_period", "1")
        self.up()

    def make_export(self, name, megabytes, inode_size):
        """A fresh file system, mounted and exported with root_squash."""
        image = f"/tmp/{name}.img"
        with open(image, "wb") as file:
            file.truncate(megabytes << 20)
        run("mkfs.ext4", "-q", "-m", "0", "-I", str(inode_size), "-O", "^metadata_csum", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", image)
        directory = f"/export/{name}"
        os.makedirs(directory)
        run("mount", "-o", "loop,noatime", image, directory)
        os.chmod(directory, 0o755)
        self.exports[name] = directory
        self.publish()

    def publish(self):
        """Tells the kernel anew what is exported and how; answers already given are forgotten."""
        with open("/etc/exports", "w") as file:
            file.write("/export 10.9.0.0/24(ro,fsid=0,no_subtree_check)\n")
            for fsid, (name, directory) in enumerate(self.exports.items(), start=1):
                access = "ro" if name in self.read_only else "rw"
                file.write(f"{directory} 10.9.0.0/24({access},sync,root_squash,no_subtree_check,fsid={fsid})\n")
        if os.path.exists("/proc/fs/nfsd/threads"):
            run("exportfs", "-ra")
            run("exportfs", "-f")

    def up(self):
        run("rpc.nfsd", "4")
        # No client has anything to reclaim. Waiting for those who might would take a minute and a half.
        write("/proc/fs/nfsd/v4_end_grace", "Y")

    def down(self):
        """No thread left to answer anyone: a hard mount waits."""
        run("rpc.nfsd", "0")

    def set_read_only(self, name, read_only):
        (self.read_only.add if read_only else self.read_only.discard)(name)
        self.publish()
