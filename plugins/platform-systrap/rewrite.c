/* SPDX-License-Identifier: Apache-2.0 */
/* Rewriting of hot `syscall` instructions to jumps into trampolines, which cost no signal.
 *
 *   before                              the window (TesCodePatch)               entered in the middle, at
 *   ST_SITE_MOV   b8 nr, 0f 05          ff 24 25 disp                           the syscall: 06 00, SIGILL
 *   ST_SITE_MOVQ  48 c7 c0 nr, 0f 05    ff 24 25 disp 06 00                     the syscall: 06 00, SIGILL
 *   ST_SITE_CMP   0f 05, 48 3d imm      ff 24 e5 disp 90                        the cmp: e5, `in`, SIGSEGV
 *
 * All are `jmp *disp`, disp being an entry of the table at ST_TABLE, whose n-th points to the n-th trampoline: what it points
 * to never changes, so one table serves all. Every instruction that the window covers either is replaced from its
 * first byte on or begins with a byte that faults, whereupon the stub (into_trampoline()) goes on in the trampoline at the right
 * place. So threads may stand anywhere when a window is placed, code may jump to the call itself, and the core may
 * restart it: nothing has to be known about other threads or other code.
 *
 * A family is what descends from one address space by clone. It shares an area of trampolines, mapped into each stub when it first
 * needs one; members may have different windows. A trampoline, once made, never changes until the family has gone.
 *
 * Locks: StAspace.lock > StFamily.lock > StPlatform.lock. Trampolines' sites are read without a lock. */
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "private.h"

#define HOT 32 /* traps of a site before the core is asked, and after each doubling again */
#define COUNT_MASK 0xffffUL
#define MAX_NR 1024
#define TABLE_JUMP 0x2524ff
#define TABLE_JUMP_CMP 0xe524ff

enum { ST_SITE_MOV, ST_SITE_MOVQ, ST_SITE_CMP };

typedef struct {
  gulong ip; /* after the syscall instruction */
  guint32 imm;
  guint8 kind;
  guint16 older; /* of the same ip, +1 */
} StSite;

struct _StFamily {
  gint refs;
  guint number;
  char *code; /* its trampolines */
  GMutex lock;
  GHashTable *last; /* ip -> newest site, +1 */
  guint n;          /* grows after site[n] and the code are written */
  StSite site[ST_TRAMPOLINES_MAX];
};

/* ---- Hot sites ---- */

/* Calls that end with other registers, or hand out all of them, need a signal frame: rewriting them would add to that. */
static gboolean needs_frame(gulong nr) {
  return (nr >= SYS_clone && nr <= SYS_execve) || nr == SYS_clone3 || nr == SYS_execveat ||
         nr == SYS_rt_sigreturn;
}

/* A word of the table: ip, and the traps counted, of which bits are lost when threads race. */
gboolean st_hot(StAspace *as, gulong ip, gulong nr) {
  StHeat *h = &as->heat[(ip ^ ip >> 7) % ST_HEAT];
  guint64 w = __atomic_load_n(&h->word, __ATOMIC_RELAXED), n = w & COUNT_MASK;
  if (w >> 16 != ip)
    n = 0;
  else if (n == COUNT_MASK)
    return FALSE;
  n++;
  __atomic_store_n(&h->word, (guint64)ip << 16 | n, __ATOMIC_RELAXED);
  if (G_LIKELY(n < HOT || n & (n - 1)) || needs_frame(nr))
    return FALSE;
  __atomic_store_n(&h->nr, (guint32)nr, __ATOMIC_RELAXED);
  return TRUE;
}

/* ---- Patterns ---- */

static guint32 word_at(const guint8 *p) {
  guint32 w;
  memcpy(&w, p, sizeof w);
  return w;
}

/* What stands around code[at], the syscall instruction. A `mov` is believed if it loads what the call was seen with: these bytes
 * could be the end of another instruction. */
static gboolean match(const guint8 *code, gsize n, gsize at, guint32 nr, StSite *s) {
  if (at >= 6 && code[at - 5] == 0xb8 && word_at(code + at - 4) == nr && nr < MAX_NR &&
      (code[at - 6] & 0xf0) != 0x40) { /* with REX it is a mov to r8d */
    s->kind = ST_SITE_MOV;
    s->imm = nr;
    return TRUE;
  }
  if (at >= 7 && memcmp(code + at - 7, "\x48\xc7\xc0", 3) == 0 && word_at(code + at - 4) == nr &&
      nr < MAX_NR) {
    s->kind = ST_SITE_MOVQ;
    s->imm = nr;
    return TRUE;
  }
  if (at + 8 <= n && code[at + 2] == 0x48 && code[at + 3] == 0x3d) {
    s->kind = ST_SITE_CMP;
    s->imm = word_at(code + at + 4);
    return TRUE;
  }
  return FALSE;
}

