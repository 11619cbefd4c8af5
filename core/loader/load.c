/* SPDX-License-Identifier: Apache-2.0 */
/* Loading a program: follows "#!" scripts, maps an ELF image and its interpreter into a new address space, places heap,
 * mmap area, vDSO and stack. Interface: tes_load_image(), tes_image_clear(). execve(2), elf(5).
 *
 * Nothing of the caller is touched, so where Linux kills a process that fails beyond exec's point of no return
 * (segments that cannot be mapped), the caller here gets an error. */
#include <core/loader/internal.h>
#include <elf.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>

#define SCRIPT_DEPTH 5 /* interpreters that may themselves be scripts; one more: ELOOP (as Linux 6) */
#define RANDOM_PAGES_MMAP (1UL << 28) /* bits of randomness of images and of the mmap area */
#define RANDOM_PAGES_STACK (1UL << 22)
#define RANDOM_PAGES_BRK (1UL << 13) /* 32 MiB */
#define STACK_GAP_MIN (128UL << 20)  /* room for the stack to grow, below its top */
#define STACK_GUARD (1UL << 20)

typedef struct {
  TesCtx *ctx;
  const TesLoadArgs *args;
  TesProgram prog;
  GPtrArray *argv; /* owned strings, NULL-terminated */
  char *execfn;
  gboolean randomize;
  guint64 stack_limit, as_limit;
  TesMM *mm;
  TesMMLayout layout;
  gulong stack_top, pie_base; /* pie_base: where position-independent programs go */
  gulong bias, interp_base, entry;
} Load;

static void load_clear(Load *l) {
  tes_program_close(&l->prog);
  g_clear_pointer(&l->argv, g_ptr_array_unref);
  g_clear_pointer(&l->execfn, g_free);
  g_clear_pointer(&l->mm, tes_mm_unref);
}

void tes_image_clear(TesImage *i) {
  g_clear_pointer(&i->mm, tes_mm_unref);
  g_clear_pointer(&i->exe, tes_file_unref);
}

static gulong random_pages(const Load *l, gulong n) {
  guint64 r = 0;
  if (l->randomize)
    tes_loader_random(&r, sizeof r);
  return (r % n) << TES_PAGE_SHIFT;
}

/* ---- Arguments and scripts ---- */

/* The name the program was called by: what AT_EXECFN, comm and a script's argument show. */
static char *program_name(TesCtx *ctx, const TesLoadArgs *a) {
  if (a->execfn)
    return g_strdup(a->execfn);
  if (a->at && a->at->path && *a->at->path)
    return g_strdup(a->at->path);
  if (a->file && a->file->path)
    return tes_vfs_name(ctx, a->file->path);
  return g_strdup(a->argv && a->argv[0] ? a->argv[0] : "");
}

/* A program never sees argc 0: Linux gives it one empty argument. */
static GPtrArray *copy_argv(char **argv) {
  GPtrArray *v = g_ptr_array_new_with_free_func(g_free);
  for (char **s = argv; s && *s; s++)
    g_ptr_array_add(v, g_strdup(*s));
  if (v->len == 0)
    g_ptr_array_add(v, g_strdup(""));
  g_ptr_array_add(v, NULL);
  return v;
}

/* argv becomes INTERPRETER [ARGUMENT] SCRIPT argv[1]...; all strings are consumed. */
static void rewrite_argv(Load *l, char *interp, char *arg, char *script) {
  g_free(l->argv->pdata[0]);
  l->argv->pdata[0] = script;
  if (arg)
    g_ptr_array_insert(l->argv, 0, arg);
  g_ptr_array_insert(l->argv, 0, g_strdup(interp));
}

static int open_first(Load *l) {
  return l->args->at ? tes_program_open(l->ctx, l->args->at, &l->prog)
                     : tes_program_open_file(l->ctx, l->args->file, &l->prog);
}

/* Opens what is to be run, going from script to interpreter until something else is found. */
static int open_program(Load *l) {
  g_autofree char *name = g_strdup(l->execfn);
  int r = open_first(l);
  for (guint depth = 0; r == 0; depth++) {
    char *interp, *arg;
    r = tes_script_parse(l->prog.head, l->prog.n_head, &interp, &arg);
    if (r <= 0)
      return r;
    if (depth == 0 && l->args->fd_cloexec) {
      g_free(interp);
      g_free(arg);
      return -ENOENT; /* the interpreter could not open /dev/fd/N */
    }
    rewrite_argv(l, interp, arg, g_steal_pointer(&name));
    name = interp;
    tes_program_close(&l->prog);
    r = tes_program_open(l->ctx, &(TesAt){.path = name}, &l->prog);
    if (r == 0 && depth == SCRIPT_DEPTH)
      r = -ELOOP;
  }
  return r;
}

