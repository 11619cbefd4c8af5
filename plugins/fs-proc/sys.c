/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/sys: the values that programs read. Those that can be changed say so; the rest are fixed. */
#include "proc.h"
#include <sys/random.h>

/* A fixed text. */
#define FIXED(fn_, text_)                            \
  static int fn_(Node *n, TesCtx *ctx, GString *s) { \
    (void)n, (void)ctx;                              \
    g_string_append(s, text_ "\n");                  \
    return 0;                                        \
  }

FIXED(ostype, "Linux")
FIXED(osrelease, "6.1.0-tessera")
FIXED(version, "#1 SMP")
FIXED(pid_max, "32768")
FIXED(threads_max, "32768")
FIXED(cap_last_cap, "40")
FIXED(ngroups_max, "65536")
FIXED(core_pattern, "core")
FIXED(overflow_id, "65534")
FIXED(zero, "0")
FIXED(two, "2")
FIXED(shmmax, "18446744073692774399")
FIXED(shmall, "18446744073692774399")
FIXED(shmmni, "4096")
FIXED(msgmax, "8192")
FIXED(msgmnb, "16384")
FIXED(sem, "32000\t1024000000\t500\t32000")
FIXED(entropy_avail, "256")
FIXED(max_map_count, "65530")
FIXED(mmap_min_addr, "65536")
FIXED(swappiness, "60")
FIXED(mount_max, "100000")
FIXED(file_max, "9223372036854775807")
FIXED(nr_open, "1048576")
FIXED(pipe_max_size, "1048576")
FIXED(file_nr, "0\t0\t9223372036854775807")
FIXED(actions_avail, "kill_process kill_thread trap errno user_notif trace log allow")
FIXED(actions_logged, "kill_process kill_thread trap errno user_notif trace log")
FIXED(somaxconn, "4096")
FIXED(max_dgram_qlen, "512")

static int add_uuid(GString *s) {
  g_autofree char *u = g_uuid_string_random();
  g_string_append_printf(s, "%s\n", u);
  return 0;
}
static int random_uuid(Node *n, TesCtx *ctx, GString *s) {
  (void)n, (void)ctx;
  return add_uuid(s);
}
static int boot_id(Node *n, TesCtx *ctx, GString *s) {
  (void)n, (void)ctx;
  static gsize once;
  static GString *id;
  if (g_once_init_enter(&once)) {
    id = g_string_new(NULL);
    add_uuid(id);
    g_once_init_leave(&once, 1);
  }
  g_string_append(s, id->str);
  return 0;
}

static int uts_name(TesCtx *ctx, GString *s, gboolean domain) {
  char buf[65];
  TesTask *t = tes_ctx_task(ctx);
  tes_uts_get(t ? (TesNs *)tes_ctx_get(ctx, TES_CTX_UTS_NS) : tes_kernel_root_ns(ctx->kernel, CLONE_NEWUTS),
              domain, buf, sizeof buf);
  g_string_append_printf(s, "%s\n", buf);
  return 0;
}
static int hostname(Node *n, TesCtx *ctx, GString *s) {
  (void)n;
  return uts_name(ctx, s, FALSE);
}
static int domainname(Node *n, TesCtx *ctx, GString *s) {
  (void)n;
  return uts_name(ctx, s, TRUE);
}

static const Entry random_dir[] = {R_FILE("boot_id", boot_id),
                                   R_FILE("entropy_avail", entropy_avail),
                                   R_FILE("uuid", random_uuid),
                                   {.name = NULL}};
static const Entry seccomp_dir[] = {
    R_FILE("actions_avail", actions_avail), R_FILE("actions_logged", actions_logged), {.name = NULL}};
