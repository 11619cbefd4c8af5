/* SPDX-License-Identifier: Apache-2.0 */
/* Entry point of the `tessera` command: finds the verb and runs it. */
#include <runtime/runtime.h>
#include <stdio.h>
#include <string.h>

const Verb *const verbs[] = {&verb_do,       &verb_compare,      &verb_doctor, &verb_plugins,
                             &verb_syscalls, &verb_context_keys, NULL};

int report(const GError *e) {
  g_autofree char *line = g_strdup(e->message);
  g_strdelimit(line, "\n", ' ');
  fprintf(stderr, "tessera: %s\n", line);
  if (e->domain == TES_ERROR && e->code == TES_ERROR_NOTFOUND)
    return EXIT_NOTFOUND;
  if (e->domain == TES_ERROR && e->code == TES_ERROR_NOEXEC)
    return EXIT_NOEXEC;
  return EXIT_CONFIG;
}

TesRegistry *load_plugins(char **dirs, GError **error) {
  TesRegistry *r = tes_registry_new();
  g_autofree char *def = tes_registry_default_dir();
  char *only_default[] = {def, NULL};
  for (char **d = dirs && *dirs ? dirs : only_default; *d; d++)
    if (!tes_registry_load_dir(r, *d, error)) {
      tes_registry_free(r);
      return NULL;
    }
  if (!tes_registry_seal(r, error)) {
    tes_registry_free(r);
    return NULL;
  }
  return r;
}

static const Flag *find_flag(const Flag *flags, const char *word, gsize n) {
  for (; flags->name; flags++)
    if (strlen(flags->name) == n && memcmp(flags->name, word, n) == 0)
      return flags;
  return NULL;
}

gboolean parse_flags(const Flag *flags, gpointer options, int argc, char **argv, int *rest, gboolean *help,
                     GError **error) {
  int i = 1;
  for (; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
    if (g_str_equal(argv[i], "--")) {
      i++;
      break;
    }
    if (g_str_equal(argv[i], "--help") || g_str_equal(argv[i], "-h")) {
      *help = TRUE;
      return TRUE;
    }
    const char *word = argv[i] + (argv[i][1] == '-' ? 2 : 1);
    const char *eq = strchr(word, '=');
    const Flag *f = find_flag(flags, word, eq ? (gsize)(eq - word) : strlen(word));
    if (!f || (eq && f->n_args != 1 && f->n_args != OPTIONAL_ARG)) {
      g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "unknown flag %s for \"%s\"; see tessera %s --help",
                  argv[i], argv[0], argv[0]);
      return FALSE;
    }
    char *inline_arg[] = {eq ? (char *)eq + 1 : NULL};
    int n_args = MAX(f->n_args, 0);
    if (!eq && i + n_args >= argc) {
      g_set_error(error, TES_ERROR, TES_ERROR_CONFIG, "flag %s needs %d value%s", argv[i], f->n_args,
                  f->n_args > 1 ? "s" : "");
      return FALSE;
    }
    if (!f->set(options, eq || f->n_args == OPTIONAL_ARG ? inline_arg : argv + i + 1, error))
      return FALSE;
    if (!eq)
      i += n_args;
  }
  *rest = i;
  return TRUE;
}

static void print_help(void) {
  printf(
      "Usage: tessera VERB [FLAG...] [ARGUMENT...]\n\n"
      "Tessera runs unmodified x86-64 Linux programs on a kernel of its own, made of plugins.\n\nVerbs:\n");
  for (const Verb *const *v = verbs; *v; v++)
    printf("  %-14s %s\n", (*v)->name, (*v)->summary);
  printf("\n\"tessera VERB --help\" shows a verb's manual. \"tessera --version\" shows the version.\n");
}

int main(int argc, char **argv) {
  if (argc < 2 || g_str_equal(argv[1], "--help") || g_str_equal(argv[1], "help")) {
    print_help();
    return argc < 2 ? EXIT_CONFIG : 0;
  }
  if (g_str_equal(argv[1], "--version")) {
    printf("tessera version %s\nplugin ABI: %d.%d\nspec: 1.0.2\n", TES_VERSION, TES_ABI_MAJOR, TES_ABI_MINOR);
    return 0;
  }
  for (const Verb *const *v = verbs; *v; v++)
    if (g_str_equal(argv[1], (*v)->name))
      return (*v)->run(argc - 1, argv + 1);
  fprintf(stderr, "tessera: unknown verb or flag \"%s\"; see tessera --help\n", argv[1]);
  return EXIT_CONFIG;
}
