/* The mail plugin's side that knows Dovecot: it finds out where list indexes
   are and what a session does with them. Every decision is the Rust side's.

   One source for Dovecot 2.3 and 2.4. A plugin's functions are called before
   those of Dovecot's own list index code, which they wrap. */

#include "lib.h"
#include "array.h"
#include "llist.h"
#include "hash.h"
#include "ioloop.h"
#include "mail-index-private.h"
#include "mail-index-alloc-cache.h"
#include "mail-index-transaction-private.h"
#include "mail-index-view-private.h"
#include "mail-storage-hooks.h"
#include "mailbox-list-index.h"
#include "master-service.h"
#include "index-storage.h"
#include "mdbox-storage.h"
#include "sdbox-storage.h"
#include "nfs-hostchange-list.h"
#include "nfs-hostchange-plugin.h"

#ifdef DOVECOT_CONFIG_VERSION /* 2.4 */
#  define HAS_NO_MAILBOX_ROOT(list) \
	(*(list)->mail_set->mailbox_directory_name == '\0')
#  define MDBOX_IS_DAMAGED(storage) ((storage)->corrupted_reason != NULL)
#  define SETTING(user, name) NULL
#else
#  define HAS_NO_MAILBOX_ROOT(list) (*(list)->set.maildir_name == '\0')
#  define MDBOX_IS_DAMAGED(storage) ((storage)->corrupted)
#  define SETTING(user, name) mail_user_plugin_getenv(user, name)
#endif

/* Where mbox keeps indexes, below what it is configured to. */
#define MBOX_INDEX_DIR "/.imap"

#define LIST_CONTEXT(obj) MODULE_CONTEXT(obj, nfs_hostchange_list_module)
#define LIST_CONTEXT_REQUIRE(obj) \
	MODULE_CONTEXT_REQUIRE(obj, nfs_hostchange_list_module)
#define BOX_CONTEXT_REQUIRE(obj) \
	MODULE_CONTEXT_REQUIRE(obj, nfs_hostchange_box_module)

/* What a client in NOTIFY was last told of a mailbox. */
struct hostchange_told {
	uint32_t uidvalidity, uidnext, messages, unseen;
	uint64_t modseq;
};

/* A client waits in NOTIFY. A list may have several: the next NOTIFY begins
   before the last one ends, and virtual mailboxes have their own. */
struct hostchange_notify {
	struct hostchange_notify *prev, *next;
	struct mailbox_list_notify *notify;
	struct timeout *to_look;
	bool notifying;
	pool_t pool;
	HASH_TABLE(char *, struct hostchange_told *) told;
};

/* One list index in one session. */
struct hostchange_list {
	union mailbox_list_module_context module_ctx;
	struct nfs_hostchange_list *rust;
	const char *index_dir, *list_index_dir;
	bool paths_are_final;
	struct timeout *to_look;
	struct hostchange_notify *notifies;
	bool finding_out;
	/* So many mailboxes cannot be counted. */
	uint32_t unknown;
};

struct hostchange_box {
	union mailbox_module_context module_ctx;
	bool resyncing;
};

const char *nfs_hostchange_plugin_version = DOVECOT_ABI_VERSION;

static MODULE_CONTEXT_DEFINE_INIT(nfs_hostchange_list_module,
				  &mailbox_list_module_register);
static MODULE_CONTEXT_DEFINE_INIT(nfs_hostchange_box_module,
				  &mail_storage_module_register);

static void hostchange_log(void *context, int level, const char *line)
{
	struct mailbox_list *list = context;

	/* Before it are the warning and the info. */
	e_log(list->ns->user->event, LOG_TYPE_ERROR - level,
	      "nfs_hostchange: %s", line);
}

/* The list index if Dovecot uses one in a file and has got so far. */
static struct mailbox_list_index *list_index_of(struct mailbox_list *list)
{
	struct mailbox_list_index *ilist = INDEX_LIST_CONTEXT(list);

	return ilist == NULL || ilist->pending_init ? NULL : ilist;
}

static bool list_index_is_in_memory(struct mailbox_list *list)
{
	struct mailbox_list_index *ilist = list_index_of(list);

	return ilist != NULL && ilist->opened &&
		mail_index_is_in_memory(ilist->index);
}

