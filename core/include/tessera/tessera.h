/* SPDX-License-Identifier: Apache-2.0 */
/* Everything a plugin may use. */
#pragma once
#include <tessera/cgroup.h>
#include <tessera/cred.h>
#include <tessera/ctx.h>
#include <tessera/file.h>
#include <tessera/fs.h>
#include <tessera/kernel.h>
#include <tessera/lock.h>
#include <tessera/mm.h>
#include <tessera/notify.h>
#include <tessera/platform.h>
#include <tessera/plugin.h>
#include <tessera/socket.h>
#include <tessera/state.h>
#include <tessera/syscall.h>
#include <tessera/sysctl.h>
#include <tessera/task.h>
#include <tessera/time.h>
#include <tessera/tty.h>
#include <tessera/types.h>
#include <tessera/vfs.h>
#include <tessera/wait.h>
