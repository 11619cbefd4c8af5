/* SPDX-License-Identifier: Apache-2.0 */
/* The SOL_SOCKET options that every family keeps alike (socket(7)); families embed a TesSockOpts and hand on to these. */
#include <linux/capability.h>
#include <tessera/tessera.h>

#define BUF_DEFAULT 212992 /* net.core.wmem_default and wmem_max */
#define BUF_MAX 212992
#define SNDBUF_MIN 4608
#define RCVBUF_MIN 2304

void tes_sockopts_init(TesSockOpts *o, int domain, int type, int protocol) {
  *o = (TesSockOpts){.domain = domain,
                     .type = type,
                     .protocol = protocol,
                     .sndbuf = BUF_DEFAULT,
                     .rcvbuf = BUF_DEFAULT,
                     .rcvlowat = 1};
}

static gboolean is_bool(int name) {
  switch (name) {
  case SO_DEBUG:
  case SO_REUSEADDR:
  case SO_REUSEPORT:
  case SO_DONTROUTE:
  case SO_BROADCAST:
  case SO_KEEPALIVE:
  case SO_OOBINLINE:
  case SO_PASSCRED:
  case SO_PASSSEC:
  case SO_TIMESTAMP:
  case SO_TIMESTAMPNS:
  case SO_RXQ_OVFL:
  case SO_WIFI_STATUS:
  case SO_NOFCS:
  case SO_LOCK_FILTER:
    return TRUE;
  default:
    return FALSE;
  }
}

static int put(void *value, socklen_t *len, const void *from, gsize n) {
  *len = (socklen_t)MIN((gsize)*len, n);
  memcpy(value, from, *len);
  return 0;
}

static int put_int(void *value, socklen_t *len, int v) { return put(value, len, &v, sizeof v); }

static int put_time(void *value, socklen_t *len, TesTime t) {
  struct timeval tv = {t / TES_NSEC, t % TES_NSEC / 1000};
  return put(value, len, &tv, sizeof tv);
}

int tes_sockopts_get(TesSockOpts *o, int name, void *value, socklen_t *len) {
  if (is_bool(name))
    return put_int(value, len, tes_sockopts_bool(o, name));
  switch (name) {
  case SO_DOMAIN:
    return put_int(value, len, o->domain);
  case SO_TYPE:
    return put_int(value, len, o->type);
  case SO_PROTOCOL:
    return put_int(value, len, o->protocol);
  case SO_SNDBUF:
    return put_int(value, len, o->sndbuf);
  case SO_RCVBUF:
    return put_int(value, len, o->rcvbuf);
  case SO_PRIORITY:
    return put_int(value, len, o->priority);
  case SO_MARK:
    return put_int(value, len, o->mark);
  case SO_RCVLOWAT:
    return put_int(value, len, o->rcvlowat);
  case SO_SNDLOWAT:
    return put_int(value, len, 1);
  case SO_ERROR:
  case SO_ACCEPTCONN:
    return put_int(value, len, 0);
  case SO_LINGER:
    return put(value, len, &o->linger, sizeof o->linger);
  case SO_RCVTIMEO:
    return put_time(value, len, o->rcvtimeo);
  case SO_SNDTIMEO:
    return put_time(value, len, o->sndtimeo);
  default:
    return -ENOPROTOOPT;
  }
}

static int set_time(TesTime *to, const void *value, socklen_t len) {
  struct timeval tv;
  if (len < sizeof tv)
    return -EINVAL;
  memcpy(&tv, value, sizeof tv);
  if (tv.tv_usec < 0 || tv.tv_usec >= 1000000)
    return -EDOM;
  if (tv.tv_sec < 0)
    *to = 1; /* negative: give up at once */
  else
    *to = tv.tv_sec >= G_MAXINT64 / TES_NSEC ? 0 : tv.tv_sec * TES_NSEC + tv.tv_usec * 1000;
  return 0;
}

/* The kernel doubles what was asked for, to leave room for its own overhead. */
static int set_buf(int *to, int v, int min, gboolean force) {
  int max = force ? G_MAXINT / 2 : BUF_MAX;
  *to = MAX(CLAMP(v, 0, MIN(max, 64 << 20)) * 2, min);
  return 0;
}

static int set_int(TesSockOpts *o, TesCtx *ctx, int name, int v) {
  switch (name) {
  case SO_SNDBUF:
    return set_buf(&o->sndbuf, v, SNDBUF_MIN, FALSE);
  case SO_RCVBUF:
    return set_buf(&o->rcvbuf, v, RCVBUF_MIN, FALSE);
  case SO_SNDBUFFORCE:
  case SO_RCVBUFFORCE:
    if (!tes_ctx_capable(ctx, CAP_NET_ADMIN))
      return -EPERM;
    return name == SO_SNDBUFFORCE ? set_buf(&o->sndbuf, v, SNDBUF_MIN, TRUE)
                                  : set_buf(&o->rcvbuf, v, RCVBUF_MIN, TRUE);
  case SO_PRIORITY:
    if ((v < 0 || v > 6) && !tes_ctx_capable(ctx, CAP_NET_ADMIN))
      return -EPERM;
    o->priority = v;
    return 0;
  case SO_MARK:
    if (!tes_ctx_capable(ctx, CAP_NET_ADMIN))
      return -EPERM;
    o->mark = v;
    return 0;
  case SO_RCVLOWAT:
    o->rcvlowat = v < 0 ? G_MAXINT : MAX(v, 1);
    return 0;
  case SO_TYPE:
  case SO_PROTOCOL:
  case SO_DOMAIN:
  case SO_ERROR:
  case SO_ACCEPTCONN:
  case SO_SNDLOWAT:
    return -ENOPROTOOPT;
  default:
    if (!is_bool(name))
      return -ENOPROTOOPT;
    if (name == SO_DEBUG && v && !tes_ctx_capable(ctx, CAP_NET_ADMIN))
      return -EACCES;
    if (v)
      __atomic_or_fetch(&o->bools, 1ULL << name, __ATOMIC_RELAXED);
    else
      __atomic_and_fetch(&o->bools, ~(1ULL << name), __ATOMIC_RELAXED);
    return 0;
  }
}

int tes_sockopts_set(TesSockOpts *o, TesCtx *ctx, int name, const void *value, socklen_t len) {
  int v;
  if (name == SO_RCVTIMEO || name == SO_SNDTIMEO)
    return set_time(name == SO_RCVTIMEO ? &o->rcvtimeo : &o->sndtimeo, value, len);
  if (len < sizeof v)
    return -EINVAL;
  if (name == SO_LINGER) {
    if (len < sizeof o->linger)
      return -EINVAL;
    memcpy(&o->linger, value, sizeof o->linger);
    return 0;
  }
  memcpy(&v, value, sizeof v);
  return set_int(o, ctx, name, v);
}
