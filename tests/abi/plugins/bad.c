/* SPDX-License-Identifier: Apache-2.0 */
/* Plugins that the registry must refuse (or, GOOD, accept); meson builds this file once for each BAD_* macro. */
#include <tessera/tessera.h>

#if defined(BAD_NO_DESCRIPTOR)
__attribute__((visibility("default"))) const int tes_unrelated = 1;
#else

#ifndef FEATURE_NAME
#define FEATURE_NAME "abi-test"
#endif

static int mount_nothing(TesCtx *c, const char *s, const char *o, gulong f, TesSuper **out) {
  (void)c, (void)s, (void)o, (void)f, (void)out;
  return -ENODEV;
}
static const TesFsTypeOps ops = {sizeof(TesFsTypeOps), FEATURE_NAME, FALSE, mount_nothing};
static const TesFeature features[] = {{"filesystem", FEATURE_NAME, &ops}, {NULL, NULL, NULL}};
#ifdef BAD_NEED
static const char *const needs[] = {"filesystem:never-there", NULL};
#endif

__attribute__((visibility("default"))) const TesPlugin DESCRIPTOR = {
#ifdef BAD_MAJOR
    .abi_major = TES_ABI_MAJOR + 1,
#else
    .abi_major = TES_ABI_MAJOR,
#endif
#ifdef BAD_MINOR
    .abi_minor = TES_ABI_MINOR + 1,
#else
    .abi_minor = TES_ABI_MINOR,
#endif
#ifdef BAD_SIZE
    .size = sizeof(TesPlugin) - 8,
#else
    .size = sizeof(TesPlugin),
#endif
    .name = FEATURE_NAME,
    .summary = "for tests of the registry",
    .licence = "Apache-2.0",
#ifdef BAD_NEED
    .needs = needs,
#endif
    .features = features,
};
#endif
