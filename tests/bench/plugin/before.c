/* Dovecot calls the hooks of plugins in the order of their file names: this one notes the time
   before that of the plugin under test, and after.c how long it was. */

#include "lib.h"
#include "mail-storage-hooks.h"
#include "clock.h"

uint64_t hook_began;

const char *before_plugin_version = DOVECOT_ABI_VERSION;

static void begin(struct mailbox_list *list ATTR_UNUSED)
{
	hook_began = nanoseconds();
}

static struct mail_storage_hooks hooks = { .mailbox_list_created = begin };

void before_plugin_init(struct module *module)
{
	/* Its first call is slow. */
	hook_began = nanoseconds();
	mail_storage_hooks_add(module, &hooks);
}

void before_plugin_deinit(void)
{
	mail_storage_hooks_remove(&hooks);
}
