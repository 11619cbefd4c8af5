/* SPDX-License-Identifier: Apache-2.0 */
/* `tessera do`: one program in a sandbox of its own, with the caller's standard streams; the exit status is the program's. */
#include <glib-unix.h>
#include <runtime/do.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
  TesKernel *kernel;
  Stdio *stdio;
  int strace_fd, stats_fd, json_fd; /* of --strace-to, --stats and --trace=json; or 0 */
  int signal_fd;
  GSource *signals;
} Sandbox;

/* Signals that `tessera do` hands on to the program. */
static const int forwarded[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT};

/* Blocked before any thread exists, so that only the signal descriptor sees them. */
static void block_signals(sigset_t *set) {
  sigemptyset(set);
  for (gsize i = 0; i < G_N_ELEMENTS(forwarded); i++)
    sigaddset(set, forwarded[i]);
  sigaddset(set, SIGWINCH);
  pthread_sigmask(SIG_BLOCK, set, NULL);
  signal(SIGPIPE, SIG_IGN);
}

static gboolean on_signal(int fd, GIOCondition cond, gpointer data) {
  (void)cond;
  Sandbox *s = data;
  struct signalfd_siginfo si;
  while (read(fd, &si, sizeof si) == sizeof si) {
    if (si.ssi_signo == SIGWINCH)
      stdio_resized(s->stdio);
    else
      tes_kernel_send_external_signal(s->kernel, si.ssi_signo, "to tessera do");
  }
  return G_SOURCE_CONTINUE;
}

static gboolean watch_signals(Sandbox *s, const sigset_t *set, GError **error) {
  s->signal_fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (s->signal_fd < 0) {
    g_set_error(error, TES_ERROR, TES_ERROR_FAILED, "signalfd: %s", g_strerror(errno));
    return FALSE;
  }
  s->signals = g_unix_fd_source_new(s->signal_fd, G_IO_IN);
  g_source_set_callback(s->signals, G_SOURCE_FUNC(on_signal), s, NULL);
  g_source_attach(s->signals, tes_kernel_main_context(s->kernel));
  return TRUE;
}

static char **make_env(const DoOptions *o) {
  char **env = o->clear_env ? g_new0(char *, 1) : g_get_environ();
  for (guint i = 0; i < o->env->len; i++) {
    g_auto(GStrv) pair = g_strsplit(g_ptr_array_index(o->env, i), "=", 2);
    env = g_environ_setenv(env, pair[0], pair[1], TRUE);
  }
  return env;
}

/* The caller's directory if the sandbox has it too. */
static char *choose_cwd(Sandbox *s, const DoOptions *o) {
  if (o->cwd)
    return g_strdup(o->cwd);
  g_autofree char *here = g_get_current_dir();
  TesAt at = {.path = here, .flags = TES_AT_DIRECTORY};
  TesPath *p = NULL;
  if (o->root || tes_vfs_walk(tes_kernel_supervisor_ctx(s->kernel), &at, &p) < 0)
    return g_strdup("/");
  tes_path_unref(p);
  return g_steal_pointer(&here);
}

static TesThreadGroup *create(Sandbox *s, const DoOptions *o, char **argv, GError **error) {
  g_auto(GStrv) env = make_env(o);
  g_autofree char *cwd = choose_cwd(s, o);
  g_autofree char *program = find_program(s->kernel, argv[0], g_environ_getenv(env, "PATH"), cwd, error);
  if (!program)
    return NULL;
  TesFdTable *fds = tes_fdtable_new();
  TesThreadGroup *tg = NULL;
  TesNs *user_ns = tes_kernel_root_ns(s->kernel, CLONE_NEWUSER);
  g_autoptr(TesCred) cred =
      o->have_user ? tes_cred_new_user(user_ns, o->uid, o->gid, NULL, 0) : tes_cred_new_root(user_ns);
  s->stdio = stdio_new(s->kernel, fds, error);
  if (s->stdio) {
    TesProcessArgs a = {.size = sizeof a,
                        .filename = program,
                        .argv = (const char *const *)argv,
                        .envv = (const char *const *)env,
                        .cwd = cwd,
                        .cred = cred,
                        .umask = 022,
                        .fdtable = fds,
                        .tty = stdio_tty(s->stdio),
                        .container_id = "do"};
    tg = tes_kernel_create_process(s->kernel, &a, NULL, error);
    /* The caller's directory may be closed to --user: that is no reason not to start. */
    if (!tg && !o->cwd && g_error_matches(*error, TES_ERROR, TES_ERROR_CONFIG) && !g_str_equal(cwd, "/")) {
      g_clear_error(error);
      a.cwd = "/";
      tg = tes_kernel_create_process(s->kernel, &a, NULL, error);
    }
  }
  tes_fdtable_unref(fds, tes_kernel_supervisor_ctx(s->kernel));
  return tg;
}

