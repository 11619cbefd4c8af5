/* SPDX-License-Identifier: Apache-2.0 */
/* The initial stack: strings, vectors, auxiliary vector. System V ABI AMD64 supplement 3.4.1; getauxval(3); execve(2).
 *
 * From high to low addresses: 8 zero bytes, the file name, environment strings, argument strings, (random gap), the
 * platform's name, 16 random bytes, and 16-byte aligned at sp: argc, argv, NULL, envp, NULL, auxv. */
#include <core/loader/internal.h>
#include <cpuid.h>
#include <elf.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

#define STRING_MAX (128 * 1024)    /* one string, its NUL included */
#define ARGS_MIN (128 * 1024)      /* always allowed in total */
#define ARGS_MAX (6 * 1024 * 1024) /* never more, however large the stack limit */
#define STACK_SLACK (128 * 1024)   /* mapped below sp from the beginning */
#define GAP_MAX 8192               /* random distance between strings and vectors */
#define CLOCK_TICKS 100            /* AT_CLKTCK: TES_CLOCK_TICK is 10 ms */
#define HWCAP2_FSGSBASE 2          /* the one bit of the host's AT_HWCAP2 that is true of guests */
static const char platform_name[] = "x86_64";

/* Fetched ahead: an exec asks six times for a few bytes. No byte is given twice. */
void tes_loader_random(void *buf, gsize n) {
  static __thread guint8 pool[256];
  static __thread gsize left;
  g_assert(n <= sizeof pool);
  if (left < n && getrandom(pool, sizeof pool, 0) != (gssize)sizeof pool)
    g_error("getrandom: %s", g_strerror(errno));
  left = (left < n ? sizeof pool : left) - n;
  memcpy(buf, pool + left, n);
  memset(pool + left, 0, n);
}

static guint count(char *const *v) {
  guint n = 0;
  while (v && v[n])
    n++;
  return n;
}

static gboolean spend(guint64 *left, const char *s) {
  gsize n = strnlen(s, STRING_MAX) + 1;
  if (n > STRING_MAX || n > *left)
    return FALSE;
  *left -= n;
  return TRUE;
}

int tes_stack_check_args(char *const *argv, char *const *envv, const char *execfn, guint64 stack_limit) {
  guint64 left = MAX(MIN(stack_limit / 4, ARGS_MAX), ARGS_MIN);
  guint64 pointers = ((guint64)count(argv) + count(envv)) * sizeof(gulong);
  if (pointers >= left)
    return -E2BIG;
  left -= pointers;
  gboolean ok = spend(&left, execfn);
  for (char *const *s = argv; ok && s && *s; s++)
    ok = spend(&left, *s);
  for (char *const *s = envv; ok && s && *s; s++)
    ok = spend(&left, *s);
  return ok ? 0 : -E2BIG;
}

static void add_words(GArray *words, gulong a, gulong b) {
  gulong pair[2] = {a, b};
  g_array_append_vals(words, pair, 2);
}

/* CPUID.1:EDX, which is what Linux gives; the C library's own getauxval(AT_HWCAP) is something else. Read once: CPUID
 * leaves to the hypervisor on a virtual machine. */
static gulong hwcap(void) {
  static gsize cached;
  if (g_once_init_enter(&cached)) {
    guint eax, ebx, ecx, edx = 0;
    __get_cpuid(1, &eax, &ebx, &ecx, &edx);
    g_once_init_leave(&cached, edx | 1UL << 32);
  }
  return cached & G_MAXUINT32;
}

static gboolean is_secure(const TesStackArgs *a) {
  return a->euid != a->cred->uid || a->egid != a->cred->gid;
}

/* Where call sites are rewritten a program must leave %gs to arch_prctl(2), which the kernel sees: it is not told that it could
 * use the instruction. */
static gulong hwcap2(const TesStackArgs *a) {
  return TES_HAS(tes_mm_aspace(a->mm)->ops, rewrite) ? 0 : getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
}

