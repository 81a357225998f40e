/* Preloaded into doveadm: writes down which directories Dovecot's own functions
 * settle on, and passes every call on unchanged. A record is "name=value" or, for
 * a null pointer, "name", with a NUL byte behind it, appended to $RECORD. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* enum mailbox_list_path_type of Dovecot 2.3's mailbox-list.h */
enum { PATH_TYPE_DIR = 0, PATH_TYPE_INDEX = 5 };

static void record(const char *name, const char *value)
{
	const char *file = getenv("RECORD");
	int fd = file == NULL ? -1 : open(file, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0)
		abort();
	struct iovec parts[] = {
		{ (void *)name, strlen(name) },
		{ "=", value == NULL ? 0 : 1 },
		{ (void *)(value == NULL ? "" : value), value == NULL ? 1 : strlen(value) + 1 },
	};
	if (writev(fd, parts, 3) < 0)
		abort();
	close(fd);
}

void *mail_index_alloc(void *event, const char *directory, const char *prefix)
{
	void *(*next)(void *, const char *, const char *) = dlsym(RTLD_NEXT, "mail_index_alloc");

	record("allocated_dir", directory);
	record("allocated_prefix", prefix);
	return next(event, directory, prefix);
}

void *mailbox_alloc(void *list, const char *name, int flags)
{
	void *(*next)(void *, const char *, int) = dlsym(RTLD_NEXT, "mailbox_alloc");
	bool (*root_path)(void *, int, const char **) = dlsym(RTLD_NEXT, "mailbox_list_get_root_path");
	const char *path;

	record("index_dir", root_path(list, PATH_TYPE_INDEX, &path) ? path : NULL);
	record("root_dir", root_path(list, PATH_TYPE_DIR, &path) ? path : NULL);
	return next(list, name, flags);
}
