#ifndef NFS_HOSTCHANGE_LIST_H
#define NFS_HOSTCHANGE_LIST_H

/* What the mail plugin and the doveadm module both ask of a mailbox list, for
   Dovecot 2.3 and 2.4. */

#include "lib.h"
#include "mail-user.h"
#include "mail-namespace.h"
#include "mail-storage-private.h"
#include "mailbox-list-private.h"

#ifdef DOVECOT_CONFIG_VERSION /* 2.4 */
#  define LIST_INDEX_NAME(list) ((list)->mail_set->parsed_list_index_fname)
#  define LIST_INDEX_DIR(list) ((list)->mail_set->parsed_list_index_dir)
#  define ITERATES_INDEX_DIR(list) \
	((list)->mail_set->mailbox_list_iter_from_index_dir)
#else
#  define LIST_INDEX_NAME(list) ((list)->set.list_index_fname)
#  define LIST_INDEX_DIR(list) ((list)->set.list_index_dir)
#  define ITERATES_INDEX_DIR(list) ((list)->set.iter_from_index_dir)
#endif

/* Lists that stand for something else: "shared" for those of all owners. */
static inline bool list_has_no_folders(struct mailbox_list *list)
{
	return strcmp(list->name, "shared") == 0 ||
		strcmp(list->name, "imapc") == 0 ||
		strcmp(list->name, MAILBOX_LIST_NAME_NONE) == 0;
}

/* Whether the list index is in a directory of its own, so that it may be
   local. */
static inline bool list_is_local(struct mailbox_list *list)
{
	const char *dir = LIST_INDEX_DIR(list), *name = LIST_INDEX_NAME(list);

	return list->mail_set->mailbox_list_index &&
		(list->flags & MAILBOX_LIST_FLAG_SECONDARY) == 0 &&
		name != NULL && *name != '\0' && dir != NULL && *dir == '/' &&
		!list_has_no_folders(list);
}

static inline bool list_is_layout_index(struct mailbox_list *list)
{
	return strcmp(list->name, MAILBOX_LIST_NAME_INDEX) == 0;
}

static inline bool list_is_mbox(struct mailbox_list *list)
{
#ifdef DOVECOT_CONFIG_VERSION
	return strcmp(list->mail_set->mail_driver, "mbox") == 0;
#else
	const char *location = list->ns->set->location;

	if (location == NULL || *location == '\0')
		location = list->mail_set->mail_location;
	if (strchr(location, ':') != NULL)
		return str_begins(location, "mbox:");
	/* The driver was found out by what is in the directory. */
	return list->set.subscription_fname != NULL &&
		strcmp(list->set.subscription_fname, ".subscriptions") == 0;
#endif
}

static inline bool
list_get_directory(struct mailbox_list *list, enum mailbox_list_path_type type,
		   const char **path_r)
{
	return mailbox_list_get_root_path(list, type, path_r) &&
		*path_r != NULL && **path_r != '\0';
}

/* Why there can be no claim for a local list index; NULL if there can. */
static inline const char *list_problem(struct mailbox_list *list)
{
	const char *path;

	if (list_is_layout_index(list)) {
		return "with LAYOUT=index the list index is the only map from "
			"mailbox names to directories: it must not be local";
	}
	if (list_is_mbox(list) && ITERATES_INDEX_DIR(list)) {
		return "mbox with ITERINDEX shows every file in INDEX as a "
			"mailbox";
	}
	if (!list_get_directory(list, MAILBOX_LIST_PATH_TYPE_INDEX, &path)) {
		return "with INDEX=MEMORY there is no shared directory for the "
			"claim";
	}
	return NULL;
}

#endif
