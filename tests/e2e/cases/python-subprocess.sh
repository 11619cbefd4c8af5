# SPDX-License-Identifier: Apache-2.0
# subprocess: pipes, input, timeouts, process groups, environment, descriptors, pre-exec.
python3 -u - <<'END'
import os, signal, subprocess as sp, sys
print(sp.run(["sort", "-n"], input="3\n1\n2\n", text=True, capture_output=True).stdout.split())
print(sp.run("echo out; echo err >&2; exit 5", shell=True, capture_output=True))
try: sp.run(["sleep", "10"], timeout=0.3)
except sp.TimeoutExpired: print("timeout")
p = sp.Popen(["cat"], stdin=sp.PIPE, stdout=sp.PIPE); p.stdin.write(b"x" * 50000); p.stdin.close(); print(len(p.stdout.read()), p.wait())
a = sp.Popen(["seq", "100000"], stdout=sp.PIPE); b = sp.Popen(["grep", "-c", "9"], stdin=a.stdout, stdout=sp.PIPE); a.stdout.close(); print(b.communicate()[0], a.wait())
p = sp.Popen(["sleep", "100"]); p.send_signal(signal.SIGTERM); print(p.wait()); p = sp.Popen(["sleep", "100"]); p.kill(); print(p.wait())
try: sp.run(["/no/such/thing"])
except FileNotFoundError as e: print(e.strerror)
try: sp.run(["/etc/passwd"])
except PermissionError as e: print(e.strerror)
print(sp.run(["env"], env={"A": "b"}, capture_output=True).stdout, sp.run(["pwd"], cwd="/usr", capture_output=True).stdout)
p = sp.Popen(["bash", "-c", "sleep 100 & sleep 100 & wait"], start_new_session=True); os.killpg(p.pid, signal.SIGKILL); print(p.wait())
r, w = os.pipe(); sp.run(["bash", "-c", f"echo passed >&{w}"], pass_fds=[w]); os.close(w); print(os.read(r, 100))
print(sp.run(["bash", "-c", f"echo >&{r}"], stderr=sp.DEVNULL).returncode)
print(sp.run(["bash", "-c", "umask"], preexec_fn=lambda: os.umask(0o77), capture_output=True).stdout)
print(sp.check_output([sys.executable, "-c", "import sys; print(len(sys.argv), sys.argv[-1])"] + ["a"] * 1000))
big = "z" * 100000; print(len(sp.check_output(["echo", "-n", big])))
ps = [sp.Popen(["bash", "-c", f"exit {i}"]) for i in range(40)]; print(sum(p.wait() for p in ps))
p = sp.Popen(["bash", "-c", "kill -SEGV $$"]); print(p.wait()); print(os.waitstatus_to_exitcode(os.system("exit 9")))
print(os.popen("echo popen").read(), end=""); pid = os.posix_spawn("/bin/echo", ["echo", "spawned"], {}); print(os.waitpid(pid, 0)[1])
END
