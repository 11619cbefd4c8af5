# SPDX-License-Identifier: Apache-2.0
# A pseudo-terminal made inside the sandbox: an interactive bash on it, with ^C, ^Z, fg, bg, ^D, the window size and raw mode.
cd /tmp
cat >t.py <<'END'
import fcntl, os, pty, select, signal, struct, sys, termios, time, tty
buf = b""
def until(fd, what, seconds=20, fatal=True):
    """Reads until `what` was seen; says so, or shows what came instead."""
    global buf
    end = time.monotonic() + seconds
    while what not in buf:
        r, _, _ = select.select([fd], [], [], max(0, end - time.monotonic()))
        if not r and not fatal: return False
        if not r: print("MISSING", what, "in", buf); sys.exit(1)
        try: d = os.read(fd, 4096)
        except OSError: d = b""
        if not d: print("END before", what, "in", buf); sys.exit(1)
        buf += d
    buf = buf[buf.index(what) + len(what):]; print("seen", what); return True
pid, fd = pty.fork()
if pid == 0: os.execve("/bin/bash", ["bash", "--norc", "--noediting", "-i"], {"PS1": "ready> ", "PATH": "/usr/bin:/bin", "TERM": "dumb"})
def say(s): os.write(fd, s)
def key(k, what):
    # A job that fg announced may not have the terminal yet: press again.
    for _ in range(10):
        say(k)
        if until(fd, what, 2, False): return
    until(fd, what, 2)
def start(n):
    # perl, because a shell catches SIGINT and loses it when it arrives just before an exec.
    say(b"perl -e '$|=1; print \"be\", \"gin\"; sleep %d'\n" % n); until(fd, b"begin")
until(fd, b"ready> ")
say(b"tty | sed 's/[0-9]/N/'; echo $((6*7))\n"); until(fd, b"/dev/pts/N"); until(fd, b"42"); until(fd, b"ready> ")
start(100); key(b"\x03", b"ready> "); say(b"echo st-$?\n"); until(fd, b"st-130"); until(fd, b"ready> ")
start(101); key(b"\x1a", b"Stopped"); until(fd, b"ready> ")
say(b"jobs\n"); until(fd, b"Stopped"); until(fd, b"ready> "); say(b"bg\n"); until(fd, b"sleep 101' &"); until(fd, b"ready> ")
say(b"jobs\n"); until(fd, b"Running"); until(fd, b"ready> "); say(b"fg\n"); until(fd, b"sleep 101'"); time.sleep(0.3); key(b"\x03", b"ready> ")
say(b"cat | tr a-z A-Z\n"); time.sleep(0.2); say(b"upper\n\x04"); until(fd, b"UPPER"); until(fd, b"ready> ")
say(b"(sleep 0.2; kill -INT 0) ; echo after-$?\n"); until(fd, b"ready> ")
say(b"trap 'echo won' WINCH\n"); until(fd, b"ready> "); fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0)); say(b"stty size\n"); until(fd, b"33 99"); until(fd, b"ready> ")
say(b"read -s x; echo got-$x-end\n"); time.sleep(0.3); say(b"hidden\n"); until(fd, b"got-hidden-end"); until(fd, b"ready> ")
say(b"cat & until jobs | grep -q S''topped; do sleep 0.1; done; jobs; kill %1\n"); until(fd, b"Stopped"); until(fd, b"ready> ")
say(b"abc\x15echo killed-line\n"); until(fd, b"killed-line"); until(fd, b"ready> ")
say(b"stty -echo; echo quiet\n"); until(fd, b"\r\nquiet\r\n"); until(fd, b"ready> "); say(b"stty -a | tr ' ' '\\n' | grep '^-echo;*$' | head -n1 | tr -d ';'\n"); until(fd, b"-echo"); until(fd, b"ready> ")
say(b"sleep 102 &\n"); until(fd, b"ready> "); say(b"exit 7\n"); r = os.waitpid(pid, 0)[1]; print("exit", os.waitstatus_to_exitcode(r))
m, s = pty.openpty(); tty.setraw(s); os.write(m, b"\x03\x1a"); print(os.read(s, 10)); os.write(s, b"a\nb"); print(os.read(m, 10)); print(os.isatty(s), os.ttyname(s).rsplit("/", 1)[0], os.get_terminal_size(s).columns)
a = termios.tcgetattr(s); print(a[3] & (termios.ECHO | termios.ICANON | termios.ISIG)); os.close(s)
try: print(os.read(m, 10))
except OSError as e: print(e.strerror)
END
python3 -u t.py
