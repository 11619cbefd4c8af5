/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes for the end-to-end tests: see proc.h. */
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_MAX (16 << 20)

static double now(void) { return g_get_monotonic_time() / 1e6; }

double proc_scale(double seconds) {
  const char *scale = g_getenv("TESSERA_TIMEOUT_SCALE");
  return scale && atof(scale) > 0 ? seconds * atof(scale) : seconds;
}

void proc_setup(void) {
  signal(SIGPIPE, SIG_IGN);
  if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
    g_error("PR_SET_CHILD_SUBREAPER: %s", g_strerror(errno));
}

/* In the child, with descriptors 0 to 2 in place. */
static void become(const char *const *argv, const char *dir) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  /* Ours may be ignored (a background job's SIGINT) or blocked; the program starts as from a login shell. */
  for (int sig = 1; sig < NSIG; sig++)
    signal(sig, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  /* Descriptors that our caller leaked must not reach the program. */
  if (close_range(3, ~0U, 0) < 0 || (dir && chdir(dir) < 0))
    _exit(125);
  execvp(argv[0], (char *const *)argv);
  dprintf(2, "cannot start %s: %s\n", argv[0], strerror(errno));
  _exit(125);
}

Proc proc_start(const char *const *argv, const char *dir) {
  int in[2], out[2], err[2];
  if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
    g_error("pipe2: %s", g_strerror(errno));
  fflush(NULL);
  pid_t pid = fork();
  if (pid < 0)
    g_error("fork: %s", g_strerror(errno));
  if (pid == 0) {
    setpgid(0, 0);
    dup2(in[0], 0);
    dup2(out[1], 1);
    dup2(err[1], 2);
    become(argv, dir);
  }
  setpgid(pid, pid);
  close(in[0]);
  close(out[1]);
  close(err[1]);
  return (Proc){.pid = pid, .in = in[1], .out = out[0], .err = err[0]};
}

Proc proc_start_terminal(const char *const *argv) {
  int master;
  struct winsize size = {.ws_row = 24, .ws_col = 80};
  fflush(NULL);
  pid_t pid = forkpty(&master, NULL, NULL, &size);
  if (pid < 0)
    g_error("forkpty: %s", g_strerror(errno));
  if (pid == 0)
    become(argv, NULL);
  return (Proc){.pid = pid, .in = master, .out = master, .err = -1};
}

/* One read into `to`. FALSE at the end; a terminal whose other side is closed answers EIO. */
static gboolean take(int fd, GString *to) {
  char buf[65536];
  gssize n = read(fd, buf, sizeof buf);
  if (n < 0 && (errno == EINTR || errno == EAGAIN))
    return TRUE;
  if (n <= 0)
    return FALSE;
  if (to->len < OUTPUT_MAX)
    g_string_append_len(to, buf, n);
  return TRUE;
}

gboolean proc_until(Proc *p, GString *seen, const char *text, double seconds) {
  double end = now() + proc_scale(seconds);
  for (;;) {
    char *at = strstr(seen->str, text);
    if (at) {
      g_string_erase(seen, 0, at - seen->str + (gssize)strlen(text));
      return TRUE;
    }
    double left = end - now();
    struct pollfd fd = {.fd = p->out, .events = POLLIN};
    if (left <= 0 || poll(&fd, 1, (int)(left * 1000) + 1) < 0 || (fd.revents && !take(p->out, seen)))
      return FALSE;
  }
}

void proc_write(Proc *p, const char *text) {
  gsize n = strlen(text);
  while (n > 0) {
    gssize w = write(p->in, text, n);
    if (w < 0 && errno == EINTR)
      continue;
    if (w <= 0)
      return;
    text += w;
    n -= (gsize)w;
  }
}

static void close_end(int *fd) {
  if (*fd >= 0)
    close(*fd);
  *fd = -1;
}

