/* SPDX-License-Identifier: Apache-2.0 */
/* futex-partner FILE wait|wake: two processes meet at a shared futex in a mapped file. Exits with 0 if they met, 1 if
 * not: after half a second of waking, two of waiting. Static; run in the sandbox by test-kernel. */
#include <fcntl.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
  int fd = argc == 3 ? open(argv[1], O_RDWR | O_CREAT, 0600) : -1;
  if (fd < 0 || ftruncate(fd, 4096) < 0)
    return 2;
  int *word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (word == MAP_FAILED)
    return 2;
  if (!strcmp(argv[2], "wait")) {
    struct timespec timeout = {2, 0};
    return syscall(SYS_futex, word, FUTEX_WAIT, 0, &timeout, NULL, 0) == 0 ? 0 : 1;
  }
  for (int i = 0; i < 50; i++) {
    if (syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0) == 1)
      return 0;
    nanosleep(&(struct timespec){0, 10 * 1000 * 1000}, NULL);
  }
  return 1;
}
