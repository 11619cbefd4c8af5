/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/sys/fs/inotify: the bounds of inotify(7), which root may change. */
#include "proc.h"

static int show(GString *s, TesNotifyLimit l) {
  g_string_append_printf(s, "%u\n", tes_notify_limit(l));
  return 0;
}
static int change(TesNotifyLimit l, const char *text) {
  guint64 n;
  g_autofree char *word = g_strstrip(g_strdup(text));
  if (!g_ascii_string_to_unsigned(word, 10, 0, G_MAXINT32, &n, NULL))
    return -EINVAL;
  tes_notify_set_limit(l, (guint)n);
  return 0;
}

#define LIMIT(name_, limit_)                                                     \
  static int show_##name_(Node *n, TesCtx *ctx, GString *s) {                    \
    (void)n, (void)ctx;                                                          \
    return show(s, limit_);                                                      \
  }                                                                              \
  static int change_##name_(Node *n, TesCtx *ctx, const char *text, gsize len) { \
    (void)n, (void)ctx, (void)len;                                               \
    return change(limit_, text);                                                 \
  }
LIMIT(queued, TES_NOTIFY_MAX_QUEUED)
LIMIT(instances, TES_NOTIFY_MAX_INSTANCES)
LIMIT(watches, TES_NOTIFY_MAX_WATCHES)

#define RW_FILE(name_, fn_) \
  { .name = (name_), .mode = S_IFREG | 0644, .text = show_##fn_, .write = change_##fn_ }

const Entry proc_sys_inotify_dir[] = {RW_FILE("max_queued_events", queued),
                                      RW_FILE("max_user_instances", instances),
                                      RW_FILE("max_user_watches", watches),
                                      {.name = NULL}};
