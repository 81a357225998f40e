/*
 * sweep ROOT DAYS [delete|safe]: counts, and deletes if told to, the users'
 * directories in ROOT's hash directories whose lock file was last used DAYS ago,
 * with no system call that this could do without: a measure, not a program to use.
 *
 * "delete" takes no lock, asks for no lease and looks at nothing twice, so it would
 * delete a list index under a session that uses it. "safe" makes the calls that
 * nfs-hostchange's promises take, and gives up at the first surprise.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const char *const files[] = { "dovecot.list.index", "dovecot.list.index.log", ".lasthost" };
#define LOCK_FILE 2

enum mode { SCAN, DELETE, SAFE };

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

/* The names of the list index, in a buffer that the next call uses again. */
static int list(int directory, const char *names[], int most)
{
	static char buffer[32768];
	int count = 0;
	long length;

	while ((length = syscall(SYS_getdents64, directory, buffer, sizeof(buffer))) > 0) {
		for (long at = 0; at < length;) {
			struct dirent64 *entry = (struct dirent64 *)(buffer + at);
			if (!strncmp(entry->d_name, files[0], strlen(files[0])) && count < most)
				names[count++] = entry->d_name;
			at += entry->d_reclen;
		}
	}
	return count;
}

/* A regular file that no process has open. */
static void check_file(int directory, const char *name)
{
	struct stat status;
	int fd;

	if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) || !S_ISREG(status.st_mode))
		die(name);
	fd = open_in(directory, name, O_RDONLY | O_NONBLOCK);
	/* Whoever opens it now must not make the kernel end this process by SIGIO. */
	if (fcntl(fd, F_SETSIG, SIGURG) || fcntl(fd, F_SETLEASE, F_WRLCK))
		die(name);
	close(fd);
}

/* That the locked file is the one in the directory. */
static void check_lock(int directory, const struct stat *lock)
{
	struct stat named;

	if (fstatat(directory, files[LOCK_FILE], &named, AT_SYMLINK_NOFOLLOW) ||
	    named.st_dev != lock->st_dev || named.st_ino != lock->st_ino)
		die(files[LOCK_FILE]);
}

static void clean_safely(int parent, const char *name)
{
	const char *names[8];
	char record[1024];
	struct stat owner, locked;
	int directory = open_in(parent, name, O_RDONLY | O_DIRECTORY | O_NOATIME);
	int lock = open_in(directory, files[LOCK_FILE], O_RDWR | O_NONBLOCK | O_NOATIME);
	int count;

	if (fstat(directory, &owner) || owner.st_uid != geteuid())
		die(name);
	if (flock(lock, LOCK_EX | LOCK_NB) || fstat(lock, &locked) || locked.st_nlink != 1)
		die(name);
	check_lock(directory, &locked);
	count = list(directory, names, 8);
	for (int i = 0; i < count; i++)
		check_file(directory, names[i]);
	/* It may name sessions that run without a list index. */
	if (pread(lock, record, sizeof(record), 0) < 0 || ftruncate(lock, 0))
		die(name);
	for (int i = 0; i < count; i++)
		unlink_in(directory, names[i]);
	check_lock(directory, &locked);
	unlink_in(directory, files[LOCK_FILE]);
	close(lock);
	if (unlinkat(parent, name, AT_REMOVEDIR))
		die(name);
	close(directory);
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
		struct stat lock;

		if (entry->d_name[0] == '.')
			continue;
		path.file = stpcpy(stpcpy(path.text, entry->d_name), "/");
		strcpy(path.file, files[LOCK_FILE]);
		if (fstatat(parent, path.text, &lock, AT_SYMLINK_NOFOLLOW))
			continue;
		users++;
		if (lock.st_atime > limit || lock.st_mtime > limit)
			continue;
		cleaned++;
		if (mode == DELETE)
			clean(parent, entry->d_name, &path);
		else if (mode == SAFE)
			clean_safely(parent, entry->d_name);
	}
}

int main(int argc, char **argv)
{
	enum mode mode = argc < 4 ? SCAN : !strcmp(argv[3], "delete") ? DELETE : SAFE;
	struct dirent *entry;
	time_t limit;
	DIR *root;

	if (argc < 3) {
		fputs("usage: sweep ROOT DAYS [delete|safe]\n", stderr);
		return 64;
	}
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