static void
forget_ext(struct mail_index_view *view, struct mail_index_transaction *trans,
	   uint32_t seq, uint32_t ext_id, size_t keep, size_t size)
{
	unsigned char zeroed[sizeof(struct mailbox_list_index_record) +
			     sizeof(struct mailbox_list_index_msgs_record)];
	const void *data;
	bool expunged;
	size_t i;

	i_assert(size <= sizeof(zeroed));
	mail_index_lookup_ext(view, seq, ext_id, &data, &expunged);
	if (data == NULL || expunged)
		return;
	memset(zeroed, 0, size);
	memcpy(zeroed, data, keep);
	for (i = keep; i < size; i++) {
		if (((const unsigned char *)data)[i] != 0) {
			mail_index_update_ext(trans, seq, ext_id, zeroed, NULL);
			return;
		}
	}
}

/* One ordinary transaction, which every session that has the list index open
   sees as any other: the folders are to be listed again, and what is known of
   each is unknown. */
static int forget_all(struct mailbox_list_index *ilist)
{
	struct mail_index_transaction *trans;
	struct mail_index_view *view;
	uint8_t refresh = 1;
	uint32_t seq, count;
	int ret;

	if (mail_index_refresh(ilist->index) < 0)
		return -1;
	view = mail_index_view_open(ilist->index);
	trans = mail_index_transaction_begin(view,
		MAIL_INDEX_TRANSACTION_FLAG_EXTERNAL);
	mail_index_update_header_ext(trans, ilist->ext_id,
		offsetof(struct mailbox_list_index_header, refresh_flag),
		&refresh, sizeof(refresh));
	count = mail_index_view_get_messages_count(view);
	for (seq = 1; seq <= count; seq++) {
		forget_ext(view, trans, seq, ilist->ext_id,
			   offsetof(struct mailbox_list_index_record, guid),
			   sizeof(struct mailbox_list_index_record));
		forget_ext(view, trans, seq, ilist->msgs_ext_id, 0,
			   sizeof(struct mailbox_list_index_msgs_record));
		forget_ext(view, trans, seq, ilist->hmodseq_ext_id, 0,
			   sizeof(uint64_t));
		forget_ext(view, trans, seq, ilist->first_saved_ext_id, 0,
			   sizeof(struct mailbox_index_first_saved));
	}
	ret = mail_index_transaction_commit(&trans);
	mail_index_view_close(&view);
	/* The same moment's look at it does not count. */
	i_zero(&ilist->last_refresh_timeval);
	return ret;
}

static int hostchange_forget(void *context)
{
	struct mailbox_list *list = context;
	struct mailbox_list_index *ilist = list_index_of(list);
	bool forgotten = FALSE;

	if (ilist == NULL)
		return 0;
	/* Dovecot keeps the mailboxes' indexes open for a while. But an NFS
	   client sees what another backend has written when it opens a file,
	   and what is counted here is what every session believes. */
	mail_index_alloc_cache_destroy_unrefed();
	mailbox_list_last_error_push(list);
	if (mailbox_list_index_index_open(list) == 0) {
		if (forget_all(ilist) < 0) {
			/* This session must not use what is in the file, so
			   it gets one in memory. */
			mail_index_reset_error(ilist->index);
			if (mail_index_move_to_memory(ilist->index) < 0 ||
			    forget_all(ilist) < 0)
				mail_index_reset_error(ilist->index);
		}
		forgotten = !mail_index_is_in_memory(ilist->index);
	}
	mailbox_list_last_error_pop(list);
	return forgotten ? 1 : 0;
}

/* Before the list index is used, but not while it is being written to. */
static void hostchange_before_reading(struct mailbox_list *list)
{
	struct hostchange_list *hlist = LIST_CONTEXT(list);
	struct mailbox_list_index *ilist = list_index_of(list);

	if (hlist == NULL || ilist == NULL || hlist->finding_out ||
	    ilist->sync_ctx != NULL || ilist->syncing || ilist->updating_status)
		return;
	nfs_hostchange_list_before_reading(hlist->rust,
					   list_index_is_in_memory(list));
}

static void hostchange_before_change(struct mailbox_list *list)
{
	struct hostchange_list *hlist = LIST_CONTEXT(list);

	if (hlist != NULL)
		nfs_hostchange_list_before_change(hlist->rust);
}