/* ---- Reading ELF files ---- */

typedef struct {
  TesCtx *ctx;
  TesFile *file;
} Reader;

static gssize read_at(gpointer data, void *buf, gsize n, guint64 off) {
  Reader *r = data;
  return tes_file_read_kernel(r->file, r->ctx, buf, n, off);
}

static int parse(TesCtx *ctx, const TesProgram *p, TesElf *out) {
  Reader r = {ctx, p->file};
  return tes_elf_parse(p->head, p->n_head, p->size, read_at, &r, out);
}

/* PT_INTERP's text: 0 and NULL without one. */
static int read_interp_name(const Load *l, const TesElf *e, char **out) {
  *out = NULL;
  if (!e->interp_len)
    return 0;
  g_autofree char *name = g_malloc(e->interp_len);
  gssize n = tes_file_read_kernel(l->prog.file, l->ctx, name, e->interp_len, e->interp_off);
  if (n < 0)
    return (int)n;
  if ((gulong)n != e->interp_len)
    return -EIO;
  if (name[n - 1] != '\0')
    return -ENOEXEC;
  *out = g_steal_pointer(&name);
  return 0;
}

/* Opens and parses the dynamic loader; a file that is not one is ELIBBAD. */
static int open_interp(const Load *l, const char *name, TesProgram *p, TesElf *e) {
  int r = tes_program_open(l->ctx, &(TesAt){.path = name}, p);
  if (r < 0)
    return r;
  if (p->n_head < sizeof(Elf64_Ehdr))
    return -EIO;
  r = parse(l->ctx, p, e);
  return r == -ENOEXEC || r == -EINVAL ? -ELIBBAD : r;
}

/* ---- Mapping ---- */

static glong do_map(const Load *l, gulong addr, gulong len, guint prot, guint flags, TesFile *file,
                    goffset off) {
  TesMmapArgs m = {
      .addr = addr,
      .len = len,
      .prot = prot,
      .flags = flags,
      .file = file,
      .off = off,
      .limit_as = l->as_limit,
      .task = l->args->task,
  };
  return tes_mm_mmap(l->mm, &m);
}

/* One segment: its file part, zeros to the end of that part's last page (writable segments only, as Linux), then
 * anonymous memory. */
static int map_segment(const Load *l, TesFile *file, const TesElfSegment *s, gulong bias) {
  gulong start = bias + s->vaddr, page = TES_PAGE_DOWN(start), in_page = start - page;
  gulong file_end = start + s->filesz, mem_end = TES_PAGE_UP(start + s->memsz), mapped_end = page;
  if (s->filesz > 0) {
    glong r = do_map(l, page, TES_PAGE_UP(in_page + s->filesz), s->prot, MAP_PRIVATE | MAP_FIXED, file,
                     s->off - in_page);
    if (r < 0)
      return (int)r;
    mapped_end = TES_PAGE_UP(file_end);
    if (s->memsz > s->filesz && (s->prot & PROT_WRITE) && mapped_end > file_end) {
      gsize n = mapped_end - file_end;
      if (tes_mm_zero_out(l->mm, file_end, n) != n)
        return -ENOEXEC; /* the file is cut off here */
    }
  }
  if (mem_end > mapped_end) {
    glong r = do_map(l, mapped_end, mem_end - mapped_end, s->prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                     NULL, 0);
    if (r < 0)
      return (int)r;
  }
  return 0;
}

static int map_segments(const Load *l, TesFile *file, const TesElf *e, gulong bias) {
  for (guint i = 0; i < e->n_seg; i++) {
    int r = map_segment(l, file, &e->seg[i], bias);
    if (r < 0)
      return r;
  }
  return 0;
}

