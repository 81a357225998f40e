/* See before.c. A line of "new NANOSECONDS" for a process's first list goes to BASE_DIR/hooks, and of
   "used NANOSECONDS" for each later one. */

#include "lib.h"
#include "mail-user.h"
#include "mail-namespace.h"
#include "mail-storage-settings.h"
#include "mail-storage-hooks.h"
#include "mailbox-list-private.h"
#include "clock.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

const char *after_plugin_version = DOVECOT_ABI_VERSION;

static void end(struct mailbox_list *list)
{
	static const char *process = "new";
	uint64_t taken = nanoseconds() - hook_began;
	int fd = open(t_strconcat(list->ns->user->set->base_dir, "/hooks", NULL),
		      O_WRONLY | O_APPEND | O_CLOEXEC);

	if (fd != -1) {
		dprintf(fd, "%s %llu\n", process, (unsigned long long)taken);
		close(fd);
	}
	process = "used";
}

static struct mail_storage_hooks hooks = { .mailbox_list_created = end };

void after_plugin_init(struct module *module)
{
	mail_storage_hooks_add(module, &hooks);
}

void after_plugin_deinit(void)
{
	mail_storage_hooks_remove(&hooks);
}
