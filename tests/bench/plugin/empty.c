/* A mail plugin that does nothing, by the name of ours: what it costs to have one at all. */

#include "lib.h"

struct module;

const char *nfs_hostchange_plugin_version = DOVECOT_ABI_VERSION;

void nfs_hostchange_plugin_init(struct module *module ATTR_UNUSED)
{
}

void nfs_hostchange_plugin_deinit(void)
{
}
