/* SPDX-License-Identifier: Apache-2.0 */
/* Flags of mounts: mount(2), mount_setattr(2), and how /proc/PID/mountinfo words them. */
#include "rules.h"

#define ATIME (MS_NOATIME | MS_RELATIME | MS_STRICTATIME)

gulong rules_mount_flags(gulong ms) {
  gulong f = ms & RULES_MOUNT_FLAGS;
  if (f & MS_STRICTATIME)
    return f & ~(gulong)ATIME;
  return f & MS_NOATIME ? f & ~(gulong)MS_RELATIME : f | MS_RELATIME;
}

gulong rules_remount_flags(gulong old, gulong ms) {
  gulong f = rules_mount_flags(ms), times = ATIME | MS_NODIRATIME;
  return ms & times ? f : (f & ~times) | (old & times);
}

gulong rules_changed_flags(gulong old, const TesMountAttr *a) {
  /* A strict mount has no flag for it. */
  gulong strict = (old | a->set) & ATIME ? 0 : MS_STRICTATIME;
  return rules_mount_flags((old & ~a->clear) | a->set | strict);
}

char *rules_mount_options(gulong flags) {
  static const struct {
    gulong flag;
    const char *text;
  } table[] = {{MS_NOSUID, ",nosuid"},          {MS_NODEV, ",nodev"},           {MS_NOEXEC, ",noexec"},
               {MS_NOATIME, ",noatime"},        {MS_NODIRATIME, ",nodiratime"}, {MS_RELATIME, ",relatime"},
               {MS_NOSYMFOLLOW, ",nosymfollow"}};
  GString *s = g_string_new(flags & MS_RDONLY ? "ro" : "rw");
  for (guint i = 0; i < G_N_ELEMENTS(table); i++)
    if (flags & table[i].flag)
      g_string_append(s, table[i].text);
  return g_string_free(s, FALSE);
}
