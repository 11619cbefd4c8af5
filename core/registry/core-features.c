/* SPDX-License-Identifier: Apache-2.0 */
/* What the core itself offers, as a descriptor like any plugin's. */
#include <core/file/file.h>
#include <core/registry/registry.h>
#include <core/syscalls/syscalls.h>
#include <core/time/state.h>

static const TesFeature features[] = {
    {"syscalls", "mm", &tes_sys_mm},
    {"syscalls", "process", &tes_sys_process},
    {"syscalls", "cred", &tes_sys_cred},
    {"syscalls", "sched", &tes_sys_sched},
    {"syscalls", "misc", &tes_sys_misc},
    {"syscalls", "signal", &tes_sys_signal},
    {"syscalls", "futex", &tes_sys_futex},
    {"syscalls", "time", &tes_sys_time},
    {"syscalls", "rw", &tes_sys_rw},
    {"syscalls", "fd", &tes_sys_fd},
    {"syscalls", "poll", &tes_sys_poll},
    {"syscalls", "path", &tes_sys_path},
    {"syscalls", "stat", &tes_sys_stat},
    {"syscalls", "open", &tes_sys_open},
    {"syscalls", "attr", &tes_sys_attr},
    {"syscalls", "xattr", &tes_sys_xattr},
    {"syscalls", "mount", &tes_sys_mount},
    {"syscalls", "mountapi", &tes_sys_mountapi},
    {"syscalls", "socket", &tes_sys_socket},
    {"syscalls", "shm", &tes_sys_shm},
    {"syscalls", "msg", &tes_sys_msg},
    {"syscalls", "sem", &tes_sys_sem},
    {"state", "file", &tes_state_file},
    {"state", "memfile", &tes_state_memfile},
    {"state", "mm", &tes_state_mm},
    {"state", "pipe", &tes_state_pipe},
    {"state", "task", &tes_state_task},
    {"state", "time", &tes_state_time},
    {NULL, NULL, NULL},
};

const TesPlugin tes_core_plugin = {
    .abi_major = TES_ABI_MAJOR,
    .abi_minor = TES_ABI_MINOR,
    .size = sizeof(TesPlugin),
    .name = "core",
    .summary = "Tasks, memory, files and time",
    .licence = "Apache-2.0",
    .features = features,
};