static void hostchange_look_after_change(struct mailbox_list *list)
{
	struct hostchange_list *hlist = LIST_CONTEXT_REQUIRE(list);

	timeout_remove(&hlist->to_look);
	nfs_hostchange_list_look_after_change(hlist->rust);
}

static void hostchange_after_change(struct mailbox_list *list)
{
	struct hostchange_list *hlist = LIST_CONTEXT(list);
	unsigned int msecs;

	if (hlist == NULL)
		return;
	msecs = nfs_hostchange_list_after_change(hlist->rust,
						 list_index_is_in_memory(list));
	if (msecs > 0 && hlist->to_look == NULL && current_ioloop != NULL) {
		/* Not in one that lasts for this command only. */
		hlist->to_look = timeout_add_short_to(io_loop_get_root(),
			msecs, hostchange_look_after_change, list);
	}
}

#define CHANGING(list, call) ({ \
	int _ret; \
	hostchange_before_change(list); \
	_ret = (call); \
	hostchange_after_change(list); \
	_ret; })

/* Whether transaction commits change what a list index shows. */
static bool transaction_changes(struct mailbox_transaction_context *t)
{
	struct mail_index_transaction *itrans = t->itrans;

	if (MAILBOX_IS_NEVER_IN_INDEX(t->box))
		return FALSE;
	return t->save_count > 0 ||
		(itrans != NULL &&
		 (itrans->log_updates ||
		  (array_is_created(&itrans->updates) &&
		   array_count(&itrans->updates) > 0)));
}

static int
hostchange_transaction_commit(struct mailbox_transaction_context *t,
			      struct mail_transaction_commit_changes *changes_r)
{
	struct mailbox_list *list = t->box->list;
	struct hostchange_box *hbox = BOX_CONTEXT_REQUIRE(t->box);

	if (!transaction_changes(t))
		return hbox->module_ctx.super.transaction_commit(t, changes_r);
	return CHANGING(list,
		hbox->module_ctx.super.transaction_commit(t, changes_r));
}

static int
hostchange_create_box(struct mailbox *box, const struct mailbox_update *update,
		      bool directory)
{
	struct hostchange_box *hbox = BOX_CONTEXT_REQUIRE(box);

	return CHANGING(box->list,
		hbox->module_ctx.super.create_box(box, update, directory));
}

static int
hostchange_update_box(struct mailbox *box, const struct mailbox_update *update)
{
	struct hostchange_box *hbox = BOX_CONTEXT_REQUIRE(box);

	return CHANGING(box->list,
		hbox->module_ctx.super.update_box(box, update));
}

static int hostchange_delete_box(struct mailbox *box)
{
	struct hostchange_box *hbox = BOX_CONTEXT_REQUIRE(box);

	return CHANGING(box->list,
		hbox->module_ctx.super.delete_box(box));
}

static int hostchange_rename_box(struct mailbox *src, struct mailbox *dest)
{
	struct hostchange_box *hbox = BOX_CONTEXT_REQUIRE(src);

	if (dest->list == src->list) {
		return CHANGING(src->list,
			hbox->module_ctx.super.rename_box(src, dest));
	}
	return CHANGING(src->list, CHANGING(dest->list,
		hbox->module_ctx.super.rename_box(src, dest)));
}

static bool is_mdbox(struct mailbox *box)
{
	return strcmp(box->storage->name, MDBOX_STORAGE_NAME) == 0;
}

/* A mere reader may find damage, which is mended with the next sync or when
   the mailbox is closed. */
static bool is_damaged(struct mailbox *box)
{
	if (is_mdbox(box))
		return MDBOX_IS_DAMAGED((struct mdbox_storage *)box->storage);
	if (strcmp(box->storage->name, SDBOX_STORAGE_NAME) == 0)
		return ((struct sdbox_mailbox *)box)->corrupted_rebuild_count != 0;
	return FALSE;
}

static int hostchange_open(struct mailbox *box)
{
	struct hostchange_box *hbox = BOX_CONTEXT_REQUIRE(box);

	if (hbox->module_ctx.super.open(box) < 0)
		return -1;
	/* A mailbox of mdbox whose index was lost or spoiled is empty from now
	   on. */
	if (is_mdbox(box) && !box->creating && !MAILBOX_IS_NEVER_IN_INDEX(box) &&
	    !mail_index_is_in_memory(box->index) &&
	    mail_index_get_header(box->view)->uid_validity == 0) {
		hostchange_before_change(box->list);
		hostchange_after_change(box->list);
	}
	return 0;
}

