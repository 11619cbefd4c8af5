/* SPDX-License-Identifier: Apache-2.0 */
/* The file side of a socket: read and write, readiness, what fstat and /proc show; and the plugin's descriptor. */
#include "private.h"
#include <linux/sockios.h>
#include <sys/ioctl.h>

static gssize sock_read(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  TesMsg msg = {.iov = iov};
  if (iov->left == 0)
    return 0;
  gssize n = unix_recvmsg(f, ctx, &msg);
  if (msg.files) /* read(2) has no place for them */
    unix_files_drop(msg.files);
  return n;
}

static gssize sock_write(TesFile *f, TesCtx *ctx, TesIov *iov, goffset *pos, int flags) {
  TesMsg msg = {.iov = iov};
  return unix_sendmsg(f, ctx, &msg);
}

/* A datagram sender waits for its receiver's queue as well as for its own buffer. */
static gboolean peer_has_room(UnixSock *s, UnixSock *peer) {
  if (!peer || peer == s || s->type != SOCK_DGRAM)
    return TRUE;
  TES_LOCKED(&peer->lock);
  if (peer->peer == s || peer->rx_count <= UNIX_DGRAM_QUEUE || peer->state == UNIX_CLOSED)
    return TRUE;
  unix_block_on(peer, s);
  return FALSE;
}

static guint sock_poll(TesFile *f) {
  UnixSock *s = unix_sock(f);
  guint mask = 0;
  tes_mutex_lock(&s->lock);
  gboolean listening = s->state == UNIX_LISTENING;
  if (s->error)
    mask |= POLLERR;
  if (s->rx.head || s->pending.length)
    mask |= POLLIN | POLLRDNORM;
  if (s->shutdown & UNIX_SHUT_RD)
    mask |= POLLIN | POLLRDNORM | POLLRDHUP;
  if (s->shutdown == (UNIX_SHUT_RD | UNIX_SHUT_WR) ||
      (unix_connected_type(s) && (s->state == UNIX_IDLE || s->state == UNIX_CONNECTING)))
    mask |= POLLHUP;
  UnixSock *peer = s->peer ? unix_sock_ref(s->peer) : NULL;
  tes_mutex_unlock(&s->lock);
  if (!listening && unix_writable(s) && peer_has_room(s, peer))
    mask |= POLLOUT | POLLWRNORM | POLLWRBAND;
  unix_sock_unref(peer);
  return mask;
}

static glong sock_ioctl(TesFile *f, TesTask *t, guint cmd, gulong arg) {
  UnixSock *s = unix_sock(f);
  int n;
  switch (cmd) {
  case SIOCINQ: /* FIONREAD */
    tes_mutex_lock(&s->lock);
    n = s->state == UNIX_LISTENING ? -1
        : s->type == SOCK_DGRAM    ? (s->rx.head ? (int)s->rx.head->len : 0)
                                   : (int)s->rx_bytes;
    tes_mutex_unlock(&s->lock);
    return n < 0 ? -EINVAL : tes_copy_out(t, arg, &n, sizeof n);
  case SIOCOUTQ: /* TIOCOUTQ */
    n = (int)MIN(__atomic_load_n(&s->wmem, __ATOMIC_RELAXED), G_MAXINT);
    return tes_copy_out(t, arg, &n, sizeof n);
  default:
    return -ENOTTY;
  }
}

static int sock_getattr(TesFile *f, TesCtx *ctx, TesAttr *a) {
  *a = (TesAttr){.mode = S_IFSOCK | 0777, .nlink = 1, .blksize = 4096, .ino = f->ino};
  return 0;
}

static char *sock_describe(TesFile *f) { return g_strdup_printf("socket:[%" G_GUINT64_FORMAT "]", f->ino); }

/* A close that is not the last may leave a socket that only messages reach. */
static int sock_flush(TesFile *f, TesCtx *ctx) {
  UnixSock *s = unix_sock(f);
  if (g_atomic_int_get(&s->in_flight) > 0)
    unix_collect(s->k);
  return 0;
}

static void sock_release(TesFile *f) {
  unix_sock_close(unix_sock(f));
  g_free(f);
}

#define COMMON                                                                                             \
  .size = sizeof(TesFileOps), .name = "socket", .read = sock_read, .write = sock_write, .poll = sock_poll, \
  .ioctl = sock_ioctl, .getattr = sock_getattr, .describe = sock_describe, .flush = sock_flush,            \
  .sock = &unix_sock_ops, .release = sock_release

const TesFileOps unix_stream_ops = {COMMON, .flags = TES_FILE_STREAM};
const TesFileOps unix_packet_ops = {COMMON};

const TesSockOps unix_sock_ops = {
    .size = sizeof(TesSockOps),
    .bind = unix_bind,
    .connect = unix_connect,
    .listen = unix_listen,
    .accept = unix_accept,
    .sendmsg = unix_sendmsg,
    .recvmsg = unix_recvmsg,
    .shutdown = unix_shutdown,
    .getname = unix_getname,
    .getsockopt = unix_getsockopt,
    .setsockopt = unix_setsockopt,
    .timeout = unix_timeout,
};

TesFile *unix_file_new(UnixSock *s, TesCtx *ctx, guint flags) {
  UnixFile *uf = g_new0(UnixFile, 1);
  tes_file_init(&uf->file, ctx->kernel, s->type == SOCK_STREAM ? &unix_stream_ops : &unix_packet_ops,
                O_RDWR | (flags & O_NONBLOCK));
  uf->sock = s;
  uf->file.queue = &s->queue;
  s->file = &uf->file;
  return &uf->file;
}

/* ---- The family ---- */

static int check_type(int *type, int protocol) {
  if (protocol != 0 && protocol != PF_UNIX)
    return -EPROTONOSUPPORT;
  if (*type == SOCK_RAW) /* an old name for datagrams */
    *type = SOCK_DGRAM;
  return *type == SOCK_STREAM || *type == SOCK_DGRAM || *type == SOCK_SEQPACKET ? 0 : -ESOCKTNOSUPPORT;
}

static int create(TesCtx *ctx, int type, int protocol, guint flags, TesFile **out) {
  int r = check_type(&type, protocol);
  if (r == 0)
    *out = unix_file_new(unix_sock_new(unix_kernel(ctx->kernel), ctx->kernel, type), ctx, flags);
  return r;
}

static int create_pair(TesCtx *ctx, int type, int protocol, guint flags, TesFile *out[2]) {
  int r = create(ctx, type, protocol, flags, &out[0]);
  if (r < 0)
    return r;
  create(ctx, type, protocol, flags, &out[1]);
  unix_join(unix_sock(out[0]), unix_sock(out[1]), unix_cred(ctx, TRUE));
  return 0;
}

static const TesSocketFamilyOps family = {.size = sizeof(TesSocketFamilyOps),
                                          .family = AF_UNIX,
                                          .name = "unix",
                                          .create = create,
                                          .pair = create_pair};
static const TesStateOps state = {.size = sizeof(TesStateOps), .section = "unix", .version = 1};
static const TesFeature features[] = {
    {"socket-family", "unix", &family}, {"state", "unix", &state}, {NULL, NULL, NULL}};

TES_PLUGIN_DEFINE(unix, .name = "unix", .summary = "unix(7): sockets between processes of the sandbox",
                  .licence = "Apache-2.0", .features = features, .init = unix_kernel_init);
