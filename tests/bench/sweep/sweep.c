/*
 * sweep ROOT DAYS [look|delete|safe]: counts, and deletes if told to, the users'
 * directories in ROOT's hash directories whose lock file was last used DAYS ago,
 * with no system call that this could do without: a measure, not a program to use.
 *
 * Without a third argument, and with "delete", it takes no lock, asks for no lease,
 * follows links and enters whatever is mounted, so it would delete a list index under a
 * session that uses it. "look" and "safe" make the calls that nfs-hostchange's promises
 * take, and give up at the first surprise.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const char *const files[] = { "dovecot.list.index", "dovecot.list.index.log", ".lasthost.without", ".lasthost" };
#define LOG 1
#define SIGN 2
#define LOCK_FILE 3

enum mode { SCAN, LOOK, DELETE, SAFE };

static long users, cleaned;

/* NAME/FILE, without a second copy of NAME for each file. */
struct path {
	char text[256 + sizeof("/dovecot.list.index.log")];
	char *file;
};

static void die(const char *what)
{
	perror(what);
	exit(73);
}

static int open_in(int directory, const char *name, int flags)
{
	int fd = openat(directory, name, flags | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		die(name);
	return fd;
}

static void unlink_in(int directory, const char *name)
{
	if (unlinkat(directory, name, 0))
		die(name);
}

static void clean(int parent, const char *name, struct path *path)
{
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		strcpy(path->file, files[i]);
		unlink_in(parent, path->text);
	}
	if (unlinkat(parent, name, AT_REMOVEDIR))
		die(name);
}

/* Neither through a link nor into another mount. */
static int open_here(int directory, const char *name, int flags)
{
	struct open_how how = { .flags = flags | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV };
	int fd = syscall(SYS_openat2, directory, name, &how, sizeof(how));

	if (fd < 0)
		die(name);
	return fd;
}

static struct statx look_at(int directory, const char *name, int flags)
{
	struct statx status;

	if (statx(directory, name, flags, STATX_BASIC_STATS | STATX_BTIME, &status) || !S_ISREG(status.stx_mode))
		die(name);
	return status;
}

static struct statx look_here(int directory, const char *name)
{
	return look_at(directory, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC);
}

/* The names of the list index, in a buffer that the next call uses again. */
static int list(int directory, const char *names[], int most)
{
	static char buffer[32768];
	int count = 0;
	long length = syscall(SYS_getdents64, directory, buffer, sizeof(buffer));

	for (long at = 0; at < length;) {
		struct dirent64 *entry = (struct dirent64 *)(buffer + at);
		if (!strncmp(entry->d_name, files[0], strlen(files[0])) && count < most)
			names[count++] = entry->d_name;
		at += entry->d_reclen;
	}
	return count;
}

/* That no session without a list index is open; and away with the sign. */
static void remove_sign(int directory)
{
	struct flock place = { .l_type = F_WRLCK, .l_start = 4 };
	struct stat status;
	char note[256];
	int sign = open_in(directory, files[SIGN], O_RDWR | O_NONBLOCK);

	if (fstat(sign, &status) || fcntl(sign, F_OFD_SETLK, &place) || pread(sign, note, sizeof(note), 0))
		die(files[SIGN]);
	unlink_in(directory, files[SIGN]);
	close(sign);
}

static void clean_safely(int parent, const char *name, int directory)
{
	const char *names[8];
	char record[4096];
	int lock = open_here(directory, files[LOCK_FILE], O_RDWR | O_NONBLOCK | O_NOATIME), log = -1, count;

	if (flock(lock, LOCK_EX | LOCK_NB) || look_at(lock, "", AT_EMPTY_PATH).stx_nlink != 1)
		die(name);
	if (pread(lock, record, sizeof(record), 0) < 0)
		die(name);
	count = list(directory, names, 8);
	for (int i = 0; i < count; i++) {
		if (strcmp(names[i], files[LOG])) {
			look_here(directory, names[i]);
			continue;
		}
		log = open_here(directory, names[i], O_RDONLY | O_NONBLOCK);
		if (fcntl(log, F_SETLEASE, F_WRLCK))
			die(names[i]);
		look_at(log, "", AT_EMPTY_PATH);
	}
	remove_sign(directory);
	if (pwrite(lock, " \n", 2, 0) != 2)
		die(name);
	for (int i = 0; i < count; i++)
		unlink_in(directory, names[i]);
	if (look_at(lock, "", AT_EMPTY_PATH).stx_nlink != 1)
		die(name);
	unlink_in(directory, files[LOCK_FILE]);
	close(lock);
	if (unlinkat(parent, name, AT_REMOVEDIR))
		die(name);
	close(log);
}

static DIR *enter(int parent, const char *name)
{
	DIR *directory = fdopendir(open_in(parent, name, O_RDONLY | O_DIRECTORY));

	if (!directory)
		die(name);
	return directory;
}

static void sweep(DIR *hash, time_t limit, enum mode mode)
{
	int parent = dirfd(hash);
	struct dirent *entry;

	while ((entry = readdir(hash))) {
		struct path path;

		if (entry->d_name[0] == '.')
			continue;
		users++;
		if (mode == LOOK || mode == SAFE) {
			int directory = open_here(parent, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOATIME);
			struct statx lock = look_here(directory, files[LOCK_FILE]);

			if (lock.stx_atime.tv_sec <= limit && lock.stx_mtime.tv_sec <= limit) {
				cleaned++;
				if (mode == SAFE)
					clean_safely(parent, entry->d_name, directory);
			}
			close(directory);
		} else {
			struct stat lock;

			path.file = stpcpy(stpcpy(path.text, entry->d_name), "/");
			strcpy(path.file, files[LOCK_FILE]);
			if (fstatat(parent, path.text, &lock, AT_SYMLINK_NOFOLLOW))
				die(path.text);
			if (lock.st_atime > limit || lock.st_mtime > limit)
				continue;
			cleaned++;
			if (mode == DELETE)
				clean(parent, entry->d_name, &path);
		}
	}
}

/* The word given, or none. */
static enum mode mode_of(const char *word)
{
	return !word ? SCAN : !strcmp(word, "look") ? LOOK : !strcmp(word, "delete") ? DELETE : SAFE;
}

int main(int argc, char **argv)
{
	enum mode mode = mode_of(argc < 4 ? NULL : argv[3]);
	struct dirent *entry;
	time_t limit;
	DIR *root;

	if (argc < 3) {
		fputs("usage: sweep ROOT DAYS [look|delete|safe]\n", stderr);
		return 64;
	}
	signal(SIGIO, SIG_IGN);
	limit = time(NULL) - atol(argv[2]) * 24 * 3600;
	root = enter(AT_FDCWD, argv[1]);
	while ((entry = readdir(root))) {
		DIR *hash;

		if (entry->d_name[0] == '.')
			continue;
		hash = enter(dirfd(root), entry->d_name);
		sweep(hash, limit, mode);
		closedir(hash);
	}
	printf("%ld users, %ld cleaned\n", users, cleaned);
	return 0;
}
