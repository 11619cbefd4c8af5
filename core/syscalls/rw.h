/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers of the read/write table that live beside rw.c: copying between files (splice.c), file contents as a whole (filedata.c). */
#pragma once

#include <core/file/file.h>
#include <core/syscalls/syscalls.h>

/* A write's result as the system call returns it: EPIPE also raises SIGPIPE. */
glong tes_sys_wrote(TesTask *, gssize n);

glong tes_sys_do_sendfile(TesTask *, const gulong a[6]);
glong tes_sys_do_splice(TesTask *, const gulong a[6]);
glong tes_sys_do_tee(TesTask *, const gulong a[6]);
glong tes_sys_do_vmsplice(TesTask *, const gulong a[6]);
glong tes_sys_do_copy_file_range(TesTask *, const gulong a[6]);

glong tes_sys_do_readahead(TesTask *, const gulong a[6]);
glong tes_sys_do_fadvise64(TesTask *, const gulong a[6]);
glong tes_sys_do_fsync(TesTask *, const gulong a[6]);
glong tes_sys_do_fdatasync(TesTask *, const gulong a[6]);
glong tes_sys_do_sync(TesTask *, const gulong a[6]);
glong tes_sys_do_syncfs(TesTask *, const gulong a[6]);
glong tes_sys_do_sync_file_range(TesTask *, const gulong a[6]);
glong tes_sys_do_fallocate(TesTask *, const gulong a[6]);
glong tes_sys_do_ftruncate(TesTask *, const gulong a[6]);
glong tes_sys_do_getdents(TesTask *, const gulong a[6]);
glong tes_sys_do_getdents64(TesTask *, const gulong a[6]);
