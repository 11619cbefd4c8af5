/* SPDX-License-Identifier: Apache-2.0 */
/* A static guest program that asks for one ability and says what it got: "ok" or the errno's name.
 * removal.sh compares; a word it does not know is an error of the test itself. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

static void require(int ok, const char *what) {
  if (ok)
    return;
  fprintf(stderr, "probe: no such ability: %s\n", what);
  exit(2);
}

static int try_one(const char *what) {
  if (!strcmp(what, "timerfd"))
    return timerfd_create(CLOCK_MONOTONIC, 0);
  if (!strcmp(what, "epoll"))
    return epoll_create1(0);
  if (!strcmp(what, "unix"))
    return socket(AF_UNIX, SOCK_STREAM, 0);
  if (!strcmp(what, "tmpfs"))
    return mount("none", "/mnt", "tmpfs", 0, NULL);
  if (!strcmp(what, "proc"))
    return mount("none", "/mnt", "proc", 0, NULL);
  if (!strcmp(what, "dev"))
    return mount("none", "/mnt", "devtmpfs", 0, NULL);
  require(0, what);
  return -1;
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++)
    printf("%s=%s\n", argv[i], try_one(argv[i]) < 0 ? strerrorname_np(errno) : "ok");
  return 0;
}
