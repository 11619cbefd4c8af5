/* SPDX-License-Identifier: Apache-2.0 */
/* The birth of a zygote: the process that every stub of a platform descends from. Shared by the platforms that run guests
 * in host processes; linked into each of them. */
#pragma once

#include <glib.h>
#include <sys/types.h>

#define BIRTH_FDS_MAX 16

typedef struct {
  int fds[BIRTH_FDS_MAX]; /* what the zygote gets, by their numbers there */
  int nfds;
  int image;             /* an ELF executable */
  gboolean mask_signals; /* start with all signals blocked */
} Birth;

/* The image in a sealed memfd, padded with zeros to `size`. `platform` is for the message. -1 and *error. */
int birth_image(const char *platform, const void *code, gsize n, gsize size, GError **error);

/* Forks: own session and, where allowed, PID namespace (and user namespace); nothing of this process's descriptors but
 * b->fds; SIGSEGV and the like with their default actions, all else ignored; then the image is executed. No signal is
 * sent at its end (waitpid with __WALL). Returns its pid, or -1 with errno. */
pid_t birth_fork(const Birth *b);

/* A pair of SOCK_SEQPACKET sockets, close-on-exec. */
gboolean birth_socket_pair(int *ours, int *theirs);

/* Sends a descriptor with one byte. 0 or -errno. */
int birth_send_fd(int sock, int fd);

/* Waits for a zygote whose end has been asked for; kills it after half a second. */
void birth_reap(pid_t zygote);
