/* SPDX-License-Identifier: Apache-2.0 */
/* framework.c - the framework tests itself: what the other programs rely on. */
#include "check.h"

TEST(passes) {
  CHECK(1 + 1 == 2);
  CHECK_EQ(SYS(getpid()), getpid());
}

TEST(child_state_is_its_own) {
  pid_t pid = CHILD(CHECK_EQ(0, 0));
  WAIT_OK(pid);
  int status = check_wait(CHILD(_exit(3)));
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 3);
}

TEST(files) {
  int fd = tmp_file("a", "hello");
  char *text = read_file(tmp_path("a"), NULL);
  CHECK_STR(text, "hello");
  free(text);
  close(fd);
}

TEST(faults) {
  siginfo_t si;
  CHECK_EQ(touch_read((void *)8, &si), SIGSEGV);
  CHECK_EQ(si.si_code, SEGV_MAPERR);
  CHECK_EQ(touch_read(&si, NULL), 0);
}

TEST(pattern) {
  char buf[1000];
  pattern_fill(buf, sizeof buf, 7);
  CHECK(pattern_ok(buf, sizeof buf, 7));
  CHECK(!pattern_ok(buf, sizeof buf, 8));
}