/* The vector in Linux's order, the operator's entries (X5) last; ends with AT_NULL. */
static GArray *make_auxv(const TesStackArgs *a, gulong execfn, gulong platform, gulong random) {
  GArray *v = g_array_sized_new(FALSE, FALSE, sizeof(gulong), 64);
  gulong frame = getauxval(AT_MINSIGSTKSZ);
  if (a->vdso)
    add_words(v, AT_SYSINFO_EHDR, a->vdso);
  add_words(v, AT_MINSIGSTKSZ, frame ? frame : 2048);
  add_words(v, AT_HWCAP, hwcap());
  add_words(v, AT_PAGESZ, TES_PAGE_SIZE);
  add_words(v, AT_CLKTCK, CLOCK_TICKS);
  add_words(v, AT_PHDR, a->phdr);
  add_words(v, AT_PHENT, sizeof(Elf64_Phdr));
  add_words(v, AT_PHNUM, a->phnum);
  add_words(v, AT_BASE, a->base);
  add_words(v, AT_FLAGS, 0);
  add_words(v, AT_ENTRY, a->entry);
  add_words(v, AT_UID, a->cred->uid);
  add_words(v, AT_EUID, a->euid);
  add_words(v, AT_GID, a->cred->gid);
  add_words(v, AT_EGID, a->egid);
  add_words(v, AT_SECURE, is_secure(a));
  add_words(v, AT_RANDOM, random);
  add_words(v, AT_HWCAP2, hwcap2(a));
  add_words(v, AT_EXECFN, execfn);
  add_words(v, AT_PLATFORM, platform);
  for (guint i = 0; i < a->kernel->n_extra_auxv; i++)
    add_words(v, a->kernel->extra_auxv[2 * i], a->kernel->extra_auxv[2 * i + 1]);
  add_words(v, AT_NULL, 0);
  return v;
}

static void add_string(GByteArray *b, const char *s) {
  g_byte_array_append(b, (const guint8 *)s, strlen(s) + 1);
}

static void add_strings(GByteArray *b, char *const *v) {
  for (; v && *v; v++)
    add_string(b, *v);
}

/* Pointers to strings that lie one after the other from `at`; returns the address behind the last. */
static gulong add_pointers(GArray *words, char *const *v, gulong at) {
  for (; v && *v; v++) {
    g_array_append_val(words, at);
    at += strlen(*v) + 1;
  }
  gulong null = 0;
  g_array_append_val(words, null);
  return at;
}

static int map_stack(const TesStackArgs *a, gulong sp) {
  gulong need = a->stack_top - TES_PAGE_DOWN(sp);
  gulong want = TES_PAGE_UP(need + STACK_SLACK);
  if (want > a->stack_limit)
    want = MAX(need, TES_PAGE_DOWN(a->stack_limit));
  TesMmapArgs m = {
      .addr = a->stack_top - want,
      .len = want,
      .prot = PROT_READ | PROT_WRITE | (a->exec_stack ? PROT_EXEC : 0),
      .flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_GROWSDOWN | MAP_STACK,
      .name = "[stack]",
      .limit_as = a->as_limit,
      .task = a->task,
  };
  glong r = tes_mm_mmap(a->mm, &m);
  if (r < 0)
    return r == -EEXIST ? -ENOMEM : (int)r; /* the program's own segments lie here */
  return 0;
}

static gboolean put(TesMM *mm, gulong at, const void *data, gsize n) {
  return tes_mm_copy_out(mm, at, data, n) == n;
}

int tes_stack_build(const TesStackArgs *a, TesMMLayout *layout, gulong *sp_out) {
  g_autoptr(GByteArray) strings = g_byte_array_new();
  add_strings(strings, a->argv);
  gsize arg_len = strings->len;
  add_strings(strings, a->envv);
  gsize env_len = strings->len - arg_len;
  add_string(strings, a->execfn);
  gulong start = a->stack_top - sizeof(gulong) - strings->len;

  guint16 gap = 0;
  if (a->randomize)
    tes_loader_random(&gap, sizeof gap);
  struct {
    guint8 random[16];
    char platform[16];
  } fixed = {.platform = {0}};
  memcpy(fixed.platform, platform_name, sizeof platform_name);
  tes_loader_random(fixed.random, sizeof fixed.random);
  gulong fixed_at = (start - gap % GAP_MAX - sizeof fixed) & ~15UL;

  g_autoptr(GArray) words = g_array_new(FALSE, FALSE, sizeof(gulong));
  gulong argc = count(a->argv);
  g_array_append_val(words, argc);
  gulong env_at = add_pointers(words, a->argv, start);
  gulong execfn = add_pointers(words, a->envv, env_at);
  g_autoptr(GArray) auxv =
      make_auxv(a, execfn, fixed_at + G_STRUCT_OFFSET(__typeof__(fixed), platform), fixed_at);
  g_array_append_vals(words, auxv->data, auxv->len);
  gulong sp = (fixed_at - words->len * sizeof(gulong)) & ~15UL;

  int r = map_stack(a, sp);
  if (r < 0)
    return r;
  if (!put(a->mm, start, strings->data, strings->len) || !put(a->mm, fixed_at, &fixed, sizeof fixed) ||
      !put(a->mm, sp, words->data, words->len * sizeof(gulong)))
    return -ENOMEM;
  tes_mm_set_auxv(a->mm, (const guint64 *)auxv->data, auxv->len * sizeof(gulong));
  layout->arg_start = start;
  layout->arg_end = layout->env_start = start + arg_len;
  layout->env_end = layout->env_start + env_len;
  layout->stack_start = sp;
  *sp_out = sp;
  return 0;
}
