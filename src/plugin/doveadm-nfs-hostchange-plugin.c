/* The doveadm module. One source for Dovecot 2.3 and 2.4.

   "doveadm nfs usercache ..." is "nfs-hostchange usercache ...", which takes
   this process over. "doveadm nfs namespaces -u USER" is what "nfs-hostchange
   status" asks: where Dovecot has the list indexes of a user. */

#include "lib.h"
#include "str.h"
#include "strescape.h"
#include "doveadm.h"
#include "doveadm-mail.h"
#include "doveadm-print.h"
#include "nfs-hostchange-list.h"

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

/* Without the bytes that separate values and lines in the output. */
static void print(const char *value)
{
	doveadm_print(str_tabescape(value));
}

/* The ids that this process has for the user: uid, gid and groups. */
static const char *my_rights(void)
{
	string_t *ids = t_str_new(64);
	gid_t *groups;
	int i, count;

	str_printfa(ids, "%s %s", dec2str(geteuid()), dec2str(getegid()));
	count = getgroups(0, NULL);
	groups = t_new(gid_t, I_MAX(count, 1));
	count = getgroups(count, groups);
	for (i = 0; i < count; i++)
		str_printfa(ids, " %s", dec2str(groups[i]));
	return str_c(ids);
}

static int
cmd_nfs_namespaces_run(struct doveadm_mail_cmd_context *ctx,
		       struct mail_user *user)
{
	struct mail_namespace *ns;
	const char *index_dir, *list_index_dir, *problem, *rights;

	rights = my_rights();
	for (ns = user->namespaces; ns != NULL; ns = ns->next) {
		struct mailbox_list *list = ns->list;

		if (ns->alias_for != NULL || !list_is_local(list) ||
		    !list_get_directory(list, MAILBOX_LIST_PATH_TYPE_LIST_INDEX,
					&list_index_dir))
			continue;
		if (!list_get_directory(list, MAILBOX_LIST_PATH_TYPE_INDEX,
					&index_dir))
			index_dir = "";
		problem = list_problem(list);
		print(ns->prefix);
		print((ns->flags & NAMESPACE_FLAG_INBOX_USER) != 0 ? "yes" : "no");
		print(ns->type == MAIL_NAMESPACE_TYPE_PUBLIC ? "public" :
		      ns->type == MAIL_NAMESPACE_TYPE_SHARED ? "shared" :
		      "private");
		print(ns->owner == NULL ? "" : ns->owner->username);
		print(index_dir);
		print(list_index_dir);
		print(LIST_INDEX_NAME(list));
		print(list->name);
		print(problem == NULL ? "" : problem);
		print(rights);
	}
	return 0;
}

static void
#ifdef DOVECOT_CONFIG_VERSION /* 2.4 */
cmd_nfs_namespaces_init(struct doveadm_mail_cmd_context *ctx)
#else
cmd_nfs_namespaces_init(struct doveadm_mail_cmd_context *ctx,
			const char *const args[])
#endif
{
	static const char *const names[] = {
		"prefix", "inbox", "type", "owner", "index", "list index",
		"name", "layout", "problem", "rights"
	};
	unsigned int i;

	for (i = 0; i < N_ELEMENTS(names); i++)
		doveadm_print_header_simple(names[i]);
}

static struct doveadm_mail_cmd_context *cmd_nfs_namespaces_alloc(void)
{
	struct doveadm_mail_cmd_context *ctx;

	ctx = doveadm_mail_cmd_alloc(struct doveadm_mail_cmd_context);
	ctx->v.init = cmd_nfs_namespaces_init;
	ctx->v.run = cmd_nfs_namespaces_run;
	doveadm_print_init(DOVEADM_PRINT_TYPE_FLOW);
	return ctx;
}

static struct doveadm_cmd_ver2 nfs_namespaces = {
	.name = "nfs namespaces",
	.mail_cmd = cmd_nfs_namespaces_alloc,
	.usage = DOVEADM_CMD_MAIL_USAGE_PREFIX,
DOVEADM_CMD_PARAMS_START
DOVEADM_CMD_MAIL_COMMON
DOVEADM_CMD_PARAMS_END
};

void doveadm_nfs_hostchange_plugin_init(struct module *module)
{
	doveadm_cmd_register_ver2(&nfs_namespaces);
	doveadm_cmd_register_ver2(&nfs_usercache);
}

void doveadm_nfs_hostchange_plugin_deinit(void)
{
}