static void hostchange_close(struct mailbox *box)
{
	struct hostchange_box *hbox = BOX_CONTEXT_REQUIRE(box);
	bool changes = is_damaged(box);

	if (changes)
		hostchange_before_change(box->list);
	hbox->module_ctx.super.close(box);
	if (changes)
		hostchange_after_change(box->list);
}

static struct mailbox_sync_context *
hostchange_sync_init(struct mailbox *box, enum mailbox_sync_flags flags)
{
	struct hostchange_box *hbox = BOX_CONTEXT_REQUIRE(box);

	if ((flags & MAILBOX_SYNC_FLAG_FORCE_RESYNC) != 0 || is_damaged(box)) {
		hbox->resyncing = TRUE;
		hostchange_before_change(box->list);
	}
	return hbox->module_ctx.super.sync_init(box, flags);
}

static int
hostchange_sync_deinit(struct mailbox_sync_context *ctx,
		       struct mailbox_sync_status *status_r)
{
	struct mailbox *box = ctx->box;
	struct hostchange_box *hbox = BOX_CONTEXT_REQUIRE(box);
	int ret;

	ret = hbox->module_ctx.super.sync_deinit(ctx, status_r);
	if (hbox->resyncing) {
		hbox->resyncing = FALSE;
		hostchange_after_change(box->list);
	}
	return ret;
}

static void hostchange_mailbox_allocated(struct mailbox *box)
{
	struct mailbox_vfuncs *v = box->vlast;
	struct hostchange_box *hbox;

	if (LIST_CONTEXT(box->list) == NULL)
		return;
	hostchange_before_reading(box->list);

	hbox = p_new(box->pool, struct hostchange_box, 1);
	hbox->module_ctx.super = *v;
	box->vlast = &hbox->module_ctx.super;
	v->create_box = hostchange_create_box;
	v->update_box = hostchange_update_box;
	v->delete_box = hostchange_delete_box;
	v->rename_box = hostchange_rename_box;
	v->transaction_commit = hostchange_transaction_commit;
	v->open = hostchange_open;
	v->close = hostchange_close;
	v->sync_init = hostchange_sync_init;
	v->sync_deinit = hostchange_sync_deinit;
	MODULE_CONTEXT_SET(box, nfs_hostchange_box_module, hbox);
}

static struct mailbox_list_iterate_context *
hostchange_iter_init(struct mailbox_list *list, const char *const *patterns,
		     enum mailbox_list_iter_flags flags)
{
	struct hostchange_list *hlist = LIST_CONTEXT_REQUIRE(list);

	hostchange_before_reading(list);
	return hlist->module_ctx.super.iter_init(list, patterns, flags);
}

/* How many mailboxes nothing is known of. */
static uint32_t count_forgotten(struct mailbox_list_index *ilist)
{
	struct mail_index_view *view = mail_index_view_open(ilist->index);
	uint32_t seq, count = mail_index_view_get_messages_count(view);
	const struct mailbox_list_index_record *rec;
	uint32_t forgotten = 0;
	const void *data;
	bool expunged;

	for (seq = 1; seq <= count; seq++) {
		mail_index_lookup_ext(view, seq, ilist->ext_id,
				      &data, &expunged);
		rec = data;
		if (rec != NULL && rec->uid_validity == 0 &&
		    (mail_index_lookup(view, seq)->flags &
		     (MAILBOX_LIST_INDEX_FLAG_NONEXISTENT |
		      MAILBOX_LIST_INDEX_FLAG_NOSELECT)) == 0)
			forgotten++;
	}
	mail_index_view_close(&view);
	return forgotten;
}

/* The list index is not looked at again in the meantime. */
static int find_out(struct mailbox_list *list, const char *vname,
		    struct mailbox_status *status_r)
{
	struct hostchange_list *hlist = LIST_CONTEXT_REQUIRE(list);
	struct mailbox *box;
	int ret;

