/* SPDX-License-Identifier: Apache-2.0 */
/* Propagation: mount_namespaces(7). A mount may be a member of a peer group (shared), receive from one (a slave of it), or
 * both. What is attached below a member, or taken away there, is attached or taken away below the other members and, down the
 * line, below the slaves. The mount lock is held throughout; chains of groups may be long, so they are walked with lists. */
#include "vfs2.h"

/* ---- Groups ---- */

void v2_group_join(Mount *m, Group *g) {
  m->group = g;
  m->gprev = NULL;
  m->gnext = g->members;
  if (m->gnext)
    m->gnext->gprev = m;
  g->members = m;
}

Group *v2_group_new(Mount *m) {
  Group *g = g_new0(Group, 1);
  g->id = ++m->v->next_group_id;
  v2_group_join(m, g);
  return g;
}

void v2_slave_of(Mount *m, Group *g) {
  if (m->master) {
    if (m->mprev)
      m->mprev->mnext = m->mnext;
    else
      m->master->slaves = m->mnext;
    if (m->mnext)
      m->mnext->mprev = m->mprev;
  }
  m->master = g;
  m->mprev = m->mnext = NULL;
  if (!g)
    return;
  m->mnext = g->slaves;
  if (m->mnext)
    m->mnext->mprev = m;
  g->slaves = m;
}

/* The last member's slaves receive from its own master from now on, if it has one. */
static void leave(Mount *m) {
  Group *g = m->group;
  if (!g)
    return;
  if (m->gprev)
    m->gprev->gnext = m->gnext;
  else
    g->members = m->gnext;
  if (m->gnext)
    m->gnext->gprev = m->gprev;
  m->group = NULL;
  m->gnext = m->gprev = NULL;
  if (g->members)
    return;
  while (g->slaves)
    v2_slave_of(g->slaves, m->master);
  g_free(g);
}

void v2_set_propagation(Mount *m, gulong type) {
  if (type == MS_SHARED) {
    m->unbindable = FALSE;
    if (!m->group)
      v2_group_new(m);
    return;
  }
  Group *g = m->group;
  gboolean peers = g && (m->gnext || m->gprev);
  leave(m);
  if (type != MS_SLAVE) {
    v2_slave_of(m, NULL);
    m->unbindable = type == MS_UNBINDABLE;
  } else if (peers) {
    v2_slave_of(m, g);
  }
}

/* ---- Who receives ---- */

typedef struct {
  Group *group;
  Mount *source; /* what the group's mounts get copies of */
  Mount *skip;   /* has it already */
} Job;

static gboolean receives(const Mount *m, const Dentry *mountpoint) {
  return m->ns && !m->ns->detached && v2_tree_below(mountpoint, m->root);
}

static Mount *first_receiver(const Group *g, const Dentry *mountpoint) {
  Mount *m = g->members;
  while (m && !receives(m, mountpoint))
    m = m->gnext;
  return m;
}

/* A group is looked at once in one propagation. */
static gboolean visit(V2 *v, Group *g) {
  if (g->mark == v->mark)
    return FALSE;
  g->mark = v->mark;
  return TRUE;
}

/* All mounts that receive what happens below a shared mount; borrowed. */
static GPtrArray *receivers(V2 *v, Mount *parent) {
  GPtrArray *out = g_ptr_array_new(), *groups = g_ptr_array_new();
  v->mark++;
  if (parent->group && visit(v, parent->group))
    g_ptr_array_add(groups, parent->group);
  for (guint i = 0; i < groups->len; i++) {
    Group *g = groups->pdata[i];
    for (Mount *m = g->members; m; m = m->gnext)
      if (m != parent)
        g_ptr_array_add(out, m);
    for (Mount *s = g->slaves; s; s = s->mnext)
      if (!s->group)
        g_ptr_array_add(out, s);
      else if (visit(v, s->group))
        g_ptr_array_add(groups, s->group);
  }
  g_ptr_array_unref(groups);
  return out;
}

/* ---- Attaching ---- */

typedef struct {
  V2 *v;
  Dentry *mountpoint;
  guint size;         /* mounts of the tree */
  GPtrArray *parents; /* Mount, borrowed */
  GPtrArray *copies;  /* Mount, beside it */
} Spread;

static Mount *add_copy(Spread *s, Mount *parent, Mount *source, guint how) {
  if (parent->ns->n + parent->ns->pending + s->size > V2_MOUNTS_MAX)
    return NULL;
  Mount *k = v2_tree_copy(source, source->root, COPY_TREE | how);
  if (!k)
    return NULL;
  parent->ns->pending += s->size;
  g_ptr_array_add(s->parents, parent);
  g_ptr_array_add(s->copies, k);
  return k;
}

