/* SPDX-License-Identifier: Apache-2.0 */
/* exec-script.c - "#!" scripts: arguments, nesting, and what is refused. */
#include "check.h"

extern char **environ;

static char self[256];

/* The program's own path, as scripts need it for an interpreter. */
static const char *self_path(void) {
  if (!self[0]) {
    size_t n;
    char *image = read_file("/proc/self/exe", &n);
    strcpy(self, tmp_path("i"));
    write_file(self, image, n, 0755);
    free(image);
  }
  return self;
}

static char *script(const char *name, const char *first_line) {
  char text[4096];
  char *path = tmp_path(name);

  int n = snprintf(text, sizeof text, "%s\nrest of the script\n", first_line);
  write_file(path, text, (size_t)n, 0755);
  return path;
}

/* Runs PATH with two arguments; its output, NUL after each argument, replaced by '|'. */
static const char *args_seen(const char *path, int *ret_status) {
  static char buf[8192];
  int fds[2];
  size_t n = 0;
  ssize_t r;

  SYS(pipe(fds));
  pid_t pid = CHILD(dup2(fds[1], 1); close(fds[0]); execl(path, "ARG0", "one", "two", NULL);
                    _exit(100 + errno % 100));
  close(fds[1]);
  while ((r = read(fds[0], buf + n, sizeof buf - 1 - n)) > 0)
    n += (size_t)r;
  buf[n] = 0;
  close(fds[0]);
  *ret_status = check_wait(pid);
  return buf;
}

HELPER(show) {
  for (int i = 0; i < argc; i++)
    printf("%s|", argv[i]);
  return 0;
}

static void expect(const char *path, const char *want) {
  int status;

  CHECK_STR(args_seen(path, &status), want);
  CHECK_EQ(status, 0);
}

TEST(script_arguments) {
  /* "--helper" is the one optional argument, so the script's path is the helper's name: use /bin/echo. */
  char want[700], line[300];
  char *p = script("s1", "#!/bin/echo");
  snprintf(want, sizeof want, "%s one two\n", p);
  expect(p, want);
  p = script("s2", "#! \t /bin/echo  \t");
  snprintf(want, sizeof want, "%s one two\n", p);
  expect(p, want);
  p = script("s3", "#!/bin/echo -n a  b\t");
  snprintf(line, sizeof line, "-n a  b %s one two\n", p); /* the rest is one argument, inner blanks kept */
  expect(p, line);
}

TEST(script_nested) {
  char line[300], want[900];
  char *inner = strdup(script("inner", "#!/bin/echo in"));

  snprintf(line, sizeof line, "#!%s mid", inner);
  char *outer = strdup(script("outer", line));
  snprintf(want, sizeof want, "in %s mid %s one two\n", inner, outer);
  expect(outer, want);
}

TEST(script_nested_too_deep) {
  char line[300], prev[256] = "/bin/echo";

  for (int i = 0; i < 7; i++) {
    char name[16];
    snprintf(name, sizeof name, "n%d", i);
    snprintf(line, sizeof line, "#!%s", prev);
    strcpy(prev, script(name, line));
    int status;
    args_seen(prev, &status);
    /* Four levels above the binary work, a fifth is refused with ELOOP. */
    if (i < 5)
      CHECK_EQ(status, 0);
    else
      CHECK_EQ(WEXITSTATUS(status), 100 + ELOOP);
  }
}

TEST(script_interpreter_missing) {
  char *argv[] = {"x", NULL};

  CHECK_ERRNO(execve(script("m", "#!/no/such/interpreter"), argv, environ), ENOENT);
  CHECK_ERRNO(execve(script("d", "#!/dev"), argv, environ), EACCES);
  CHECK_ERRNO(execve(script("e", "#!"), argv, environ), ENOEXEC);
  CHECK_ERRNO(execve(script("b", "#!   \t "), argv, environ), ENOEXEC);
  write_file(tmp_path("plain"), "no format\n", 10, 0644);
  char line[300];
  snprintf(line, sizeof line, "#!%s", tmp_path("plain"));
  CHECK_ERRNO(execve(script("p", line), argv, environ), EACCES);
}

