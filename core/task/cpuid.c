/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's CPU feature table (X1): what CPUID answers to guests whose instruction was patched (core/mm/cpuid-sites.c). An answer is
 * the host's, taken once when it is first asked for, with the topology reduced to the CPUs the sandbox has. Masks of
 * features belong into adjust(). */
#include <core/task/life.h>
#include <cpuid.h>
#include <time.h>

#define SLOW_NS 2000 /* CPUID that takes longer leaves to a hypervisor: a trap is cheaper */
#define MAX_SUBLEAF 64

static const TesLockClass cpuid_class = {"cpuid", TES_RANK_LEAF, FALSE, "answers of CPUID"};

typedef struct {
  TesMutex lock; /* guards appending to table */
  guint32 max_basic, max_extended;
  TesCpuidTable *table;
} Cpuid;
G_STATIC_ASSERT(sizeof(TesCpuidTable) == TES_PAGE_SIZE);

static void host_cpuid(guint32 leaf, guint32 subleaf, guint32 r[4]) {
  __cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
}

/* ---- What differs from the host ---- */

static guint32 field_min(guint32 word, guint shift, guint bits, guint32 most) {
  guint32 mask = ((1U << bits) - 1) << shift, value = (word & mask) >> shift;
  return (word & ~mask) | MIN(value, most) << shift;
}

/* Intel SDM vol. 2 "CPUID", AMD APM vol. 3 appendix E. The APIC number would name the host's CPU of the moment: it is always
 * that of CPU 0. */
static void adjust(guint cores, guint32 leaf, guint32 r[4]) {
  switch (leaf) {
  case 1: /* ebx: initial APIC number, logical CPUs */
    r[1] = field_min(r[1] & 0x00ffffff, 16, 8, cores);
    break;
  case 4: /* eax: CPUs that share this cache, cores in the package; each less one */
    if (r[0] & 0x1f)
      r[0] = field_min(field_min(r[0], 14, 12, cores - 1), 26, 6, cores - 1);
    break;
  case 0xb:
  case 0x1f: /* ebx: CPUs at this level; edx: x2APIC number */
    r[1] = field_min(r[1], 0, 16, cores);
    r[3] = 0;
    break;
  case 0x80000008: /* ecx: cores less one */
    r[2] = field_min(r[2], 0, 8, cores - 1);
    break;
  case 0x8000001d:
    r[0] = field_min(r[0], 14, 12, cores - 1);
    break;
  case 0x8000001e: /* eax: APIC number; ebx: core's number */
    r[0] = 0;
    r[1] &= ~0xffU;
    break;
  }
}

/* Does the answer depend on ecx? */
static gboolean has_subleaves(guint32 leaf) {
  switch (leaf) {
  case 0x4:
  case 0x7:
  case 0xb:
  case 0xd:
  case 0x8000001d:
  case 0x80000020:
  case 0x80000026:
    return TRUE;
  default: /* those after 0xd that do not have any are few and seldom asked for */
    return leaf > 0xd && leaf < 0x40000000;
  }
}

/* ---- The table ---- */

static const TesCpuidEntry *find(const TesCpuidTable *t, guint32 leaf, guint32 subleaf) {
  guint32 n = __atomic_load_n(&t->count, __ATOMIC_ACQUIRE);
  for (guint32 i = 0; i < n; i++)
    if (t->entry[i].leaf == leaf && (t->entry[i].any_subleaf || t->entry[i].subleaf == subleaf))
      return &t->entry[i];
  return NULL;
}

/* Only what a program can ask for in earnest: nobody fills the table with nonsense. */
static gboolean worth_keeping(const Cpuid *c, guint32 leaf, guint32 subleaf) {
  if (has_subleaves(leaf) && subleaf >= MAX_SUBLEAF)
    return FALSE;
  return leaf <= c->max_basic || (leaf >= 0x80000000 && leaf <= c->max_extended);
}

static void keep(Cpuid *c, guint32 leaf, guint32 subleaf, const guint32 r[4]) {
  TES_LOCKED(&c->lock);
  TesCpuidTable *t = c->table;
  if (t->count == TES_CPUID_ENTRIES || find(t, leaf, subleaf))
    return;
  t->entry[t->count] = (TesCpuidEntry){.leaf = leaf,
                                       .subleaf = subleaf,
                                       .any_subleaf = !has_subleaves(leaf),
                                       .eax = r[0],
                                       .ebx = r[1],
                                       .ecx = r[2],
                                       .edx = r[3]};
  __atomic_store_n(&t->count, t->count + 1, __ATOMIC_RELEASE);
}

void tes_cpuid(TesKernel *k, guint32 leaf, guint32 subleaf, guint32 out[4]) {
  Cpuid *c = k->cpuid;
  const TesCpuidEntry *e = c ? find(c->table, leaf, subleaf) : NULL;
  if (e) {
    memcpy(out, &e->eax, 4 * sizeof *out);
    return;
  }
  host_cpuid(leaf, subleaf, out);
  adjust(k->cores, leaf, out);
  if (c && worth_keeping(c, leaf, subleaf))
    keep(c, leaf, subleaf, out);
}

const TesCpuidTable *tes_cpuid_table(TesKernel *k) { return k->cpuid ? ((Cpuid *)k->cpuid)->table : NULL; }

/* ---- The trap ---- */

/* Reading gives the program's own bytes: a CLI that it has itself is no CPUID. */
gboolean tes_task_cpuid(TesTask *t) {
  guint8 code[2];
  if (t->trap.signo != SIGSEGV || t->trap.code != SI_KERNEL || !t->kernel->cpuid ||
      tes_mm_copy_in(t->mm, code, t->trap.ip, 2) != 2 || code[0] != 0x0f || code[1] != 0xa2)
    return FALSE;
  guint32 r[4];
  TesRegs *regs = t->exec->ops->regs(t->exec, TRUE);
  tes_cpuid(t->kernel, (guint32)regs->rax, (guint32)regs->rcx, r);
  regs->rax = r[0];
  regs->rbx = r[1];
  regs->rcx = r[2];
  regs->rdx = r[3];
  regs->rip = t->trap.ip + 2;
  return TRUE;
}

/* ---- Life ---- */

static guint64 now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (guint64)ts.tv_sec * 1000000000 + (guint64)ts.tv_nsec;
}

static guint64 cost_ns(void) {
  guint64 best = G_MAXUINT64;
  guint32 r[4];
  for (guint i = 0; i < 5; i++) {
    guint64 t0 = now_ns();
    host_cpuid(0, 0, r);
    best = MIN(best, now_ns() - t0);
  }
  return best;
}

void tes_cpuid_init(TesKernel *k, TesCpuidMode mode, gboolean platform_answers) {
  if (mode == TES_CPUID_HOST || (mode == TES_CPUID_AUTO && (!platform_answers || cost_ns() < SLOW_NS)))
    return;
  Cpuid *c = g_new0(Cpuid, 1);
  guint32 r[4];
  tes_mutex_init(&c->lock, &cpuid_class);
  c->table = g_new0(TesCpuidTable, 1);
  host_cpuid(0, 0, r);
  c->max_basic = r[0];
  host_cpuid(0x80000000, 0, r);
  c->max_extended = r[0];
  k->cpuid = c;
  tes_cpuid_files_init(k, mode == TES_CPUID_TABLE);
}

void tes_cpuid_free(TesKernel *k) {
  Cpuid *c = k->cpuid;
  tes_cpuid_files_free(k);
  if (!c)
    return;
  g_free(c->table);
  tes_mutex_clear(&c->lock);
  g_free(c);
  k->cpuid = NULL;
}
