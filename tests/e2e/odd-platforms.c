/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin of platforms that do not work, each in its own way: what `tessera doctor` must survive and tell apart. */
#include <errno.h>
#include <signal.h>
#include <tessera/tessera.h>
#include <unistd.h>

static int refuse(char **why_not) {
  *why_not = g_strdup("the moon is\nnot full");
  return -EPERM;
}

static int crash(char **why_not) {
  (void)why_not;
  signal(SIGSEGV, SIG_DFL);
  raise(SIGSEGV);
  return 0;
}

/* With a helper that would live on, and keeps what it inherited open. */
static int hang(char **why_not) {
  (void)why_not;
  if (fork() < 0)
    return -errno;
  while (pause() < 0)
    ;
  return 0;
}

static int agree(char **why_not) {
  (void)why_not;
  return 0;
}

static TesPlatform *open_nothing(const TesPlatformArgs *args, GError **error) {
  (void)args;
  g_set_error_literal(error, TES_ERROR, TES_ERROR_PLATFORM, "there is nothing to open");
  return NULL;
}

#define OPS(function, how)                       \
  static const TesPlatformOps function##_ops = { \
      .size = sizeof(TesPlatformOps), .flags = how, .probe = function, .open = open_nothing}
OPS(refuse, TES_PLATFORM_PREFERRED);
OPS(crash, TES_PLATFORM_PREFERRED);
OPS(hang, TES_PLATFORM_PREFERRED);
OPS(agree, 0);

static const TesFeature features[] = {
    {"platform", "refuses", &refuse_ops},
    {"platform", "crashes", &crash_ops},
    {"platform", "hangs", &hang_ops},
    {"platform", "zz-breaks", &agree_ops},
    {NULL, NULL, NULL},
};
TES_PLUGIN_DEFINE(odd_platforms, .name = "odd-platforms", .summary = "platforms that do not work",
                  .licence = "Apache-2.0", .features = features);