static const Entry kernel_dir[] = {R_FILE("cap_last_cap", cap_last_cap),
                                   R_FILE("core_pattern", core_pattern),
                                   R_FILE("domainname", domainname),
                                   R_FILE("hostname", hostname),
                                   R_FILE("msgmax", msgmax),
                                   R_FILE("msgmnb", msgmnb),
                                   R_FILE("ngroups_max", ngroups_max),
                                   R_FILE("osrelease", osrelease),
                                   R_FILE("ostype", ostype),
                                   R_FILE("overflowgid", overflow_id),
                                   R_FILE("overflowuid", overflow_id),
                                   R_FILE("pid_max", pid_max),
                                   {.name = "random", .mode = S_IFDIR | 0555, .dir = random_dir},
                                   R_FILE("randomize_va_space", two),
                                   {.name = "seccomp", .mode = S_IFDIR | 0555, .dir = seccomp_dir},
                                   R_FILE("sem", sem),
                                   R_FILE("shmall", shmall),
                                   R_FILE("shmmax", shmmax),
                                   R_FILE("shmmni", shmmni),
                                   R_FILE("threads-max", threads_max),
                                   R_FILE("version", version),
                                   {.name = NULL}};
static const Entry vm_dir[] = {R_FILE("max_map_count", max_map_count),
                               R_FILE("mmap_min_addr", mmap_min_addr),
                               R_FILE("overcommit_memory", zero),
                               R_FILE("swappiness", swappiness),
                               {.name = NULL}};
/* protected_*: what links, FIFOs and files of others in sticky directories may be used for. */
static int set_protected(TesProtected p, const char *text) {
  guint64 n;
  g_autofree char *word = g_strstrip(g_strdup(text));
  return g_ascii_string_to_unsigned(word, 10, 0, 9, &n, NULL) ? tes_set_protected(p, (gint)n) : -EINVAL;
}
#define PROTECTED(name_, which_)                                                 \
  static int show_##name_(Node *n, TesCtx *ctx, GString *s) {                    \
    (void)n, (void)ctx;                                                          \
    g_string_append_printf(s, "%d\n", tes_protected(which_));                    \
    return 0;                                                                    \
  }                                                                              \
  static int change_##name_(Node *n, TesCtx *ctx, const char *text, gsize len) { \
    (void)n, (void)ctx, (void)len;                                               \
    return set_protected(which_, text);                                          \
  }
PROTECTED(fifos, TES_PROTECTED_FIFOS)
PROTECTED(hardlinks, TES_PROTECTED_HARDLINKS)
PROTECTED(regular, TES_PROTECTED_REGULAR)
PROTECTED(symlinks, TES_PROTECTED_SYMLINKS)
#define PROTECTED_FILE(name_) \
  { .name = "protected_" #name_, .mode = S_IFREG | 0644, .text = show_##name_, .write = change_##name_ }
static const Entry fs_dir[] = {
    R_FILE("file-max", file_max),
    R_FILE("mount-max", mount_max),
    R_FILE("file-nr", file_nr),
    {.name = "inotify", .mode = S_IFDIR | 0555, .lookup = sysctl_lookup, .list = sysctl_list},
    {.name = "mqueue", .mode = S_IFDIR | 0555, .lookup = sysctl_lookup, .list = sysctl_list},
    R_FILE("nr_open", nr_open),
    R_FILE("pipe-max-size", pipe_max_size),
    PROTECTED_FILE(fifos),
    PROTECTED_FILE(hardlinks),
    PROTECTED_FILE(regular),
    PROTECTED_FILE(symlinks),
    {.name = NULL}};
static const Entry core_dir[] = {R_FILE("somaxconn", somaxconn), {.name = NULL}};
static const Entry unix_dir[] = {R_FILE("max_dgram_qlen", max_dgram_qlen), {.name = NULL}};
static const Entry net_dir[] = {{.name = "core", .mode = S_IFDIR | 0555, .dir = core_dir},
                                {.name = "unix", .mode = S_IFDIR | 0555, .dir = unix_dir},
                                {.name = NULL}};
const Entry proc_sys_dir[] = {{.name = "fs", .mode = S_IFDIR | 0555, .dir = fs_dir},
                              {.name = "kernel", .mode = S_IFDIR | 0555, .dir = kernel_dir},
                              {.name = "net", .mode = S_IFDIR | 0555, .dir = net_dir},
                              {.name = "vm", .mode = S_IFDIR | 0555, .dir = vm_dir},
                              {.name = NULL}};
