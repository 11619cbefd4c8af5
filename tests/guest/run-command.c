/* SPDX-License-Identifier: Apache-2.0 */
/* run-command.c - one command of the guest runner: process group, pipe, deadline, strays.
 *
 * The runner is a child subreaper, so that whatever survives a sandbox or a native case comes to it.
 */
#include "run-guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile pid_t running; /* process group of the command, 0: none */

static void on_terminate(int sig) {
  if (running > 0)
    kill(-running, SIGKILL);
  _exit(128 + sig);
}

void run_command_init(void) {
  signal(SIGTERM, on_terminate);
  signal(SIGINT, on_terminate);
}

/* As from a shell's prompt: a background job of a script is born with SIGINT and SIGQUIT ignored. */
static void reset_signals(void) {
  for (int sig = 1; sig < SIGRTMIN; sig++)
    signal(sig, SIG_DFL);
}

static void child_setup(gpointer unused) {
  (void)unused;
  reset_signals();
  setsid();
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* also when this runner is killed without a word */
  dup2(1, 2);
}

static void emit_lines(GString *pending, RunOutput *io) {
  char *nl;

  while ((nl = memchr(pending->str, '\n', pending->len))) {
    *nl = '\0';
    io->line(io->user, pending->str);
    g_string_erase(pending, 0, nl + 1 - pending->str);
  }
  if (pending->len > 65536) {
    io->line(io->user, pending->str);
    g_string_truncate(pending, 0);
  }
}

/* Returns FALSE at end of file. */
static gboolean read_some(int fd, GString *pending, RunOutput *io) {
  char buf[16384];
  ssize_t n = read(fd, buf, sizeof buf);

  if (n < 0)
    return errno == EAGAIN || errno == EINTR;
  for (ssize_t i = 0; i < n; i++)
    g_string_append_c(pending, buf[i] ? buf[i] : '?');
  emit_lines(pending, io);
  return n > 0;
}

static void kill_group(GPid pid) {
  kill(-pid, SIGKILL);
  kill(pid, SIGKILL);
}

static void drain(int fd, GString *pending, RunOutput *io) {
  struct pollfd p = {.fd = fd, .events = POLLIN};

  while (poll(&p, 1, 0) > 0 && read_some(fd, pending, io))
    ;
  if (pending->len)
    io->line(io->user, pending->str);
}

gboolean run_command(const char *const *argv, char **envp, RunOutput *io, GError **error) {
  g_autoptr(GString) pending = g_string_new(NULL);
  gboolean open = TRUE, gone = FALSE;
  int fd = -1;
  GPid pid;

  if (!g_spawn_async_with_pipes(NULL, (char **)argv, envp, G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_SEARCH_PATH,
                                child_setup, NULL, &pid, NULL, &fd, NULL, error))
    return FALSE;
  running = pid;
  fcntl(fd, F_SETFL, O_NONBLOCK);
  io->timed_out = FALSE;
  while (!gone) {
    struct pollfd p = {.fd = open ? fd : -1, .events = POLLIN};
    if (poll(&p, 1, open ? 20 : 2) > 0)
      open = read_some(fd, pending, io);
    gone = waitpid(pid, &io->status, WNOHANG) == pid;
    if (!gone && !io->timed_out && g_get_monotonic_time() > io->deadline) {
      io->timed_out = TRUE;
      kill_group(pid);
    }
  }
  running = 0;
  kill(-pid, SIGKILL); /* background children of the command */
  drain(fd, pending, io);
  close(fd);
  return TRUE;
}

static char **stray_pids(void) {
  g_autofree char *path = g_strdup_printf("/proc/self/task/%d/children", (int)getpid());
  g_autofree char *text = NULL;

  if (!g_file_get_contents(path, &text, NULL, NULL))
    return NULL;
  return g_strsplit(g_strstrip(text), " ", -1);
}

static char *describe_strays(char **pids) {
  GString *names = g_string_new(NULL);

  for (char **p = pids; *p; p++) {
    g_autofree char *path = g_strdup_printf("/proc/%s/comm", *p);
    g_autofree char *comm = NULL;
    g_file_get_contents(path, &comm, NULL, NULL);
    g_string_append_printf(names, "%s%s (%s)", names->len ? ", " : "", *p, comm ? g_strchomp(comm) : "?");
    kill((pid_t)g_ascii_strtoll(*p, NULL, 10), SIGKILL);
  }
  return g_string_free(names, FALSE);
}

char *reap_strays(guint grace_ms) {
  gint64 until = g_get_monotonic_time() + grace_ms * 1000;
  char *found = NULL;

  for (;;) {
    while (waitpid(-1, NULL, WNOHANG) > 0)
      ;
    g_auto(GStrv) pids = stray_pids();
    if (!pids || !*pids || !**pids)
      return found;
    if (g_get_monotonic_time() > until) {
      char *names = describe_strays(pids);
      if (found)
        g_free(names);
      else
        found = names;
      if (g_get_monotonic_time() > until + 5 * G_USEC_PER_SEC)
        return found;
    }
    g_usleep(2000);
  }
}
