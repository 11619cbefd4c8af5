/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the socket calls: sockets by descriptor, addresses, and the handlers that live in sockmsg.c. */
#pragma once

#include <core/file/file.h>
#include <core/syscalls/syscalls.h>
#include <tessera/socket.h>

/* Referenced, or NULL with -EBADF or -ENOTSOCK in *error. */
TesFile *tes_sock_get(TesTask *, gulong fd, int *error);
/* The same, as tes_fd_borrow(). */
TesFdLoan tes_sock_borrow(TesTask *, gulong fd, int *error);
static inline const TesSockOps *tes_sock_ops(TesFile *f) { return f->ops->sock; }
/* An address from the guest, checked and zero-padded. 0 or -errno. */
int tes_sock_addr_in(TesTask *, gulong addr, glong len, struct sockaddr_storage *out, socklen_t *out_len);
/* Writes an address and its full length back as getsockname(2) says. */
int tes_sock_addr_out(TesTask *, gulong addr, gulong ulen, const struct sockaddr_storage *, socklen_t len);

glong tes_sys_do_sendto(TesTask *, const gulong a[6]);
glong tes_sys_do_recvfrom(TesTask *, const gulong a[6]);
glong tes_sys_do_sendmsg(TesTask *, const gulong a[6]);
glong tes_sys_do_recvmsg(TesTask *, const gulong a[6]);
glong tes_sys_do_sendmmsg(TesTask *, const gulong a[6]);
glong tes_sys_do_recvmmsg(TesTask *, const gulong a[6]);