/* A free place of the image's size in the mmap area: *bias such that bias + lo is aligned as the image wants. */
static int find_place(const Load *l, const TesElf *e, gulong *bias) {
  gulong span = e->hi - e->lo, slack = e->align > TES_PAGE_SIZE ? e->align : 0;
  glong at = do_map(l, 0, span + slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, NULL, 0);
  if (at < 0)
    return (int)at;
  tes_mm_munmap(l->mm, at, span + slack); /* nobody else uses this address space yet */
  *bias = ((gulong)at - e->lo + e->align - 1) & ~(e->align - 1);
  if (*bias + e->lo < (gulong)at || *bias + e->hi > (gulong)at + span + slack)
    return -ENOMEM;
  return 0;
}

/* Where the image goes: ET_EXEC where it says; a dynamic program at the randomised base for programs; what has no
 * interpreter (static-PIE, the dynamic loader itself) into the mmap area. */
static int choose_bias(const Load *l, const TesElf *e, gulong *bias) {
  const TesPlatform *p = l->ctx->kernel->platform;
  if (e->type == ET_EXEC) {
    *bias = 0;
    return e->lo < p->min_addr || e->hi > l->stack_top ? -ENOMEM : 0;
  }
  if (e->hi - e->lo > p->max_addr / 2)
    return -ENOMEM;
  if (!e->interp_len)
    return find_place(l, e, bias);
  *bias = ((l->pie_base & ~(e->align - 1)) - e->lo) & TES_PAGE_MASK;
  return l->pie_base + (e->hi - e->lo) > l->layout.mmap_top ? find_place(l, e, bias) : 0;
}

static int map_vdso(Load *l) {
  TesKernel *k = l->ctx->kernel;
  if (!k->vdso_source)
    return 0;
  gsize image = k->vdso_param_offset, all = k->vdso_pages * TES_PAGE_SIZE;
  TesMmapArgs m = {
      .len = all,
      .prot = PROT_READ | PROT_EXEC,
      .flags = MAP_PRIVATE,
      .name = "[vdso]",
      .source = k->vdso_source,
      .limit_as = RLIM_INFINITY,
      .task = l->args->task,
  };
  glong at = tes_mm_mmap(l->mm, &m);
  if (at < 0)
    return (int)at;
  m.addr = at + image;
  m.len = all - image;
  m.off = image;
  m.prot = PROT_READ;
  m.flags = MAP_PRIVATE | MAP_FIXED;
  m.name = "[vvar]";
  l->layout.vdso = at;
  glong r = tes_mm_mmap(l->mm, &m);
  return r < 0 ? (int)r : 0;
}

/* ---- The address space ---- */

/* Stack at the top, then room for it to grow, then mappings downwards; programs at two thirds. */
static int new_space(Load *l) {
  g_autoptr(GError) error = NULL;
  TesKernel *k = l->ctx->kernel;
  gulong top = TES_PAGE_DOWN(k->platform->max_addr);
  l->mm = tes_mm_new(k, &error);
  if (!l->mm) {
    tes_warn("no new address space: %s", error->message);
    return -ENOMEM;
  }
  gulong gap_max = top / 6 * 5, pad = (l->randomize ? RANDOM_PAGES_STACK << TES_PAGE_SHIFT : 0) + STACK_GUARD;
  gulong gap = CLAMP(MIN(l->stack_limit, gap_max) + pad, STACK_GAP_MIN, gap_max);
  l->stack_top = top - random_pages(l, RANDOM_PAGES_STACK);
  l->layout.mmap_top = TES_PAGE_DOWN(top - gap) - random_pages(l, RANDOM_PAGES_MMAP);
  l->pie_base = TES_PAGE_DOWN(top / 3 * 2) + random_pages(l, RANDOM_PAGES_MMAP);
  tes_mm_begin_image(l->mm);
  tes_mm_set_layout(l->mm, &l->layout);
  return 0;
}

/* What /proc/PID/stat calls code and data, and where the heap begins. */
static void place_data(Load *l, const TesElf *e) {
  TesMMLayout *y = &l->layout;
  y->code_start = G_MAXULONG;
  for (guint i = 0; i < e->n_seg; i++) {
    const TesElfSegment *s = &e->seg[i];
    gulong start = l->bias + s->vaddr, end = start + s->filesz;
    y->code_start = MIN(y->code_start, start);
    y->data_start = MAX(y->data_start, start);
    y->data_end = MAX(y->data_end, end);
    if (s->prot & PROT_EXEC)
      y->code_end = MAX(y->code_end, end);
  }
  gulong heap = e->type == ET_DYN && !e->interp_len ? l->pie_base : l->bias + e->hi;
  y->brk_start = TES_PAGE_UP(heap) + random_pages(l, RANDOM_PAGES_BRK);
}

