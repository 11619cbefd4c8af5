/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - the framework of the guest tests: static programs that run natively and in the sandbox.
 *
 * TEST(name) { ... } declares a case; HELPER(name) { ... } declares an entry point for programs
 * that execute themselves (`PROGRAM --helper NAME ARGS`). Command lines of every program:
 *   PROGRAM --list            names, one per line (`--list=long` adds the time limit in seconds)
 *   PROGRAM [OPTIONS] CASE    one case in this process: exit 0 pass, 1 fail, 77 skip
 *   PROGRAM [OPTIONS] --tap [CASE...]   each in a forked child, "@begin NAME" and "@end NAME RESULT"
 *   PROGRAM                   all, as with --tap
 * OPTIONS: --in-sandbox, --fs=tmpfs|host|overlay (what /tmp lies on in the sandbox), --seed=N, --seconds=N, --limit=SECONDS (replaces every time limit).
 */
#pragma once

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK_LIMIT 10 /* seconds a case may take unless it says otherwise */

typedef struct {
  const char *name;
  void (*fn)(void);
  unsigned limit; /* seconds */
} CheckCase;

typedef struct {
  const char *name;
  int (*fn)(int argc, char **argv); /* argv[0] is the first argument after the helper's name */
} CheckHelper;

/* Linker sections hold pointers, so that no padding can creep in between entries. */
#define CHECK_ENTRY(section_, type_, var_) \
  static const type_ *const var_##_entry __attribute__((used, section(section_))) = &var_