	hlist->finding_out = TRUE;
	box = mailbox_alloc(list, vname, MAILBOX_FLAG_READONLY);
	ret = mailbox_get_status(box, STATUS_MESSAGES | STATUS_UIDNEXT |
				 STATUS_UIDVALIDITY | STATUS_UNSEEN |
				 STATUS_HIGHESTMODSEQ, status_r);
	mailbox_free(&box);
	hlist->finding_out = FALSE;
	return ret;
}

/* NOTIFY tells of what changes in the list index: so what Dovecot was made to
   forget is put back before it looks, and only true changes are left. */
static void find_out_again(struct mailbox_list *list,
			   enum mailbox_list_notify_event mask)
{
	struct hostchange_list *hlist = LIST_CONTEXT_REQUIRE(list);
	struct mailbox_list_index *ilist = list_index_of(list);
	struct mailbox_list_iterate_context *iter;
	const struct mailbox_info *info;
	struct mailbox_status status;

	if (ilist == NULL || (mask & MAILBOX_LIST_NOTIFY_STATUS) == 0 ||
	    mailbox_list_index_refresh(list) < 0 ||
	    count_forgotten(ilist) <= hlist->unknown)
		return;
	hlist->finding_out = TRUE;
	iter = mailbox_list_iter_init(list, "*",
				      MAILBOX_LIST_ITER_NO_AUTO_BOXES);
	hlist->finding_out = FALSE;
	while ((info = mailbox_list_iter_next(iter)) != NULL) {
		if ((info->flags & (MAILBOX_NOSELECT |
				    MAILBOX_NONEXISTENT)) == 0) T_BEGIN {
			(void)find_out(list, info->vname, &status);
		} T_END;
	}
	(void)mailbox_list_iter_deinit(&iter);
	hlist->unknown = mailbox_list_index_refresh(list) < 0 ? 0 :
		count_forgotten(ilist);
}

/* Of a mailbox that is newer than the NOTIFY, Dovecot remembers nothing, and
   takes everything for a change. */
static bool is_told(struct hostchange_notify *hnotify,
		    const struct mailbox_list_notify_rec *rec)
{
	struct mailbox_status status;
	struct hostchange_told now, *told;

	if ((rec->events & MAILBOX_LIST_NOTIFY_UIDVALIDITY) == 0 ||
	    (rec->events & (MAILBOX_LIST_NOTIFY_CREATE |
			    MAILBOX_LIST_NOTIFY_DELETE |
			    MAILBOX_LIST_NOTIFY_RENAME |
			    MAILBOX_LIST_NOTIFY_SUBSCRIBE |
			    MAILBOX_LIST_NOTIFY_UNSUBSCRIBE)) != 0)
		return FALSE;
	if (find_out(hnotify->notify->list, rec->vname, &status) < 0)
		return FALSE;
	i_zero(&now);
	now.uidvalidity = status.uidvalidity;
	now.uidnext = status.uidnext;
	now.messages = status.messages;
	now.unseen = status.unseen;
	now.modseq = status.highest_modseq;
	told = hash_table_lookup(hnotify->told, rec->vname);
	if (told == NULL) {
		told = p_new(hnotify->pool, struct hostchange_told, 1);
		hash_table_insert(hnotify->told,
				  p_strdup(hnotify->pool, rec->vname), told);
	}
	if (memcmp(told, &now, sizeof(now)) == 0)
		return TRUE;
	*told = now;
	return FALSE;
}

static struct hostchange_notify *
hostchange_notify_of(struct mailbox_list_notify *notify)
{
	struct hostchange_list *hlist = LIST_CONTEXT_REQUIRE(notify->list);
	struct hostchange_notify *hnotify = hlist->notifies;

	while (hnotify->notify != notify)
		hnotify = hnotify->next;
	return hnotify;
}

static int
hostchange_notify_init(struct mailbox_list *list,
		       enum mailbox_list_notify_event mask,
		       struct mailbox_list_notify **notify_r)
{
	struct hostchange_list *hlist = LIST_CONTEXT_REQUIRE(list);
	struct hostchange_notify *hnotify;
	pool_t pool;