/* Starts the program, waits for it, ends whatever it left behind. Its wait(2) status, or -1. */
static int run_program(Sandbox *s, const DoOptions *o, char **argv, GError **error) {
  TesThreadGroup *tg = create(s, o, argv, error);
  if (!tg)
    return -1;
  int status = -1;
  if (tes_kernel_start(s->kernel, error)) {
    status = tes_tg_wait(tg);
    tes_kernel_kill(s->kernel, SIGKILL);
    tes_kernel_wait_exited(s->kernel);
  } else { /* a process that never ran cannot be taken down: leave it to the host */
    stdio_free(s->stdio);
    _exit(report(*error));
  }
  tes_tg_unref(tg);
  return status;
}

/* A descriptor > 0 of a file that a flag names. */
static gboolean open_output(const char *flag, const char *path, int *fd, GError **error) {
  if (!path)
    return TRUE;
  *fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  if (*fd == 0) { /* tessera was started without standard input; 0 would mean none */
    *fd = fcntl(0, F_DUPFD_CLOEXEC, 3);
    close(0);
  }
  if (*fd < 0)
    g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "--%s=%s: %s", flag, path, g_strerror(errno));
  return *fd >= 0;
}

static gboolean open_outputs(Sandbox *s, const DoOptions *o, GError **error) {
  s->stats_fd = o->stats ? STDERR_FILENO : 0;
  s->json_fd = o->json ? STDERR_FILENO : 0;
  return open_output("strace-to", o->strace_to, &s->strace_fd, error) &&
         open_output("stats", o->stats_to, &s->stats_fd, error) &&
         open_output("trace=json", o->json_to, &s->json_fd, error);
}

static void close_outputs(Sandbox *s) {
  int fds[] = {s->strace_fd, s->stats_fd, s->json_fd};
  for (gsize i = 0; i < G_N_ELEMENTS(fds); i++)
    if (fds[i] > STDERR_FILENO)
      close(fds[i]);
}

static TesKernel *make_kernel(TesRegistry *r, const DoOptions *o, const Sandbox *s, GError **error) {
  TesTimekeeper *tk = tes_timekeeper_new();
  tes_timekeeper_set_clocks(tk, NULL, NULL);
  TesKernelArgs a = {.size = sizeof a,
                     .timekeeper = tk,
                     .platform = o->platform,
                     .vfs = o->vfs,
                     .device = o->device,
                     .application_cores = o->cpus,
                     .strace = o->strace,
                     .trace_path = o->trace_path,
                     .dcache_max = o->dcache,
                     .strace_fd = s->strace_fd,
                     .strace_filter = o->strace_filter,
                     .stats_fd = s->stats_fd,
                     .json_fd = s->json_fd,
                     .json_regs = o->json_regs,
                     .strace_plain = o->strace_plain,
                     .inject = o->inject->len > 1 ? (const char *const *)o->inject->pdata : NULL,
                     .cpuid = o->cpuid,
                     .hostname = o->hostname,
                     .memory_limit = o->memory,
                     .pids_limit = o->pids,
                     .extra_auxv = o->auxv->len ? (const guint64 *)(gpointer)o->auxv->data : NULL};
  TesKernel *k = tes_kernel_new(r);
  if (tes_kernel_init(k, &a, error) && build_mounts(k, o, error))
    return k;
  tes_kernel_free(k);
  return NULL;
}

static int run_sandbox(const DoOptions *o, char **argv, GError **error) {
  sigset_t set;
  if (!prepare_limits(error))
    return -1;
  block_signals(&set);
  g_ptr_array_add(o->plugin_dirs, NULL);
  g_ptr_array_add(o->inject, NULL);
  TesRegistry *r = load_plugins((char **)o->plugin_dirs->pdata, error);
  if (!r)
    return -1;
  Sandbox s = {.signal_fd = -1};
  if (open_outputs(&s, o, error))
    s.kernel = make_kernel(r, o, &s, error);
  int status = -1;
  if (s.kernel) {
    if (watch_signals(&s, &set, error))
      status = run_program(&s, o, argv, error);
    if (s.signals) {
      g_source_destroy(s.signals);
      g_source_unref(s.signals);
      close(s.signal_fd);
    }
    if (s.stdio)
      stdio_free(s.stdio);
    tes_kernel_free(s.kernel);
  }
  close_outputs(&s);
  tes_registry_free(r);
  return status;
}

static GLogWriterOutput quiet_writer(GLogLevelFlags level, const GLogField *f, gsize n, gpointer verbose) {
  if (level > G_LOG_LEVEL_WARNING && !verbose)
    return G_LOG_WRITER_HANDLED;
  return g_log_writer_standard_streams(level, f, n, NULL);
}

