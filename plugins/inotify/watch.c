/* SPDX-License-Identifier: Apache-2.0 */
/* Watches: one mark on an inode for each instance that watches it, with a number that is not used again until all others were
 * (inotify_add_watch(2)). A watch ends by inotify_rm_watch(2), IN_ONESHOT, the end of its file or its filesystem, or that of the instance;
 * whichever comes first takes the mark off, and that queues IN_IGNORED. */
#include "private.h"
#include <string.h>
#include <sys/sysmacros.h>

#define OPTIONS (IN_ONESHOT | IN_EXCL_UNLINK)

/* ---- Limits of each user ---- */

enum { MAX_QUEUED, MAX_INSTANCES, MAX_WATCHES, N_LIMITS };

static const TesLockClass accounts_class = {"inotify accounts", TES_RANK_LEAF, FALSE,
                                            "instances and watches of each user"};
typedef struct {
  guint instances, watches;
} Account;
typedef struct {
  TesMutex lock;
  GHashTable *users;    /* uid -> Account */
  guint watches;        /* of all users: a guest makes as many users as it likes */
  gint limit[N_LIMITS]; /* atomic: /proc/sys/fs/inotify */
} Accounts;
#define ALL_WATCHES (4 * 65536)
static char accounts_key;

static void accounts_free(gpointer p) {
  Accounts *a = p;
  g_hash_table_destroy(a->users);
  tes_mutex_clear(&a->lock);
  g_free(a);
}

gboolean inotify_accounts_init(TesKernel *k, GError **error) {
  (void)error;
  Accounts *a = g_new0(Accounts, 1);
  tes_mutex_init(&a->lock, &accounts_class);
  a->limit[MAX_QUEUED] = 16384; /* as small machines have them */
  a->limit[MAX_INSTANCES] = 128;
  a->limit[MAX_WATCHES] = 65536;
  a->users = g_hash_table_new_full(NULL, NULL, NULL, g_free);
  tes_kernel_set_data(k, &accounts_key, a, accounts_free);
  return TRUE;
}

static guint limit_of(Accounts *a, guint which) { return (guint)g_atomic_int_get(&a->limit[which]); }

guint inotify_max_queued(TesKernel *k) { return limit_of(tes_kernel_get_data(k, &accounts_key), MAX_QUEUED); }

static int show(TesCtx *ctx, GString *s, guint which) {
  g_string_append_printf(s, "%u\n", limit_of(tes_kernel_get_data(ctx->kernel, &accounts_key), which));
  return 0;
}

static int store(TesCtx *ctx, const char *text, guint which) {
  Accounts *a = tes_kernel_get_data(ctx->kernel, &accounts_key);
  guint64 n;
  g_autofree char *word = g_strstrip(g_strdup(text));
  if (!g_ascii_string_to_unsigned(word, 10, 0, G_MAXINT32, &n, NULL))
    return -EINVAL;
  g_atomic_int_set(&a->limit[which], (gint)n);
  return 0;
}

#define SETTING(name_, which_)                                                      \
  static int show_##name_(TesCtx *ctx, GString *s) { return show(ctx, s, which_); } \
  static int store_##name_(TesCtx *ctx, const char *text) { return store(ctx, text, which_); }
SETTING(max_queued_events, MAX_QUEUED)
SETTING(max_user_instances, MAX_INSTANCES)
SETTING(max_user_watches, MAX_WATCHES)