	/* Without list index nobody can say what changes. */
	if (hlist->module_ctx.super.notify_init == NULL)
		return -1;
	hostchange_before_reading(list);
	find_out_again(list, mask);
	if (hlist->module_ctx.super.notify_init(list, mask, notify_r) < 0)
		return -1;
	pool = pool_alloconly_create("nfs_hostchange notify", 1024);
	hnotify = p_new(pool, struct hostchange_notify, 1);
	hnotify->pool = pool;
	hnotify->notify = *notify_r;
	hash_table_create(&hnotify->told, pool, 0, str_hash, strcmp);
	DLLIST_PREPEND(&hlist->notifies, hnotify);
	return 0;
}

static int
hostchange_notify_next(struct mailbox_list_notify *notify,
		       const struct mailbox_list_notify_rec **rec_r)
{
	struct hostchange_list *hlist = LIST_CONTEXT_REQUIRE(notify->list);
	struct hostchange_notify *hnotify = hostchange_notify_of(notify);
	int ret;

	if (!hnotify->notifying)
		find_out_again(notify->list, notify->mask);
	do {
		ret = hlist->module_ctx.super.notify_next(notify, rec_r);
	} while (ret > 0 && is_told(hnotify, *rec_r));
	hnotify->notifying = ret > 0;
	return ret;
}

/* As often as Dovecot itself looks at what it cannot watch. If another backend
   has claimed the user, the list index' log changes, which Dovecot watches. */
static void
hostchange_notify_wait(struct mailbox_list_notify *notify,
		       void (*callback)(void *context), void *context)
{
	struct mailbox_list *list = notify->list;
	struct hostchange_list *hlist = LIST_CONTEXT_REQUIRE(list);
	struct hostchange_notify *hnotify = hostchange_notify_of(notify);

	timeout_remove(&hnotify->to_look);
	if (callback != NULL) {
		hnotify->to_look = timeout_add_to(io_loop_get_root(),
			list->mail_set->mailbox_idle_check_interval * 1000,
			hostchange_before_reading, list);
	}
	hlist->module_ctx.super.notify_wait(notify, callback, context);
}

static void hostchange_notify_deinit(struct mailbox_list_notify *notify)
{
	struct hostchange_list *hlist = LIST_CONTEXT_REQUIRE(notify->list);
	struct hostchange_notify *hnotify = hostchange_notify_of(notify);

	timeout_remove(&hnotify->to_look);
	DLLIST_REMOVE(&hlist->notifies, hnotify);
	hash_table_destroy(&hnotify->told);
	pool_unref(&hnotify->pool);
	hlist->module_ctx.super.notify_deinit(notify);
}

static void hostchange_list_deinit(struct mailbox_list *list)
{
	struct hostchange_list *hlist = LIST_CONTEXT_REQUIRE(list);

	timeout_remove(&hlist->to_look);
	/* Dovecot's list index code comes after this, so it is open still. */
	nfs_hostchange_list_free(hlist->rust, list_index_is_in_memory(list));
	hlist->rust = NULL;
	hlist->module_ctx.super.deinit(list);
}

/* LMTP and LDA read the mail that they deliver through a user like this. */
static bool is_raw_mail_user(struct mail_user *user)
{
	return strcmp(user->username, "raw mail user") == 0 ||
		strcmp(user->username, "raw-mail-user") == 0;
}

