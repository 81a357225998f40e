/*
 * populate ROOT USERS OLD: users' directories as logins leave them, in 256 hash
 * directories below ROOT. Every user has a lock file with a record, an empty sign
 * file and two files of a list index; OLD percent were last used a month ago. What
 * is there already stays, so this also puts back what a sweep deleted.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HASHES 256
#define MONTH (30 * 24 * 3600)

/* Of another file, so that it vouches for nothing; but it is as long. */
static const char record[] =
	"2 0116 10231931 1795508290.533981295 backend1.example.org\n"
	"10231937 1795508290.533981295 10231936 dovecot.list.index\n";

static void die(const char *what)
{
	perror(what);
	exit(73);
}

static int enter(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		die(name);
	return fd;
}

/* Whether it was not there before. */
static int make(int parent, const char *name)
{
	if (!mkdirat(parent, name, 0700))
		return 1;
	if (errno != EEXIST)
		die(name);
	return 0;
}

static void make_file(int parent, const char *name, const char *content, time_t used)
{
	struct timespec times[2] = { { used, 0 }, { used, 0 } };
	int fd = openat(parent, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, content, strlen(content)) < 0 || futimens(fd, times))
		die(name);
	close(fd);
}

static void make_user(int parent, const char *name, time_t used)
{
	int fd;

	if (!make(parent, name))
		return;
	fd = enter(parent, name);
	make_file(fd, "dovecot.list.index", "", used);
	make_file(fd, "dovecot.list.index.log", "", used);
	make_file(fd, ".lasthost.without", "", used);
	make_file(fd, ".lasthost", record, used);
	close(fd);
}

int main(int argc, char **argv)
{
	time_t now = time(NULL);
	long users, old;
	int root;

	if (argc != 4) {
		fputs("usage: populate ROOT USERS OLD\n", stderr);
		return 64;
	}
	users = atol(argv[2]);
	old = atol(argv[3]);
	make(AT_FDCWD, argv[1]);
	root = enter(AT_FDCWD, argv[1]);
	for (int hash = 0; hash < HASHES; hash++) {
		char name[64];
		int parent;

		snprintf(name, sizeof(name), "%02x", hash);
		make(root, name);
		parent = enter(root, name);
		for (long number = hash; number < users; number += HASHES) {
			int is_old = number / HASHES * old % 100 < old;
			snprintf(name, sizeof(name), "user%07ld@example.org", number);
			make_user(parent, name, is_old ? now - MONTH : now);
		}
		close(parent);
	}
	return 0;
}
