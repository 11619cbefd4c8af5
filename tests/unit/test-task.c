/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers in nested pid namespaces, RLIMIT_NPROC counts, credentials at exec: the parts of core/task that need no running kernel. */
#include <core/task/life.h>
#include <linux/capability.h>
#include <sys/stat.h>

static const TesLockClass task_set_class = {"test task set", TES_RANK_TASK_SET, FALSE, ""};
static TesKernel *k;

static void setup(guint pid_max) {
  k = g_new0(TesKernel, 1);
  tes_mutex_init(&k->task_set, &task_set_class);
  k->pgrps = g_hash_table_new(NULL, NULL);
  k->sessions = g_hash_table_new(NULL, NULL);
  k->pid_max = pid_max;
  g_assert_true(tes_kernel_init_namespaces(k, "box"));
  tes_mutex_lock(&k->task_set);
}

static void teardown(void) {
  g_assert_cmpuint(g_hash_table_size(TES_PID_NS(k->root_pid)->map), ==, 0);
  tes_mutex_unlock(&k->task_set);
  TesNs *ns[] = {k->root_uts,    k->root_ipc,  k->root_pid, k->root_net,
                 k->root_cgroup, k->root_time, k->root_user};
  for (guint i = 0; i < G_N_ELEMENTS(ns); i++) {
    g_assert_cmpint(ns[i]->refs, ==, 1);
    tes_ns_unref(ns[i]);
  }
  g_hash_table_unref(k->pgrps);
  g_hash_table_unref(k->sessions);
  g_hash_table_unref(k->uid_tasks);
  tes_mutex_clear(&k->task_set);
  g_free(k);
}

static void drop(TesTask *t) {
  tes_pid_free(k, t->nrs, t->n_nrs);
  t->nrs = NULL;
}

static void test_wrap(void) {
  setup(700);
  TesTask *t = g_new0(TesTask, 700);
  for (gint i = 1; i < 700; i++) {
    g_assert_cmpint(tes_pid_alloc(k, k->root_pid, &t[i], NULL, 0), ==, 0);
    g_assert_cmpint(t[i].tid, ==, i);
  }
  g_assert_cmpint(tes_pid_alloc(k, k->root_pid, &t[0], NULL, 0), ==, -EAGAIN);
  drop(&t[5]);
  drop(&t[650]);
  g_assert_cmpint(tes_pid_alloc(k, k->root_pid, &t[650], NULL, 0), ==, 0); /* after a wrap: not below 300 */
  g_assert_cmpint(t[650].tid, ==, 650);
  TesPid *p = tes_pid_ref(tes_pid_of(t[400].nrs)); /* a session keeps the number in use */
  drop(&t[400]);
  gint want = 400;
  TES_PID_NS(k->root_pid)->n_tasks = 1; /* the namespace has its init */
  g_assert_cmpint(tes_pid_alloc(k, k->root_pid, &t[400], &want, 1), ==, -EEXIST);
  tes_pid_unref(k, p);
  g_assert_cmpint(tes_pid_alloc(k, k->root_pid, &t[400], &want, 1), ==, 0);
  for (gint i = 1; i < 700; i++)
    if (t[i].nrs)
      drop(&t[i]);
  g_free(t);
  teardown();
}

static void test_nested(void) {
  setup(32768);
  TesNs *inner = tes_pid_ns_new(k, k->root_pid), *innermost = tes_pid_ns_new(k, inner);
  TesTask a = {0}, b = {0}, c = {0};
  g_assert_cmpint(tes_pid_alloc(k, k->root_pid, &a, NULL, 0), ==, 0);
  g_assert_cmpint(tes_pid_alloc(k, innermost, &b, NULL, 0), ==, 0);
  g_assert_cmpint(tes_pid_alloc(k, inner, &c, NULL, 0), ==, 0);
  TesPid *pb = tes_pid_of(b.nrs);
  g_assert_cmpint(tes_pid_in(pb, NULL), ==, 2);
  g_assert_cmpint(tes_pid_in(pb, inner), ==, 1);
  g_assert_cmpint(tes_pid_in(pb, innermost), ==, 1);
  g_assert_cmpint(tes_pid_in(tes_pid_of(a.nrs), inner), ==, 0);
  g_assert_cmpint(tes_pid_in(tes_pid_of(c.nrs), inner), ==, 2);
  g_assert_true(tes_pid_find(k, innermost, 1) == pb);
  g_assert_null(tes_pid_find(k, innermost, 2));
  TesTask d = {0};
  gint bad[] = {77}, three[] = {5, 6, 7, 8};
  TesNs *fresh = tes_pid_ns_new(k, inner);
  g_assert_cmpint(tes_pid_alloc(k, fresh, &d, bad, 1), ==, -EINVAL); /* the first one is init */
  g_assert_cmpint(tes_pid_alloc(k, inner, &d, three, 4), ==, -EINVAL);
  g_assert_cmpuint(g_hash_table_size(TES_PID_NS(k->root_pid)->map), ==, 3); /* nothing half allocated */
  TES_PID_NS(inner)->dying = TRUE;
  g_assert_cmpint(tes_pid_alloc(k, inner, &d, NULL, 0), ==, -ENOMEM);
  drop(&a);
  drop(&b);
  drop(&c);
  tes_ns_unref(fresh);
  tes_ns_unref(innermost);
  tes_ns_unref(inner);
  teardown();
}

