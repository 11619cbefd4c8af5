/* SPDX-License-Identifier: Apache-2.0 */
/* Private to core/vdso and core/time: the image that is linked in, and where its parameter page is. */
#pragma once

#include <core/vdso/params.h>
#include <tessera/types.h>

#define TES_VDSO_IMAGE_PAGES 2 /* then one parameter page: vdso.lds */

extern const guint8 tes_vdso_image[];
extern const gsize tes_vdso_image_size;