#define TEST_LIMIT(name_, seconds_)                                       \
  static void test_##name_(void);                                         \
  static const CheckCase case_##name_ = {#name_, test_##name_, seconds_}; \
  CHECK_ENTRY("check_cases", CheckCase, case_##name_);                    \
  static void test_##name_(void)
#define TEST(name_) TEST_LIMIT(name_, CHECK_LIMIT)

#define HELPER(name_)                                                       \
  static int helper_##name_(int argc, char **argv);                         \
  static const CheckHelper helper_entry_##name_ = {#name_, helper_##name_}; \
  CHECK_ENTRY("check_helpers", CheckHelper, helper_entry_##name_);          \
  static int helper_##name_(__attribute__((unused)) int argc, __attribute__((unused)) char **argv)

/* What the command line said. --in-sandbox is believed only where check_sandbox_evidence() agrees: a case that
 * relies on it could do harm if a script in the sandbox's place just ran the program on the host. */
extern bool check_in_sandbox;
extern const char *check_fs;
extern unsigned long check_seed, check_seconds; /* 0 when not given */

/* Marks this process failed and prints FILE:LINE and the text; safe in threads and forked children. */
void check_fail(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Ends the case at once: fail (1), or skip (77) with a reason. In a forked child only the child ends. */
void check_abort(void) __attribute__((noreturn));
void check_skip(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* Ends a forked child: status 0, or 1 if a check failed in it. */
void check_child_exit(void) __attribute__((noreturn));
void check_child_start(void);
bool check_eq(const char *file, int line, const char *text, long long got, long long want);
bool check_str(const char *file, int line, const char *text, const char *got, const char *want);
long long check_ok(const char *file, int line, const char *text, long long got, bool required);
bool check_errno(const char *file, int line, const char *text, long long got, int want);
void check_wait_ok(const char *file, int line, pid_t pid);

#define CHECK(cond)                                        \
  ({                                                       \
    bool check_r_ = (cond);                                \
    if (!check_r_)                                         \
      check_fail(__FILE__, __LINE__, "failed: %s", #cond); \
    check_r_;                                              \
  })
#define REQUIRE(cond) \
  do {                \
    if (!CHECK(cond)) \
      check_abort();  \
  } while (0)
#define CHECK_EQ(a, b) check_eq(__FILE__, __LINE__, #a " == " #b, (long long)(a), (long long)(b))
#define CHECK_STR(a, b) check_str(__FILE__, __LINE__, #a " == " #b, a, b)
/* -1 with this errno. */
#define CHECK_ERRNO(expr, e)                                      \
  ({                                                              \
    errno = 0;                                                    \
    check_errno(__FILE__, __LINE__, #expr, (long long)(expr), e); \
  })
/* Succeeds (>= 0); the value is the result. SYS ends the case when it does not. */
#define CHECK_OK(expr) check_ok(__FILE__, __LINE__, #expr, (long long)(expr), false)
#define SYS(expr) check_ok(__FILE__, __LINE__, #expr, (long long)(expr), true)
#define SKIP(...) check_skip(__VA_ARGS__)

/* Forks a child that runs the statements and ends with the state of its own checks. */
#define CHILD(...)                         \
  ({                                       \
    pid_t child_pid_ = (pid_t)SYS(fork()); \
    if (child_pid_ == 0) {                 \
      check_child_start();                 \
      __VA_ARGS__;                         \
      check_child_exit();                  \
    }                                      \
    child_pid_;                            \
  })
#define WAIT_OK(pid) check_wait_ok(__FILE__, __LINE__, pid)
/* The wait status of a child, EINTR retried. */
int check_wait(pid_t pid);

/* What a case wants done at its end, passed or failed, also in its forked children; a killed one does not get there. */
extern void (*check_at_end)(void);

/* Files: a private directory, made at the first call and removed at the end of the case. */
const char *tmp_dir(void);
/* DIR/NAME in a static ring of 16 buffers. */
char *tmp_path(const char *name);
int tmp_file(const char *name,
             const char *text); /* creates it, mode 0644; returns a descriptor O_RDWR at 0 */
void write_file(const char *path, const void *data, size_t n, mode_t mode);
/* Reads a file whole (also of /proc); transfer full, NUL-terminated; NULL on error with errno. */
char *read_file(const char *path, size_t *ret_len);
void read_full(int fd, void *buf, size_t n);
void write_full(int fd, const void *buf, size_t n);

/* Time. */
int64_t now_ns(void);       /* CLOCK_MONOTONIC */
void sleep_ms(unsigned ms); /* survives signals */
struct timespec ts_ms(long ms);
/* Waits until the condition holds, polling each millisecond, at most 8 seconds. */
#define WAIT_FOR(cond)                                         \
  ({                                                           \
    int64_t until_ = now_ns() + 8000000000LL;                  \
    bool held_;                                                \
    while (!(held_ = (cond)) && now_ns() < until_)             \
      sleep_ms(1);                                             \
    if (!held_)                                                \
      check_fail(__FILE__, __LINE__, "never came: %s", #cond); \
    held_;                                                     \
  })

/* Memory. */
#define PAGE 4096ul
void *map_anon(size_t len, int prot); /* private; ends the case on failure */
void *map_shared(size_t len);         /* anonymous shared, read-write */
/* Touches a byte; 0, or the signal it raised, with its siginfo. */
int touch_read(const volatile void *p, siginfo_t *ret_si);
int touch_write(volatile void *p, siginfo_t *ret_si);
/* Calls fn(arg) catching SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGTRAP; not for nested use. */
int catch_fault(void (*fn)(void *), void *arg, siginfo_t *ret_si);

/* Signals. */
void on_signal(int sig, void (*fn)(int), int flags);
void on_siginfo(int sig, void (*fn)(int, siginfo_t *, void *), int flags);
sigset_t sigset_of(int first, ...); /* 0 ends the list */
void block_signal(int sig);

/* NULL in a sandbox; otherwise what speaks against it. Probes without effect on whatever it runs on. */
const char *check_sandbox_evidence(void);
/* Effective capabilities: bit CAP of /proc/self/status' CapEff. */
bool have_cap(int cap);
/* Fills a buffer with bytes that depend on position and seed; returns whether it still holds them. */
void pattern_fill(void *buf, size_t n, uint32_t seed);
bool pattern_ok(const void *buf, size_t n, uint32_t seed);
/* xorshift generator for seeded tests. */
uint64_t next_random(uint64_t *state);