static void test_counts(void) {
  setup(32768);
  k->task_limit = 100;
  tes_uid_count(k, 1000, 3);
  g_assert_true(tes_uid_may_add(k, 1000, 4, FALSE));
  g_assert_false(tes_uid_may_add(k, 1000, 3, FALSE));
  g_assert_true(tes_uid_may_add(k, 1000, 3, TRUE));
  k->n_tasks = 100; /* the sandbox's own limit spares nobody */
  g_assert_false(tes_uid_may_add(k, 0, RLIM_INFINITY, TRUE));
  tes_uid_count(k, 1000, -3);
  g_assert_cmpuint(g_hash_table_size(k->uid_tasks), ==, 0);
  teardown();
}

static void test_exec_caps(void) {
  setup(100);
  gboolean gained;
  TesCred *root = tes_cred_new_root(k->root_user),
          *user = tes_cred_new_user(k->root_user, 1000, 1000, NULL, 0), *c;
  g_assert_true(tes_cred_capable(root, CAP_SYS_ADMIN));
  g_assert_false(tes_cred_capable(user, CAP_CHOWN));
  c = tes_cred_for_exec(root, 0755, 0, 0, &gained);
  g_assert_cmpuint(c->cap_effective, ==, TES_CAP_ALL);
  g_assert_false(gained);
  tes_cred_unref(c);
  c = tes_cred_for_exec(user, 04755, 0, 0, &gained); /* set-user-ID root */
  g_assert_cmpuint(c->euid, ==, 0);
  g_assert_cmpuint(c->suid, ==, 0);
  g_assert_cmpuint(c->uid, ==, 1000);
  g_assert_cmpuint(c->cap_permitted, ==, TES_CAP_ALL);
  g_assert_true(gained);
  tes_cred_unref(c);
  user->no_new_privs = TRUE;
  c = tes_cred_for_exec(user, 04755, 0, 0, &gained);
  g_assert_cmpuint(c->euid, ==, 1000);
  g_assert_cmpuint(c->cap_permitted, ==, 0);
  g_assert_false(gained);
  tes_cred_unref(c);
  user->cap_permitted = user->cap_inheritable = user->cap_ambient = 1ULL << CAP_CHOWN;
  c = tes_cred_for_exec(user, 0755, 0, 0, &gained); /* ambient capabilities survive */
  g_assert_cmpuint(c->cap_effective, ==, 1ULL << CAP_CHOWN);
  g_assert_false(gained);
  tes_cred_unref(c);
  tes_cred_unref(root);
  tes_cred_unref(user);
  teardown();
}

static void test_groups(void) {
  setup(100);
  guint32 groups[] = {50, 7, 4000000000u, 20};
  TesCred *c = tes_cred_new_user(k->root_user, 1, 2, groups, 4), *copy = tes_cred_copy(c);
  g_assert_true(tes_cred_in_group(c, 7));
  g_assert_true(tes_cred_in_group(c, 4000000000u));
  g_assert_true(tes_cred_in_group(c, 2));
  g_assert_false(tes_cred_in_group(c, 8));
  tes_cred_set_groups(copy, NULL, 0);
  g_assert_false(tes_cred_in_group(copy, 7));
  g_assert_true(tes_cred_in_group(c, 7));
  tes_cred_unref(c);
  tes_cred_unref(copy);
  teardown();
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/task/pid/wrap", test_wrap);
  g_test_add_func("/task/pid/nested", test_nested);
  g_test_add_func("/task/nproc", test_counts);
  g_test_add_func("/task/cred/exec", test_exec_caps);
  g_test_add_func("/task/cred/groups", test_groups);
  return g_test_run();
}
