# SPDX-License-Identifier: Apache-2.0
# Signals as programs use them: handlers, masks, interval timers, sigwait, wake-up descriptors, crashes.
python3 -u - <<'END'
import os, resource, select, signal, sys, time
got = []
signal.signal(signal.SIGUSR1, lambda s, f: got.append(s)); os.kill(os.getpid(), signal.SIGUSR1); print(got)
signal.signal(signal.SIGALRM, lambda s, f: got.append(s)); signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
while len(got) < 5: signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0); print(got)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]); os.kill(os.getpid(), signal.SIGUSR2); print(signal.sigpending(), signal.sigwait([signal.SIGUSR2]))
print(signal.sigtimedwait([signal.SIGUSR2], 0.1))
signal.signal(signal.SIGVTALRM, lambda s, f: got.append("v")); signal.setitimer(signal.ITIMER_VIRTUAL, 0.05)
t = time.monotonic()
while "v" not in got and time.monotonic() - t < 10: pass
print("v" in got)
r, w = os.pipe(); os.set_blocking(w, False); signal.set_wakeup_fd(w); os.kill(os.getpid(), signal.SIGUSR1); print(os.read(r, 10)); signal.set_wakeup_fd(-1)
signal.alarm(1); t = time.monotonic(); print(select.select([r], [], [], 1.5)); print(signal.alarm(0))
for s in "SEGV", "ABRT", "FPE", "ILL", "BUS", "TERM", "HUP", "PIPE", "USR2", "SYS", "TRAP", "XCPU":
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); n = getattr(signal, "SIG" + s); signal.signal(n, signal.SIG_DFL); signal.pthread_sigmask(signal.SIG_SETMASK, []); os.kill(os.getpid(), n); os._exit(0)
    print(s, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), end=" ")
print()
pid = os.fork()
if pid == 0:
    import ctypes
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); ctypes.string_at(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
pid = os.fork()
if pid == 0: time.sleep(100)
os.kill(pid, signal.SIGSTOP); p, st = os.waitpid(pid, os.WUNTRACED); print(os.WIFSTOPPED(st), os.WSTOPSIG(st) == signal.SIGSTOP)
os.kill(pid, signal.SIGCONT); p, st = os.waitpid(pid, os.WCONTINUED); print(os.WIFCONTINUED(st)); os.kill(pid, signal.SIGKILL); print(os.waitpid(pid, 0)[1])
signal.signal(signal.SIGCHLD, lambda *a: got.append("c")); got.clear()
if os.fork() == 0: os._exit(3)
time.sleep(0.5); print(got, os.wait()[1] >> 8)
i = os.waitid(os.P_ALL, 0, os.WEXITED) if os.fork() else os._exit(4); print(i.si_status, i.si_code == os.CLD_EXITED, i.si_signo == signal.SIGCHLD)
resource.setrlimit(resource.RLIMIT_CPU, (1, 2)); pid = os.fork()
if pid == 0:
    while True: pass
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
END