static int load_elf(Load *l, const TesElf *e) {
  TesProgram interp = {0};
  g_autofree TesElf *ie = g_new0(TesElf, 1);
  g_autofree char *name = NULL;
  int r = read_interp_name(l, e, &name);
  if (r == 0 && name)
    r = open_interp(l, name, &interp, ie);
  if (r == 0)
    r = new_space(l);
  if (r == 0)
    r = choose_bias(l, e, &l->bias);
  if (r == 0)
    r = map_segments(l, l->prog.file, e, l->bias);
  l->entry = l->bias + e->entry;
  if (r == 0 && name) {
    gulong bias = 0;
    r = ie->type == ET_EXEC ? -ELIBBAD : find_place(l, ie, &bias);
    if (r == 0)
      r = map_segments(l, interp.file, ie, bias);
    l->interp_base = bias;
    l->entry = bias + ie->entry;
  }
  tes_program_close(&interp);
  if (r < 0)
    return r;
  place_data(l, e);
  return map_vdso(l);
}

static int build_stack(Load *l, const TesElf *e, gulong *sp) {
  const TesCred *c = tes_ctx_cred(l->ctx);
  TesStackArgs a = {
      .kernel = l->ctx->kernel,
      .mm = l->mm,
      .task = l->args->task,
      .cred = c,
      .argv = (char *const *)l->argv->pdata,
      .envv = l->args->envv,
      .execfn = l->execfn,
      .exec_stack = e->exec_stack,
      .randomize = l->randomize,
      .stack_limit = l->stack_limit,
      .as_limit = l->as_limit,
      .stack_top = l->stack_top,
      .phdr = e->phdr_vaddr ? l->bias + e->phdr_vaddr : 0,
      .phnum = e->phnum,
      .base = l->interp_base,
      .entry = l->bias + e->entry,
      .vdso = l->layout.vdso,
      .euid = l->prog.mode & S_ISUID ? l->prog.uid : c->euid,
      .egid = l->prog.mode & S_ISGID ? l->prog.gid : c->egid,
  };
  return tes_stack_build(&a, &l->layout, sp);
}

static void finish(Load *l, gulong sp, TesImage *out) {
  tes_mm_set_layout(l->mm, &l->layout);
  tes_mm_set_exe(l->mm, l->prog.file);
  tes_program_keep(&l->prog);
  TesInode *inode = l->prog.file->inode;
  *out = (TesImage){
      .mm = g_steal_pointer(&l->mm),
      .entry = l->entry,
      .sp = sp,
      .exe = tes_file_ref(l->prog.file),
      .suid_mode = l->prog.mode,
      .suid_uid = l->prog.uid,
      .suid_gid = l->prog.gid,
      .readable = !inode || tes_inode_permission(inode, l->ctx, R_OK) == 0,
  };
  g_autofree char *base = g_path_get_basename(l->execfn);
  g_strlcpy(out->comm, base, sizeof out->comm);
}

static guint64 limit_of(const TesLimits *limits, int resource) {
  return limits ? limits->v[resource].rlim_cur : RLIM_INFINITY;
}

int tes_load_image(TesCtx *ctx, const TesLoadArgs *args, TesImage *out) {
  gulong sp = 0, persona = args->task ? args->task->personality : 0;
  Load l = {
      .ctx = ctx,
      .args = args,
      .argv = copy_argv(args->argv),
      .execfn = program_name(ctx, args),
      .randomize = !(persona & ADDR_NO_RANDOMIZE),
      .stack_limit = args->limits ? limit_of(args->limits, RLIMIT_STACK) : 8UL << 20,
      .as_limit = limit_of(args->limits, RLIMIT_AS),
  };
  g_autofree TesElf *e = g_new0(TesElf, 1);
  int r = open_program(&l);
  if (r == 0)
    r = tes_stack_check_args((char *const *)l.argv->pdata, args->envv, l.execfn, l.stack_limit);
  if (r == 0)
    r = parse(ctx, &l.prog, e);
  if (r == 0)
    r = load_elf(&l, e);
  if (r == 0)
    r = build_stack(&l, e, &sp);
  if (r == 0)
    r = tes_mm_finish_image(l.mm);
  if (r == 0)
    finish(&l, sp, out);
  load_clear(&l);
  return r;
}