#define ROW(name_) \
  { #name_, 0644, show_##name_, store_##name_ }
static const TesSysctl settings[] = {ROW(max_queued_events), ROW(max_user_instances), ROW(max_user_watches)};
const TesSysctlTable inotify_sysctl = {sizeof(TesSysctlTable), settings, G_N_ELEMENTS(settings)};

/* Adds to what the user has, unless that goes past a limit. */
static gboolean account(TesKernel *k, guint32 uid, gint instances, gint watches) {
  Accounts *all = tes_kernel_get_data(k, &accounts_key);
  if (!all) /* the kernel is being taken down */
    return FALSE;
  TES_LOCKED(&all->lock);
  Account *a = g_hash_table_lookup(all->users, GUINT_TO_POINTER(uid));
  if (!a) {
    a = g_new0(Account, 1);
    g_hash_table_insert(all->users, GUINT_TO_POINTER(uid), a);
  }
  gboolean ok = (instances <= 0 || a->instances < limit_of(all, MAX_INSTANCES)) &&
                (watches <= 0 || (a->watches < limit_of(all, MAX_WATCHES) && all->watches < ALL_WATCHES));
  if (ok) {
    a->instances += (guint)instances;
    a->watches += (guint)watches;
    all->watches += (guint)watches;
  }
  if (!a->instances && !a->watches)
    g_hash_table_remove(all->users, GUINT_TO_POINTER(uid));
  return ok;
}

gboolean inotify_account_instance(TesKernel *k, guint32 uid) { return account(k, uid, 1, 0); }
void inotify_unaccount_instance(TesKernel *k, guint32 uid) { account(k, uid, -1, 0); }

/* ---- The mark's operations ---- */

/* Under the lock of all marks. */
static gboolean watch_event(TesNotifyMark *m, const TesNotifyEvent *e) {
  Watch *w = (Watch *)m;
  Inotify *s = w->set;
  gboolean once;
  {
    TES_LOCKED(&s->lock);
    if (e->unlinked && (w->flags & IN_EXCL_UNLINK))
      return FALSE;
    once = (w->flags & IN_ONESHOT) != 0;
    inotify_queue(s, w->wd, e->mask, e->cookie, e->name);
  }
  inotify_wake(s);
  return once;
}

static void watch_off(TesNotifyMark *m) {
  Watch *w = (Watch *)m;
  Inotify *s = w->set;
  {
    TES_LOCKED(&s->lock);
    inotify_queue(s, w->wd, IN_IGNORED, 0, NULL);
    g_hash_table_remove(s->by_inode, w);
    g_hash_table_remove(s->by_wd, GINT_TO_POINTER(w->wd));
  }
  account(w->kernel, w->uid, 0, -1);
  inotify_wake(s);
}

static void watch_unref(Watch *w) {
  if (g_atomic_int_dec_and_test(&w->refs))
    g_free(w);
}

static void watch_free(TesNotifyMark *m) { watch_unref((Watch *)m); }

static const TesNotifyMarkOps mark_ops = {
    .size = sizeof(TesNotifyMarkOps), .event = watch_event, .off = watch_off, .free = watch_free};

/* ---- The set ---- */

/* Kept in the watch: whatever becomes of the inode's number, the watch is found again to be removed. */
static guint hash_of(const TesInode *i) { return (guint)(((gsize)i->super >> 4) ^ i->ino ^ (i->ino >> 32)); }
static guint inode_hash(gconstpointer p) { return ((const Watch *)p)->hash; }
static gboolean inode_equal(gconstpointer a, gconstpointer b) {
  return a == b || tes_notify_same_inode(((const Watch *)a)->mark.inode, ((const Watch *)b)->mark.inode);
}

void inotify_watches_init(Inotify *s) {
  s->by_wd = g_hash_table_new(NULL, NULL);
  s->by_inode = g_hash_table_new(inode_hash, inode_equal);
}

/* The event bits are read by whoever delivers, without the set's lock. */
static int change(Watch *w, guint32 mask) {
  guint events = mask & IN_ALL_EVENTS, options = mask & OPTIONS;
  if (mask & IN_MASK_CREATE)
    return -EEXIST;
  if (mask & IN_MASK_ADD) {
    events |= w->mark.mask;
    options |= w->flags;
  }
  __atomic_store_n(&w->mark.mask, events, __ATOMIC_RELAXED);
  w->flags = options;
  return w->wd;
}

static gint new_wd(Inotify *s) {
  do
    s->last_wd = s->last_wd == G_MAXINT32 ? 1 : s->last_wd + 1;
  while (g_hash_table_contains(s->by_wd, GINT_TO_POINTER(s->last_wd)));
  return s->last_wd;
}

int inotify_add(Inotify *s, TesInode *inode, guint32 mask) {
  Watch key = {.mark.inode = inode, .hash = hash_of(inode)};
  TES_LOCKED(&s->update);
  {
    TES_LOCKED(&s->lock);
    Watch *there = g_hash_table_lookup(s->by_inode, &key);
    if (there)
      return change(there, mask);
  }
  TesKernel *k = s->file.kernel;
  if (!account(k, s->uid, 0, 1))
    return -ENOSPC;
  Watch *w = g_new0(Watch, 1);
  *w = (Watch){.mark = {.ops = &mark_ops, .inode = inode, .mask = mask & IN_ALL_EVENTS},
               .set = s,
               .refs = 2,
               .hash = key.hash,
               .flags = mask & OPTIONS,
               .uid = s->uid,
               .kernel = k};
  {
    TES_LOCKED(&s->lock);
    w->wd = new_wd(s);
    g_hash_table_insert(s->by_wd, GINT_TO_POINTER(w->wd), w);
    g_hash_table_add(s->by_inode, w);
  }
  int wd = w->wd;
  tes_notify_attach(&w->mark, inode); /* from here on it may end at any time */
  watch_unref(w);
  return wd;
}

/* Any watch (wd 0) or a certain one, with a reference. */
static Watch *get(Inotify *s, gint wd) {
  TES_LOCKED(&s->lock);
  Watch *w = NULL;
  if (wd) {
    w = g_hash_table_lookup(s->by_wd, GINT_TO_POINTER(wd));
  } else {
    GHashTableIter i;
    g_hash_table_iter_init(&i, s->by_wd);
    g_hash_table_iter_next(&i, NULL, (gpointer *)&w);
  }
  if (w)
    g_atomic_int_inc(&w->refs);
  return w;
}

int inotify_remove(Inotify *s, gint wd) {
  TES_LOCKED(&s->update);
  Watch *w = wd > 0 ? get(s, wd) : NULL;
  if (!w)
    return -EINVAL;
  gboolean mine = tes_notify_detach(&w->mark);
  watch_unref(w);
  return mine ? 0 : -EINVAL;
}

void inotify_watches_clear(Inotify *s) {
  for (Watch *w; (w = get(s, 0)); watch_unref(w))
    tes_notify_detach(&w->mark);
  g_hash_table_destroy(s->by_wd);
  g_hash_table_destroy(s->by_inode);
}

/* Lines of /proc/PID/fdinfo/N (proc_pid_fdinfo(5)), the newest watch last. */
static gint by_number(gconstpointer a, gconstpointer b) {
  return ((const Watch *)a)->wd - ((const Watch *)b)->wd;
}

char *inotify_watches_show(Inotify *s) {
  GString *out = g_string_new(NULL);
  TES_LOCKED(&s->lock);
  GList *all = g_list_sort(g_hash_table_get_values(s->by_wd), by_number);
  for (GList *l = all; l; l = l->next) {
    const Watch *w = l->data;
    const TesInode *i = w->mark.inode;
    guint64 dev = i->super ? i->super->dev : 0;
    g_string_append_printf(out, "inotify wd:%x ino:%" G_GINT64_MODIFIER "x sdev:%x mask:%x ignored_mask:0 \n",
                           w->wd, i->ino, (guint)(major(dev) << 20 | minor(dev)), w->mark.mask | w->flags);
  }
  g_list_free(all);
  return g_string_free(out, FALSE);
}