static void window(const StSite *s, guint i, TesCodePatch *out) {
  static const guint8 length[] = {7, 9, 8}, before[] = {7, 9, 2};
  guint32 jump = s->kind == ST_SITE_CMP ? TABLE_JUMP_CMP : TABLE_JUMP, disp = ST_TABLE + 8 * i;
  *out = (TesCodePatch){.addr = s->ip - before[s->kind], .len = length[s->kind]};
  memcpy(out->bytes, &jump, 3);
  memcpy(out->bytes + 3, &disp, 4);
  memcpy(out->bytes + 7, s->kind == ST_SITE_CMP ? "\x90" : "\x06", 1);
}

/* ---- Trampolines ---- */

static char *put(char *p, const void *bytes, gsize n) { return (char *)memcpy(p, bytes, n) + n; }

static char *put_jump(char *p, gulong from, gulong to) {
  gint32 rel = (gint32)(to - from - 5);
  return put(put(p, "\xe9", 1), &rel, sizeof rel);
}

/* Entered at 0, at ST_TR_CALL with the number in rax already, or at ST_TR_TAIL with the call done. */
static void write_trampoline(StFamily *f, guint i, const StSite *s) {
  gulong at = ST_TRAMPOLINES + (gulong)i * ST_TRAMPOLINE, back = s->ip + 6;
  char *start = f->code + (gsize)i * ST_TRAMPOLINE, *p = start;
  if (s->kind == ST_SITE_CMP) {
    p = put(p, "\x48\x8d\x0d\5\0\0\0", 7); /* lea tail(%rip), %rcx */
    p = put_jump(p, at + 7, ST_AT(tes_st_direct));
    g_assert(p == start + ST_TR_TAIL);
    p = put(put(p, "\x48\x3d", 2), &s->imm, 4);
    put(put(p, "\xff\x25\0\0\0\0", 6), &back, 8); /* jmp *0(%rip) */
    return;
  }
  p = s->kind == ST_SITE_MOV ? put(p, "\x66\x90\xb8", 3) : put(p, "\x48\xc7\xc0", 3);
  p = put(p, &s->imm, 4);
  g_assert(p == start + ST_TR_CALL);
  p = put(put(p, "\x48\xb9", 2), &s->ip, 8); /* movabs $ip, %rcx */
  put_jump(p, at + ST_TR_CALL + 10, ST_AT(tes_st_direct));
}

/* The number of a trampoline for s, or -1: no room. */
static int find_or_make(StFamily *f, StSite *s) {
  g_mutex_lock(&f->lock);
  guint newest = GPOINTER_TO_UINT(g_hash_table_lookup(f->last, (gpointer)s->ip)), i = newest;
  while (i && (f->site[i - 1].kind != s->kind || f->site[i - 1].imm != s->imm))
    i = f->site[i - 1].older;
  if (!i && f->n < ST_TRAMPOLINES_MAX) {
    s->older = (guint16)newest;
    f->site[f->n] = *s;
    write_trampoline(f, f->n, s);
    i = f->n + 1;
    g_hash_table_insert(f->last, (gpointer)s->ip, GUINT_TO_POINTER(i));
    __atomic_store_n(&f->n, i, __ATOMIC_RELEASE);
  }
  g_mutex_unlock(&f->lock);
  return (int)i - 1;
}

/* ---- Families ---- */

static StFamily *family_new(StPlatform *p) {
  guint number;
  g_mutex_lock(&p->lock);
  gboolean ok = st_number_take(&p->families, &number);
  guint64 *table = (guint64 *)(p->ro + RO_TABLE);
  for (guint i = 0; ok && i < ST_TRAMPOLINES_MAX && table[ST_TRAMPOLINES_MAX - 1] == 0; i++)
    table[i] = ST_TRAMPOLINES + (guint64)i * ST_TRAMPOLINE;
  g_mutex_unlock(&p->lock);
  if (!ok)
    return NULL;
  StFamily *f = g_new0(StFamily, 1);
  f->refs = 1;
  f->number = number;
  f->code = p->ro + RO_FAMILIES + (gsize)number * ST_TRAMPOLINES_SIZE;
  f->last = g_hash_table_new(NULL, NULL);
  g_mutex_init(&f->lock);
  return f;
}