static int do_main(int argc, char **argv) {
  DoOptions o;
  do_options_init(&o);
  g_autoptr(GError) error = NULL;
  gboolean help = FALSE;
  int rest = 0, status = -1;
  if (parse_flags(do_flags, &o, argc, argv, &rest, &help, &error) && !help) {
    g_log_set_writer_func(quiet_writer, GINT_TO_POINTER(o.verbose), NULL);
    if (rest >= argc)
      g_set_error(&error, TES_ERROR, TES_ERROR_CONFIG, "no program given; try tessera do -- /bin/sh");
    else
      status = run_sandbox(&o, argv + rest, &error);
  }
  do_options_clear(&o);
  if (help) {
    fputs(verb_do.manual, stdout);
    return 0;
  }
  if (error)
    return report(error);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

const Verb verb_do = {
    "do", "run a program in a sandbox", do_main,
    "NAME\n"
    "    tessera do - run a program in a sandbox\n\n"
    "SYNOPSIS\n"
    "    tessera do [FLAG...] -- PROGRAM [ARGUMENT...]\n\n"
    "DESCRIPTION\n"
    "    Runs PROGRAM on a kernel of its own. It sees the host's root directory (or --root) and may write "
    "anywhere: what it\n"
    "    writes stays in memory and is gone when it ends (--overlay, --ro and --rw change that). /tmp, /run "
    "and "
    "/dev/shm are\n"
    "    empty, in memory (with --rw, /tmp is the root's); /proc, /sys and a minimal /dev are the sandbox's "
    "own. "
    "Standard input,\n"
    "    output and error are the caller's; on a terminal the program gets a terminal of its own with job "
    "control. SIGHUP,\n"
    "    SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM and SIGCONT sent to tessera reach the program. "
    "When PROGRAM ends,\n"
    "    what it left running is killed.\n\n"
    "FLAGS\n"
    "    --platform=NAME       how guest code is executed; default: the best one that works here\n"
    "    --device=PATH         device of the platform, where it needs one\n"
    "    --vfs=NAME            VFS generation: vfs2 (default), vfs1, or vfs1:2018, which is vfs1 as of an "
    "older kernel\n"
    "    --root=DIR            directory that becomes /; default: the host's /\n"
    "    --overlay=memory      what is written to / stays in the sandbox and is gone when it ends: the "
    "default\n"
    "    --overlay=DIR         what is written to / goes to DIR (DIR/upper, DIR/work), for the next sandbox "
    "to find\n"
    "    --ro                  / is read-only\n"
    "    --rw                  / is the directory itself: what is written there is written on the host\n"
    "    --ro-bind SRC DST     host directory or file SRC at DST, read-only\n"
    "    --bind SRC DST        the same, writable\n"
    "    --tmpfs DST           an empty writable filesystem at DST\n"
    "    --proc DST, --dev DST process information, device nodes at DST\n"
    "    --cwd=DIR             working directory; default: the caller's if the sandbox has it, else /\n"
    "    --env=NAME=VALUE      sets a variable; --clearenv starts from an empty environment\n"
    "    --user=UID[:GID]      runs as that user without capabilities; default: root of the sandbox\n"
    "    --cpus=N              CPUs the program sees; default: the host's\n"
    "    --cpuid=WHO           answers CPUID instructions of programs and libraries: host (the CPU), table "
    "(the kernel, which\n"
    "                          changes the code for it), auto (table where that is faster); default: auto\n"
    "    --dcache=N            names of files that are kept cached though nobody uses them, and host "
    "descriptors behind them\n"
    "    --memory=SIZE         bound of guest memory, with suffix K, M, G or T; default: what the host has\n"
    "    --pids=N              bound of processes and threads in the sandbox\n"
    "    --hostname=NAME       default: the host's\n"
    "    --auxv=TYPE=VALUE     an extra auxiliary vector entry\n"
    "    --plugin-path=DIR     where plugins are; may be repeated; default: the build tree's or the "
    "installed ones\n"
    "    --strace[=CALLS]      one line on standard error for each system call. CALLS as after -e trace= of "
    "strace(1): names with\n"
    "                          commas between, %file %desc %process %network %signal %memory %ipc %creds "
    "%clock, /REGEX, all,\n"
    "                          none; ! first: all but those\n"
    "    --trace=WHAT          with commas between: path: a line for each lookup in a directory, and their "
    "numbers at the end;\n"
    "                          json or json:FILE: an object for each event and line (docs/tracing.md), on "
    "standard error or in\n"
    "                          FILE; regs: registers in them; syscalls: --strace; plain: --strace without "
    "data "
    "that differs\n"
    "                          from run to run\n"
    "    --strace-to=FILE      the same into FILE, with times: as strace -f writes them with absolute and "
    "system call times in\n"
    "                          nanoseconds\n"
    "    --inject=CALLS:WHAT   faults, as after -e inject= of strace(1). WHAT has, with : between, an errno "
    "(ENOSPC) or retval=N,\n"
    "                          signal=SIG, delay_enter=TIME, delay_exit=TIME (microseconds, or with s, ms, "
    "us, "
    "ns),\n"
    "                          when=FIRST[..LAST][+[STEP]] (counted for each task and call; default: 1+) and "
    "path=GLOB, for\n"
    "                          calls whose first path, or file of the first descriptor, matches; may be "
    "repeated\n"
    "    --stats[=FILE]        at the end, to FILE or standard error: for each system call its numbers and "
    "times, and where the\n"
    "                          tasks' time went\n"
    "    --verbose             log lines of the kernel on standard error\n\n"
    "EXIT STATUS\n"
    "    PROGRAM's status; 128 + N if signal N ended it; 125 if the sandbox could not be made; 126 if "
    "PROGRAM could not be\n"
    "    executed; 127 if it was not found.\n"};