/* Moves bytes both ways until both outputs ended. FALSE when the deadline passed. */
static gboolean transfer(Proc *p, const char *input, ProcResult *r, double end) {
  gsize left = input ? strlen(input) : 0;
  gboolean terminal = p->in == p->out;
  int out = p->out, err = p->err;
  if (!terminal)
    fcntl(p->in, F_SETFL, O_NONBLOCK);
  while (out >= 0 || err >= 0) {
    if (left == 0 && !terminal)
      close_end(&p->in);
    struct pollfd fds[3] = {{.fd = out, .events = POLLIN},
                            {.fd = err, .events = POLLIN},
                            {.fd = left ? p->in : -1, .events = POLLOUT}};
    double wait = end - now();
    if (wait <= 0)
      return FALSE;
    if (poll(fds, 3, (int)(wait * 1000) + 1) < 0)
      continue;
    if (fds[0].revents && !take(out, r->out))
      out = -1;
    if (fds[1].revents && !take(err, r->err))
      err = -1;
    if (fds[2].revents) {
      gssize n = write(p->in, input, MIN(left, 65536));
      if (n < 0 && errno != EAGAIN && errno != EINTR)
        left = 0;
      else if (n > 0)
        left -= (gsize)n, input += n;
    }
  }
  return TRUE;
}

ProcResult proc_finish(Proc *p, const char *input, double seconds) {
  ProcResult r = {.out = g_string_new(NULL), .err = g_string_new(NULL), .status = -1};
  double end = now() + proc_scale(seconds);
  gboolean in_time = transfer(p, input, &r, end);
  int status;
  /* The output may end before the program does. */
  while (in_time && waitpid(p->pid, &status, WNOHANG) == 0) {
    in_time = now() < end;
    g_usleep(2000);
  }
  if (in_time) {
    r.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  } else {
    kill(-p->pid, SIGKILL);
    kill(p->pid, SIGKILL);
    waitpid(p->pid, &status, 0);
  }
  if (p->in != p->out)
    close_end(&p->in);
  close_end(&p->out);
  close_end(&p->err);
  return r;
}

ProcResult proc_run(const char *const *argv, const char *input, double seconds) {
  Proc p = proc_start(argv, NULL);
  return proc_finish(&p, input, seconds);
}

void proc_result_clear(ProcResult *r) {
  g_string_free(r->out, TRUE);
  g_string_free(r->err, TRUE);
}

static void add_children(GArray *pids, pid_t pid) {
  g_autofree char *tasks = g_strdup_printf("/proc/%d/task", pid);
  g_autoptr(GDir) dir = g_dir_open(tasks, 0, NULL);
  const char *tid;
  while (dir && (tid = g_dir_read_name(dir))) {
    g_autofree char *path = g_strdup_printf("%s/%s/children", tasks, tid);
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL))
      continue;
    g_auto(GStrv) words = g_strsplit(g_strstrip(text), " ", -1);
    for (char **w = words; *w && **w; w++) {
      pid_t child = atoi(*w);
      g_array_append_val(pids, child);
      add_children(pids, child);
    }
  }
}

GArray *proc_descendants(pid_t pid) {
  GArray *pids = g_array_new(FALSE, FALSE, sizeof(pid_t));
  add_children(pids, pid);
  return pids;
}

char *proc_leftovers(double seconds) {
  double end = now() + proc_scale(seconds);
  for (;;) {
    pid_t pid = waitpid(-1, NULL, WNOHANG);
    if (pid < 0)
      return NULL;
    if (pid > 0)
      continue;
    if (now() > end)
      break;
    g_usleep(5000);
  }
  GString *left = g_string_new(NULL);
  g_autoptr(GArray) pids = proc_descendants(getpid());
  for (guint i = 0; i < pids->len; i++) {
    pid_t pid = g_array_index(pids, pid_t, i);
    g_autofree char *path = g_strdup_printf("/proc/%d/comm", pid), *name = NULL;
    g_file_get_contents(path, &name, NULL, NULL);
    g_string_append_printf(left, "%s%d %s", i ? ", " : "", pid, name ? g_strchomp(name) : "?");
    kill(pid, SIGKILL);
  }
  while (waitpid(-1, NULL, WNOHANG) >= 0)
    g_usleep(5000);
  return g_string_free(left, FALSE);
}

void proc_show(const char *title, const char *text, int limit) {
  g_auto(GStrv) lines = g_strsplit(text, "\n", limit + 1);
  g_test_message("%s", title);
  for (int i = 0; lines[i] && i < limit; i++) {
    g_autofree char *line = g_utf8_make_valid(lines[i], -1);
    g_test_message("  %s", line);
  }
}
