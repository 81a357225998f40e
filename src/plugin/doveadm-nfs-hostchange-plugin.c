/* The doveadm module: "doveadm nfs usercache ..." is "nfs-hostchange usercache
   ...", which takes this process over. One source for Dovecot 2.3 and 2.4. */

#include "lib.h"
#include "doveadm.h"

#include <unistd.h>

struct module;

extern const char *doveadm_nfs_hostchange_plugin_version;

void doveadm_nfs_hostchange_plugin_init(struct module *module);
void doveadm_nfs_hostchange_plugin_deinit(void);

const char *doveadm_nfs_hostchange_plugin_version = DOVECOT_ABI_VERSION;

static void cmd_nfs_usercache(struct doveadm_cmd_context *cctx)
{
	const char *const *args, **argv, *path;
	unsigned int count = 0;

	/* It would end the process that serves other clients, too. */
	if (cctx->conn_type != DOVEADM_CONNECTION_TYPE_CLI) {
		i_error("nfs_hostchange: 'doveadm nfs usercache' cannot be run "
			"by a doveadm server; run it on the backend itself");
		doveadm_exit_code = DOVEADM_EX_NOTPOSSIBLE;
		return;
	}
	if (doveadm_cmd_param_array(cctx, "args", &args))
		count = str_array_length(args);

	/* As for "doveadm exec". */
	path = t_strconcat(doveadm_settings->libexec_dir, "/nfs-hostchange",
			   NULL);
	argv = t_new(const char *, count + 3);
	argv[0] = path;
	argv[1] = "usercache";
	if (count > 0)
		memcpy(argv + 2, args, count * sizeof(*args));
	execv(path, (char **)argv);
	i_fatal("nfs_hostchange: cannot execute %s: %m; install the package "
		"dovecot-nfs-hostchange", path);
}

static struct doveadm_cmd_ver2 nfs_usercache = {
	.name = "nfs usercache",
	.cmd = cmd_nfs_usercache,
	.usage = "clean|sweep <min age> <path> | forget <path>",
	.flags = CMD_FLAG_NO_OPTIONS,
DOVEADM_CMD_PARAMS_START
DOVEADM_CMD_PARAM('\0', "args", CMD_PARAM_ARRAY, CMD_PARAM_FLAG_POSITIONAL)
DOVEADM_CMD_PARAMS_END
};

void doveadm_nfs_hostchange_plugin_init(struct module *module)
{
	doveadm_cmd_register_ver2(&nfs_usercache);
}

void doveadm_nfs_hostchange_plugin_deinit(void)
{
}
