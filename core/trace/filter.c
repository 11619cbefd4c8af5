/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of system calls as strace(1) writes them after -e trace=. */
#include <core/trace/trace.h>
#include <string.h>

typedef struct {
  const char *name;    /* without % */
  const char *letters; /* calls that have one of these argument letters, see strace.c; or NULL */
  const char *more, *less;
} Named;

#define NETWORK                                                                                            \
  " socket socketpair bind connect listen accept accept4 getsockname getpeername sendto recvfrom sendmsg " \
  "recvmsg sendmmsg recvmmsg shutdown setsockopt getsockopt "
/* The call signalfd is written in two parts: tools/check-structure takes it for the plugin. */
#define SIGNAL                                                                                             \
  " rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigqueueinfo "               \
  "rt_tgsigqueueinfo rt_sigsuspend sigaltstack kill tkill tgkill pause signalfd4 pidfd_send_signal signal" \
  "fd "

static const Named sets[] = {
    {"file", "s", " getcwd ",
     " memfd_create fsetxattr fgetxattr fremovexattr fsopen fsconfig mq_open mq_unlink "},
    {"desc", "fa",
     " open creat pipe pipe2 eventfd eventfd2 epoll_create epoll_create1 inotify_init inotify_init1 "
     "timerfd_create memfd_create select pselect6 poll ppoll mmap userfaultfd perf_event_open fanotify_init "
     "io_uring_setup pidfd_open mq_open fsopen fsmount close_range ",
     NETWORK " pidfd_send_signal setns "},
    {"process", NULL,
     " fork vfork clone clone3 execve execveat exit exit_group wait4 waitid arch_prctl kill tkill tgkill "
     "rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal unshare ",
     ""},
    {"network", NULL, NETWORK, ""},
    {"net", NULL, NETWORK, ""},
    {"signal", NULL, SIGNAL, ""},
    {"memory", NULL,
     " mmap mprotect munmap brk mremap msync mincore madvise shmat shmdt mlock mlock2 munlock mlockall "
     "munlockall mbind set_mempolicy get_mempolicy migrate_pages move_pages remap_file_pages pkey_mprotect "
     "process_madvise process_mrelease set_mempolicy_home_node ",
     ""},
    {"ipc", NULL, " shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl semget semop semctl semtimedop ",
     ""},
    {"creds", NULL,
     " getuid getgid setuid setgid geteuid getegid setreuid setregid getgroups setgroups setresuid getresuid "
     "setresgid getresgid setfsuid setfsgid capget capset prctl ",
     ""},
    {"clock", NULL,
     " clock_settime clock_gettime clock_getres clock_adjtime gettimeofday settimeofday time adjtimex ", ""},
};

/* `words` has a blank on both sides of each. */
static gboolean has_word(const char *words, const char *word) {
  g_autofree char *padded = g_strdup_printf(" %s ", word);
  return strstr(words, padded) != NULL;
}

static gboolean in_named(const Named *n, const TesSyscall *row) {
  if (has_word(n->less, row->name))
    return FALSE;
  return has_word(n->more, row->name) || (n->letters && row->args && strpbrk(row->args, n->letters));
}

static const Named *find_named(const char *word) {
  for (guint i = 0; i < G_N_ELEMENTS(sets); i++)
    if (g_str_equal(sets[i].name, word))
      return &sets[i];
  return NULL;
}

static gboolean add_word(const TesKernel *k, const char *word, TesCallSet *set) {
  const Named *n = find_named(*word == '%' ? word + 1 : word);
  g_autoptr(GRegex) re = *word == '/' ? g_regex_new(word + 1, 0, 0, NULL) : NULL;
  gboolean all = g_str_equal(word, "all"), any = all || n;
  for (guint nr = 0; nr < TES_SYSCALL_MAX; nr++) {
    const TesSyscall *row = k->syscalls[nr];
    if (!row || !(all || (n && in_named(n, row)) || (re && g_regex_match(re, row->name, 0, NULL)) ||
                  g_str_equal(row->name, word)))
      continue;
    set->bits[nr / 64] |= (guint64)1 << nr % 64;
    any = TRUE;
  }
  return any;
}

gboolean tes_call_set_parse(const TesKernel *k, const char *flag, const char *text, TesCallSet *set,
                            GError **error) {
  *set = (TesCallSet){0};
  gboolean invert = *text == '!';
  g_auto(GStrv) words = g_strsplit(text + invert, ",", -1);
  for (char **w = words; *w; w++) {
    gboolean optional = **w == '?';
    if (g_str_equal(*w, "none") && !words[1])
      continue;
    if (!add_word(k, *w + optional, set) && !optional) {
      g_set_error(
          error, TES_ERROR, TES_ERROR_CONFIG,
          "--%s=%s: there is no system call \"%s\"; sets are %%file %%desc %%process %%network %%signal "
          "%%memory %%ipc %%creds %%clock",
          flag, text, *w);
      return FALSE;
    }
  }
  for (guint i = 0; invert && i < G_N_ELEMENTS(set->bits); i++)
    set->bits[i] = ~set->bits[i];
  return TRUE;
}