static gboolean spread_slaves(Spread *s, GArray *jobs, const Job *j) {
  for (Mount *m = j->group->slaves; m; m = m->mnext) {
    if (!m->group) {
      if (receives(m, s->mountpoint) && !add_copy(s, m, j->source, COPY_SLAVE))
        return FALSE;
      continue;
    }
    if (!visit(s->v, m->group))
      continue;
    Job next = {m->group, j->source, first_receiver(m->group, s->mountpoint)};
    if (next.skip && !(next.source = add_copy(s, next.skip, j->source, COPY_SLAVE | COPY_SHARE)))
      return FALSE;
    g_array_append_val(jobs, next);
  }
  return TRUE;
}

static gboolean spread(Spread *s, Mount *tree, Mount *parent) {
  g_autoptr(GArray) jobs = g_array_new(FALSE, FALSE, sizeof(Job));
  Job first = {parent->group, tree, parent};
  s->v->mark++;
  visit(s->v, parent->group);
  g_array_append_val(jobs, first);
  for (guint i = 0; i < jobs->len; i++) {
    Job j = g_array_index(jobs, Job, i);
    for (Mount *m = j.group->members; m; m = m->gnext)
      if (m != j.skip && receives(m, s->mountpoint) && !add_copy(s, m, j.source, 0))
        return FALSE;
    if (!spread_slaves(s, jobs, &j))
      return FALSE;
  }
  return TRUE;
}

/* What is mounted there already goes on top of the copy, as if it had come later. */
static void attach_below(V2 *v, Mount *m, Mount *parent, Dentry *mp) {
  Mount *over = v2_mount_find(v, parent, mp);
  Pos top = {m, m->root};
  v2_mount_top(v, &top);
  if (over)
    v2_mount_attach(over, parent->ns, top.mnt, top.d);
  v2_mount_attach(m, parent->ns, parent, mp);
  v2_ns_changed(parent->ns);
}

static void spread_end(Spread *s, gboolean keep, GSList **dead) {
  for (guint i = 0; i < s->copies->len; i++) {
    Mount *parent = s->parents->pdata[i], *k = s->copies->pdata[i];
    parent->ns->pending = 0;
    if (keep)
      attach_below(s->v, k, parent, s->mountpoint);
    else
      v2_tree_dissolve(k, dead);
  }
}

int v2_attach_tree(V2 *v, Mount *tree, Mount *parent, Dentry *mountpoint, GSList **dead) {
  Spread s = {v, mountpoint, v2_tree_size(tree), g_ptr_array_new(), g_ptr_array_new()};
  TesMountNs *ns = parent->ns;
  GSList *fresh = NULL;
  gboolean ok = ns == tree->ns || ns->n + s.size <= V2_MOUNTS_MAX;
  if (ok && parent->group) {
    for (Mount *m = tree; m; m = v2_mount_next(m, tree))
      if (!m->group) {
        v2_group_new(m);
        fresh = g_slist_prepend(fresh, m);
      }
    ns->pending = ns == tree->ns ? 0 : s.size;
    ok = spread(&s, tree, parent);
    ns->pending = 0;
  }
  if (ok) {
    v2_mount_attach(tree, ns, parent, mountpoint);
    v2_ns_changed(ns);
  }
  spread_end(&s, ok, dead);
  for (GSList *l = ok ? NULL : fresh; l; l = l->next)
    leave(l->data);
  g_slist_free(fresh);
  g_ptr_array_unref(s.parents);
  g_ptr_array_unref(s.copies);
  return ok ? 0 : -ENOSPC;
}

/* ---- Taking away ---- */

/* What would stay at a mount's place once the doomed are gone. */
static Mount *what_remains(V2 *v, Mount *m) {
  while (m && m->doomed)
    m = v2_mount_find(v, m, m->root);
  return m;
}

/* A mount that others keep busy by having mounted in it stays; what is mounted right over its root takes its place. */
static gboolean may_go(V2 *v, Mount *m) {
  for (Mount *c = m->children; c; c = c->snext)
    if (c->mountpoint != m->root && what_remains(v, c))
      return FALSE;
  return TRUE;
}

typedef struct {
  V2 *v;
  GPtrArray *doomed;
  GPtrArray *candidates; /* looked at; not all of them go */
  GHashTable *seen;      /* Spot: its counterparts are candidates */
} Umount;

/* Where mounts with the same counterparts are. */
typedef struct {
  const Group *group;
  const Dentry *mountpoint;
} Spot;

static guint spot_hash(gconstpointer p) {
  const Spot *s = p;
  return g_direct_hash(s->group) * 31 + g_direct_hash(s->mountpoint);
}
static gboolean spot_equal(gconstpointer a, gconstpointer b) {
  const Spot *x = a, *y = b;
  return x->group == y->group && x->mountpoint == y->mountpoint;
}