StFamily *st_family_ref(StFamily *f) {
  if (f)
    g_atomic_int_inc(&f->refs);
  return f;
}

void st_family_unref(StPlatform *p, StFamily *f) {
  if (!f || !g_atomic_int_dec_and_test(&f->refs))
    return;
  memset(f->code, 0, (gsize)f->n * ST_TRAMPOLINE); /* addresses of a program: not for the next */
  g_mutex_lock(&p->lock);
  st_number_give(&p->families, f->number);
  g_mutex_unlock(&p->lock);
  g_hash_table_unref(f->last);
  g_mutex_clear(&f->lock);
  g_free(f);
}

gboolean st_family_join(StAspace *as, StFamily *f) {
  StPlatform *p = ST_PLATFORM(as);
  const gulong flags = MAP_SHARED | MAP_FIXED;
  const gulong table[6] = {ST_TABLE, ST_TABLE_SIZE, PROT_READ, flags, ST_FD_RO, RO_TABLE};
  const gulong code[6] = {ST_TRAMPOLINES,
                          ST_TRAMPOLINES_SIZE,
                          PROT_READ | PROT_EXEC,
                          flags,
                          ST_FD_RO,
                          (gulong)(RO_FAMILIES + (glong)f->number * ST_TRAMPOLINES_SIZE)};
  st_begin(p, as->mapper);
  st_order(as->mapper, SYS_mmap, 0, table);
  st_order(as->mapper, SYS_mmap, 0, code);
  if (st_batch(as->mapper, NULL, NULL, 0) < 0)
    return FALSE;
  __atomic_store_n(&as->family, f, __ATOMIC_RELEASE);
  return TRUE;
}

/* Under StAspace.lock. The address space's family, a new one if it has none. */
static StFamily *join(StAspace *as) {
  StPlatform *p = ST_PLATFORM(as);
  if (as->family || as->dead)
    return as->dead ? NULL : as->family;
  StFamily *f = family_new(p);
  if (f && !st_family_join(as, f)) {
    st_family_unref(p, f);
    return NULL;
  }
  return f;
}

/* ---- TesAspaceOps ---- */

int st_rewrite(TesAspace *base, gulong ip, const guint8 *code, gulong start, gsize n, gboolean alone,
               TesCodePatch *out) {
  StAspace *as = (StAspace *)base;
  StHeat *h = &as->heat[(ip ^ ip >> 7) % ST_HEAT];
  StSite s = {.ip = ip};
  int i = -1;
  (void)alone;
  if (!match(code, n, ip - 2 - start, __atomic_load_n(&h->nr, __ATOMIC_RELAXED), &s))
    return 0;
  g_mutex_lock(&as->lock);
  StFamily *f = join(as);
  if (f)
    i = find_or_make(f, &s);
  g_mutex_unlock(&as->lock);
  if (i < 0)
    return 0;
  window(&s, (guint)i, out);
  return 1;
}

/* Nothing to do: trampolines stay, as somebody may be in one. */
void st_rewritten(TesAspace *base, const TesCodePatch *p, gboolean done) { (void)base, (void)p, (void)done; }

/* ---- Where a thread is, as its program sees it ---- */

gulong st_guest_ip(StAspace *as, gulong ip) {
  gulong i = (ip - ST_TRAMPOLINES) / ST_TRAMPOLINE, at = ip % ST_TRAMPOLINE;
  StFamily *f = __atomic_load_n(&as->family, __ATOMIC_ACQUIRE);
  if (ip < ST_TRAMPOLINES || !f || i >= __atomic_load_n(&f->n, __ATOMIC_ACQUIRE))
    return ip;
  const StSite *s = &f->site[i];
  if (s->kind == ST_SITE_CMP)
    return at < ST_TR_TAIL ? s->ip - 2 : at == ST_TR_TAIL ? s->ip : s->ip + 6;
  if (at >= ST_TR_CALL)
    return s->ip - 2;
  return s->ip - (s->kind == ST_SITE_MOV ? 7 : 9);
}

/* ---- Answers in the stub ---- */

/* TesExecOps.facts: the guest thread is not in the stub's fast path now, or only read what it answers. */
void st_facts(TesExec *base, const TesFact *facts, guint n) {
  StIn *in = ((StExec *)base)->thread->in;
  memset(in->fact_of, 0, sizeof in->fact_of);
  for (guint i = 0; i < n && i + 1 < ST_FACTS; i++) {
    if (facts[i].nr >= ST_FACT_CALLS)
      continue;
    in->facts[i + 1] = (guint64)facts[i].value;
    in->fact_of[facts[i].nr] = (guint8)(i + 1);
  }
}