TEST(script_without_newline) {
  char path[256], want[300];

  strcpy(path, tmp_path("nonl"));
  write_file(path, "#!/bin/echo", 11, 0755);
  snprintf(want, sizeof want, "%s one two\n", path);
  expect(path, want);
}

TEST(script_line_too_long) {
  char line[600] = "#!/bin/echo ", *argv[] = {"x", NULL};
  int status;

  /* 256 bytes are read. A cut interpreter name is refused, a cut argument is only cut. */
  memset(line + 12, 'a', 400);
  line[412] = 0;
  const char *out = args_seen(script("longarg", line), &status);
  CHECK_EQ(status, 0);
  CHECK_EQ(strspn(out, "a"), 256 - 12 - 1);
  strcpy(line, "#!/");
  memset(line + 3, 'b', 400);
  line[403] = 0;
  CHECK_ERRNO(execve(script("longname", line), argv, environ), ENOEXEC);
}

TEST(script_relative_interpreter) {
  char line[] = "#!./i --helper";

  self_path();
  SYS(chdir(tmp_dir()));
  script("show", line); /* the helper's name is the script's path: "./show" is none, "show" would be */
  int status;
  args_seen("./show", &status);
  CHECK_EQ(WEXITSTATUS(status), 2);
  args_seen("show", &status);
  CHECK_EQ(WEXITSTATUS(status), 0);
}

TEST(script_is_seen_by_its_helper) {
  char line[300];

  self_path();
  SYS(chdir(tmp_dir()));
  snprintf(line, sizeof line, "#!%s --helper", self);
  script("show", line);
  expect("show", "one|two|");
}

/* X7: a script behind a close-on-exec descriptor cannot be opened by its interpreter: ENOENT. */
TEST(script_by_descriptor) {
  int status;
  char *p = script("s", "#!/bin/echo");
  int fd = (int)SYS(open(p, O_RDONLY)), cloexec = (int)SYS(open(p, O_RDONLY | O_CLOEXEC));
  char *argv[] = {"x", NULL}, want[64];

  CHECK_ERRNO(syscall(SYS_execveat, cloexec, "", argv, environ, AT_EMPTY_PATH), ENOENT);
  int fds[2];
  char buf[300] = "";
  SYS(pipe(fds));
  pid_t pid = CHILD(dup2(fds[1], 1); syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH); _exit(9));
  CHECK(read(fds[0], buf, sizeof buf - 1) > 0);
  status = check_wait(pid);
  CHECK_EQ(status, 0);
  snprintf(want, sizeof want, "/dev/fd/%d\n", fd);
  CHECK_STR(buf, want);
}

TEST(script_unreadable) {
  if (getuid() != 0 || !have_cap(7))
    SKIP("needs root with CAP_SETUID");
  char path[256];
  strcpy(path, script("s", "#!/bin/cat"));
  SYS(chmod(path, 0111)); /* may be executed; its interpreter cannot read it */
  int fds[2];
  SYS(pipe(fds));
  pid_t pid = CHILD(SYS(setresuid(1000, 1000, 1000)); close(2); execl(path, "x", NULL); _exit(100 + errno));
  int status = check_wait(pid);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 1); /* cat's own complaint */
  SYS(chmod(path, 0000));
  CHECK_ERRNO(execl(path, "x", NULL), EACCES);
}

TEST(script_text_is_not_shell) {
  char *argv[] = {"x", NULL};

  write_file(tmp_path("t"), "echo hello\n", 11, 0755);
  CHECK_ERRNO(execve(tmp_path("t"), argv, environ), ENOEXEC);
  write_file(tmp_path("z"), "", 0, 0755);
  CHECK_ERRNO(execve(tmp_path("z"), argv, environ), ENOEXEC);
  write_file(tmp_path("h"), "#", 1, 0755);
  CHECK_ERRNO(execve(tmp_path("h"), argv, environ), ENOEXEC);
}
