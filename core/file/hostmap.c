/* SPDX-License-Identifier: Apache-2.0 */
/* Mapping an inherited regular file: a mapping source over the host descriptor. The kernel sees it through windows of 16 MiB that
 * are made at first use and stay as long as the source, which may outlive the file description. */
#include <core/file/file.h>
#include <sys/mman.h>
#include <unistd.h>

#define WINDOW (16UL << 20)
#define WINDOWS_MAX 65536 /* 1 TiB */

typedef struct {
  TesMapSource source;
  gint refs;
  int fd; /* own duplicate */
  gboolean writable;
  TesMutex lock;
  GPtrArray *windows; /* address or NULL, by index; lock */
} HostMap;

static const TesLockClass map_class = {"host file windows", TES_RANK_MAP_SOURCE - 1, FALSE,
                                       "kernel mappings of an inherited file"};

static void map_ref(TesMapSource *s) { g_atomic_int_inc(&((HostMap *)s)->refs); }

static void map_unref(TesMapSource *s) {
  HostMap *m = (HostMap *)s;
  if (!g_atomic_int_dec_and_test(&m->refs))
    return;
  for (guint i = 0; i < m->windows->len; i++)
    if (g_ptr_array_index(m->windows, i))
      munmap(g_ptr_array_index(m->windows, i), WINDOW);
  g_ptr_array_unref(m->windows);
  tes_map_source_clear(&m->source);
  tes_mutex_clear(&m->lock);
  close(m->fd);
  g_free(m);
}

/* The window may reach beyond the end of file; what lies there is never handed out. */
static guchar *window(HostMap *m, gsize index) {
  TES_LOCKED(&m->lock);
  if (index >= m->windows->len)
    g_ptr_array_set_size(m->windows, (gint)index + 1);
  guchar *w = g_ptr_array_index(m->windows, index);
  if (!w) {
    int prot = PROT_READ | (m->writable ? PROT_WRITE : 0);
    w = mmap(NULL, WINDOW, prot, MAP_SHARED, m->fd, (off_t)(index * WINDOW));
    if (w == MAP_FAILED)
      return NULL;
    g_ptr_array_index(m->windows, index) = w;
  }
  return w;
}

static int map_piece(TesMapSource *s, goffset off, gsize max, gboolean write, TesMapPiece *out) {
  HostMap *m = (HostMap *)s;
  struct stat st;
  if (write && !m->writable)
    return -EACCES;
  if (fstat(m->fd, &st) < 0)
    return -errno;
  gsize end = TES_PAGE_UP((gsize)st.st_size), at = (gsize)off;
  if (off < 0 || at >= end)
    return -EFAULT;
  if (at / WINDOW >= WINDOWS_MAX)
    return -ENOMEM;
  guchar *w = window(m, at / WINDOW);
  if (!w)
    return -ENOMEM;
  gsize len = MIN(MIN(max, WINDOW - at % WINDOW), end - at);
  *out = (TesMapPiece){.fd = m->fd, .fd_off = off, .window = w + at % WINDOW, .len = len};
  return 0;
}

static const TesMapSourceOps map_ops = {
    .size = sizeof(TesMapSourceOps), .piece = map_piece, .ref = map_ref, .unref = map_unref};

int tes_host_map_new(int fd, gboolean writable, TesMapSource **out) {
  int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (own < 0)
    return -errno;
  HostMap *m = g_new0(HostMap, 1);
  tes_map_source_init(&m->source, &map_ops);
  tes_mutex_init(&m->lock, &map_class);
  m->refs = 1;
  m->fd = own;
  m->writable = writable;
  m->windows = g_ptr_array_new();
  *out = &m->source;
  return 0;
}