/* A candidate goes when nothing keeps it; then the one it is mounted on may be free to go too. */
static void doom(Umount *u, Mount *m) {
  for (; m && m->candidate && !m->doomed && may_go(u->v, m); m = m->parent) {
    m->doomed = TRUE;
    g_ptr_array_add(u->doomed, m);
  }
}

/* What is mounted where `m` propagates to. */
static void find_counterparts(Umount *u, Mount *m) {
  if (!m->parent || !m->parent->group)
    return;
  Spot spot = {m->parent->group, m->mountpoint};
  if (g_hash_table_contains(u->seen, &spot))
    return;
  g_hash_table_add(u->seen, g_memdup2(&spot, sizeof spot));
  g_autoptr(GPtrArray) all = receivers(u->v, m->parent);
  for (guint i = 0; i < all->len; i++) {
    Mount *c = v2_mount_find(u->v, all->pdata[i], m->mountpoint);
    if (!c || c->doomed || c->candidate || !c->ns || c->ns->detached)
      continue;
    c->candidate = TRUE;
    g_ptr_array_add(u->candidates, c);
    doom(u, c);
  }
}

/* What is mounted over the root of a doomed mount and stays moves to where that was. */
static void keep_topper(V2 *v, Mount *m) {
  Mount *t = v2_mount_find(v, m, m->root);
  if (!t || t->doomed)
    return;
  Mount *parent = m->parent;
  Dentry *mp = m->mountpoint;
  while (parent->doomed) {
    mp = parent->mountpoint;
    parent = parent->parent;
  }
  v2_mount_unlink(m); /* its place must be free first */
  v2_mount_attach(t, parent->ns, parent, mp);
}

void v2_umount_tree(Mount *top, GSList **dead) {
  V2 *v = top->v;
  Umount u = {v, g_ptr_array_new(), g_ptr_array_new(),
              g_hash_table_new_full(spot_hash, spot_equal, g_free, NULL)};
  for (Mount *m = top; m; m = v2_mount_next(m, top)) {
    m->doomed = TRUE;
    g_ptr_array_add(u.doomed, m);
  }
  guint n = u.doomed->len;
  for (guint i = n; i-- > 0;) /* children first */
    find_counterparts(&u, u.doomed->pdata[i]);
  for (guint i = 0; i < u.candidates->len; i++)
    ((Mount *)u.candidates->pdata[i])->candidate = FALSE;
  for (guint i = 0; i < u.doomed->len; i++) {
    Mount *m = u.doomed->pdata[i];
    if (m->ns)
      v2_ns_changed(m->ns);
    if (i >= n)
      keep_topper(v, m);
  }
  for (guint i = 0; i < u.doomed->len; i++) {
    Mount *m = u.doomed->pdata[i];
    m->doomed = FALSE;
    v2_mount_unlink(m);
    v2_mount_retire(m);
    *dead = g_slist_prepend(*dead, m);
  }
  g_ptr_array_unref(u.doomed);
  g_ptr_array_unref(u.candidates);
  g_hash_table_unref(u.seen);
}

gboolean v2_umount_busy(Mount *m) {
  V2 *v = m->v;
  if (!m->parent->group)
    return FALSE;
  g_autoptr(GPtrArray) all = receivers(v, m->parent);
  for (guint i = 0; i < all->len; i++) {
    Mount *c = v2_mount_find(v, all->pdata[i], m->mountpoint);
    if (c && c != m && may_go(v, c) && g_atomic_int_get(&c->refs) > 1)
      return TRUE;
  }
  return FALSE;
}

/* ---- /proc/PID/mountinfo ---- */

/* The closest group up the line that has a member the process can see. */
static guint dominating(const Mount *m, const Pos *root) {
  for (const Group *g = m->master; g; g = g->members->master)
    for (Mount *p = g->members; p; p = p->gnext) {
      Pos at = {p, p->root};
      if (p->ns == m->ns && v2_pos_below(&at, root))
        return g->id;
    }
  return 0;
}

char *v2_propagation_text(Mount *m, const Pos *root) {
  GString *s = g_string_new(NULL);
  if (m->group)
    g_string_append_printf(s, "shared:%u", m->group->id);
  if (m->master) {
    guint from = dominating(m, root);
    g_string_append_printf(s, "%smaster:%u", s->len ? " " : "", m->master->id);
    if (from && from != m->master->id)
      g_string_append_printf(s, " propagate_from:%u", from);
  }
  if (m->unbindable)
    g_string_append_printf(s, "%sunbindable", s->len ? " " : "");
  return g_string_free(s, FALSE);
}
