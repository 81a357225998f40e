#ifndef NFS_HOSTCHANGE_PLUGIN_H
#define NFS_HOSTCHANGE_PLUGIN_H

struct module;

extern const char *nfs_hostchange_plugin_version;

void nfs_hostchange_plugin_init(struct module *module);
void nfs_hostchange_plugin_deinit(void);

/* The Rust side, border.rs; which describes its functions. */

struct nfs_hostchange_list;

struct nfs_hostchange_caller {
	void *context;
	void (*log)(void *context, int level, const char *line);
	int (*forget)(void *context);
};

struct nfs_hostchange_where {
	const char *index_directory;
	const char *list_index_directory;
	const char *prefix;
	const char *migration;
	const char *recheck;
	bool maildirplusplus;
	bool owns;
	bool serves;
	bool keeps_rights;
	bool must_not_wait;
};

enum nfs_hostchange_use {
	NFS_HOSTCHANGE_WITHOUT = 0,
	NFS_HOSTCHANGE_USE = 1,
	NFS_HOSTCHANGE_TAKE_OVER = 2,
};

struct nfs_hostchange_list *
nfs_hostchange_list_new(const struct nfs_hostchange_where *where,
			struct nfs_hostchange_caller caller, int *use_r);
void nfs_hostchange_list_before_reading(struct nfs_hostchange_list *list,
					bool in_memory);
void nfs_hostchange_list_before_change(struct nfs_hostchange_list *list);
unsigned int
nfs_hostchange_list_after_change(struct nfs_hostchange_list *list,
				 bool in_memory);
void nfs_hostchange_list_look_after_change(struct nfs_hostchange_list *list);
void nfs_hostchange_list_free(struct nfs_hostchange_list *list, bool in_memory);

#endif
