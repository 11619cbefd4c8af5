/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the checks of `tessera doctor`, each in a child that is killed when its time is over. */
#include <runtime/doctor.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

void finding(Finding *f, DoctorState state, const char *remedy, const char *format, ...) {
  va_list args;
  va_start(args, format);
  f->state = state;
  g_vsnprintf(f->reason, sizeof f->reason, format, args);
  g_strlcpy(f->remedy, remedy ? remedy : "", sizeof f->remedy);
  va_end(args);
}

/* Never returns. Its process group goes with it when its time is over. */
static G_GNUC_NORETURN void child_main(const Check *c, int out) {
  Finding f = {0};
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  setpgid(0, 0);
  c->fn(&f, c->data);
  if (!*f.reason || write(out, &f, sizeof f) != sizeof f)
    _exit(1);
  _exit(0);
}

/* TRUE: a whole finding arrived. A helper of the check may hold the pipe's other end, so its end is not waited for. */
static gboolean receive(int in, gint64 end, Finding *f) {
  struct pollfd p = {.fd = in, .events = POLLIN};
  for (;;) {
    gint64 left = end - g_get_monotonic_time();
    int r = poll(&p, 1, left > 0 ? (int)(left / 1000) + 1 : 0);
    if (r > 0)
      return read(in, f, sizeof *f) == sizeof *f;
    if (r == 0 || errno != EINTR)
      return FALSE;
  }
}

static void no_answer(Finding *f, int status, gboolean late) {
  if (late)
    finding(f, DOCTOR_NO, "try again when the machine is less busy", "no answer in time");
  else if (WIFSIGNALED(status))
    finding(f, DOCTOR_NO, "this is a defect: report it", "the check was ended by signal %d (%s)",
            WTERMSIG(status), g_strsignal(WTERMSIG(status)));
  else
    finding(f, DOCTOR_NO, "this is a defect: report it", "the check ended without an answer");
}

static void await(pid_t pid, int in, gint64 until, Finding *out) {
  siginfo_t info;
  int status = 0;
  gboolean ok = receive(in, until, out), late = !ok && g_get_monotonic_time() >= until;
  if (ok || late)
    kill(pid, SIGKILL);
  /* Until it is reaped its number stands for its group and nothing else. */
  while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR)
    ;
  kill(-pid, SIGKILL);
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
    ;
  if (!ok)
    no_answer(out, status, late);
}

static void tidy(char *text, gsize size) {
  text[size - 1] = 0;
  g_autofree char *valid = g_utf8_make_valid(text, -1);
  g_strlcpy(text, g_strdelimit(valid, "\n\r\t", ' '), size);
}

void run_check(const Check *c, gint64 limit, gint64 end, Finding *out) {
  int fds[2];
  gint64 until = MIN(end, g_get_monotonic_time() + limit);
  memset(out, 0, sizeof *out);
  if (g_get_monotonic_time() >= end) {
    finding(out, DOCTOR_NO, "try again when the machine is less busy",
            "not tried: earlier checks took too long");
    return;
  }
  if (pipe2(fds, O_CLOEXEC) < 0) {
    finding(out, DOCTOR_NO, "raise the limit of open files (ulimit -n)", "pipe: %s", g_strerror(errno));
    return;
  }
  pid_t pid = fork();
  if (pid == 0)
    child_main(c, fds[1]);
  int error = errno;
  close(fds[1]);
  if (pid < 0)
    finding(out, DOCTOR_NO, "raise the limit of processes (ulimit -u, pids.max)", "fork: %s",
            g_strerror(error));
  else
    await(pid, fds[0], until, out);
  close(fds[0]);
  tidy(out->reason, sizeof out->reason);
  tidy(out->remedy, sizeof out->remedy);
}

/* ---- Shared by checks ---- */

gboolean read_number(const char *path, glong *value) {
  g_autofree char *text = NULL;
  if (!g_file_get_contents(path, &text, NULL, NULL))
    return FALSE;
  char *end;
  *value = strtol(text, &end, 10);
  return end != text;
}

gboolean have_capability(int cap) {
  struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {0};
  if (syscall(SYS_capget, &head, data) < 0)
    return FALSE;
  return (data[cap / 32].effective >> (cap % 32)) & 1;
}

int filter_getppid(guint action, guint flags) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, G_STRUCT_OFFSET(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, action),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog prog = {G_N_ELEMENTS(code), code};
  return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
}