static void hostchange_list_created(struct mailbox_list *list)
{
	struct mailbox_list_vfuncs *v = list->vlast;
	struct mail_namespace *ns = list->ns;
	struct mail_user *user = ns->user;
	struct nfs_hostchange_where where;
	struct nfs_hostchange_caller caller = {
		.context = list,
		.log = hostchange_log,
		.forget = hostchange_forget,
	};
	struct hostchange_list *hlist;
	struct nfs_hostchange_list *rust;
	const char *index_dir, *list_index_dir, *problem, *mbox_dir = "";
	int use;

	if (!list_is_local(list) || is_raw_mail_user(user) ||
	    (list->props & MAILBOX_LIST_PROP_NO_LIST_INDEX) != 0)
		return;
	problem = list_problem(list);
	if (list_is_layout_index(list)) {
		e_error(user->event, "nfs_hostchange: %s", problem);
		return;
	}
	if (ns->type == MAIL_NAMESPACE_TYPE_PUBLIC) {
		/* Everybody's list index would be void with everybody's
		   change, wherever that is made. */
		list->props |= MAILBOX_LIST_PROP_NO_LIST_INDEX;
		return;
	}
	if (problem != NULL) {
		e_error(user->event, "nfs_hostchange: session without list "
			"index: %s", problem);
		list->props |= MAILBOX_LIST_PROP_NO_LIST_INDEX;
		return;
	}
	if (!list_get_directory(list, MAILBOX_LIST_PATH_TYPE_INDEX,
				&index_dir) ||
	    !list_get_directory(list, MAILBOX_LIST_PATH_TYPE_LIST_INDEX,
				&list_index_dir))
		return;
	if (list_is_mbox(list) && HAS_NO_MAILBOX_ROOT(list))
		mbox_dir = MBOX_INDEX_DIR;

	index_dir = p_strconcat(list->pool, index_dir, mbox_dir, NULL);
	list_index_dir = p_strconcat(list->pool, list_index_dir, mbox_dir, NULL);
	i_zero(&where);
	where.index_directory = index_dir;
	where.list_index_directory = list_index_dir;
	where.prefix = LIST_INDEX_NAME(list);
	where.maildirplusplus =
		strcmp(list->name, MAILBOX_LIST_NAME_MAILDIRPLUSPLUS) == 0;
	where.migration = SETTING(user, "nfs_hostchange_migration");
	where.recheck = SETTING(user, "nfs_hostchange_recheck");
	where.owns = ns->type == MAIL_NAMESPACE_TYPE_PRIVATE &&
		ns->owner == user;
	where.serves = strcmp(user->service, "imap") == 0;
	where.keeps_rights = getuid() != 0;
	where.must_not_wait =
		master_service_get_client_limit(master_service) > 1;

	rust = nfs_hostchange_list_new(&where, caller, &use);
	if (use == NFS_HOSTCHANGE_WITHOUT)
		list->props |= MAILBOX_LIST_PROP_NO_LIST_INDEX;
	if (rust == NULL)
		return;

	hlist = p_new(list->pool, struct hostchange_list, 1);
	hlist->rust = rust;
	hlist->index_dir = index_dir;
	hlist->list_index_dir = list_index_dir;
	hlist->module_ctx.super = *v;
	list->vlast = &hlist->module_ctx.super;
	v->deinit = hostchange_list_deinit;
	v->iter_init = hostchange_iter_init;
	v->notify_init = hostchange_notify_init;
	v->notify_next = hostchange_notify_next;
	v->notify_wait = hostchange_notify_wait;
	v->notify_deinit = hostchange_notify_deinit;
	MODULE_CONTEXT_SET(list, nfs_hostchange_list_module, hlist);
}

static void
check_path(struct mailbox_list *list, enum mailbox_list_path_type type,
	   const char *expected)
{
	const char *path;

	if (!mailbox_list_get_root_path(list, type, &path) || path == NULL)
		path = "";
	if (strcmp(path, expected) != 0) {
		e_error(list->ns->user->event, "nfs_hostchange: the paths of "
			"namespace '%s' are not final when lists are created: "
			"%s became %s", list->ns->prefix, expected, path);
	}
}

/* A storage driver may have changed the paths in the meantime. */
static void hostchange_namespaces_added(struct mail_namespace *namespaces)
{
	struct mail_namespace *ns;

	for (ns = namespaces; ns != NULL; ns = ns->next) {
		struct hostchange_list *hlist = LIST_CONTEXT(ns->list);

		if (hlist == NULL || hlist->paths_are_final)
			continue;
		hlist->paths_are_final = TRUE;
		check_path(ns->list, MAILBOX_LIST_PATH_TYPE_INDEX,
			   hlist->index_dir);
		check_path(ns->list, MAILBOX_LIST_PATH_TYPE_LIST_INDEX,
			   hlist->list_index_dir);
	}
}

static struct mail_storage_hooks nfs_hostchange_hooks = {
	.mailbox_list_created = hostchange_list_created,
	.mail_namespaces_added = hostchange_namespaces_added,
	.mailbox_allocated = hostchange_mailbox_allocated,
};

void nfs_hostchange_plugin_init(struct module *module)
{
	mail_storage_hooks_add(module, &nfs_hostchange_hooks);
}

void nfs_hostchange_plugin_deinit(void)
{
	mail_storage_hooks_remove(&nfs_hostchange_hooks);
}
