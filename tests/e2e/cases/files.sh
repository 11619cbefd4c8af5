# SPDX-License-Identifier: Apache-2.0
# File semantics that programs rely on: unlinked files, rename over, locks, holes, appends, hidden by rename, and permission bits.
python3 -u - <<'END'
import errno, fcntl, mmap, os, stat, tempfile
os.chdir("/tmp")
def err(f, *a):
    try:
        return f(*a)
    except OSError as e:
        return errno.errorcode[e.errno]
fd = os.open("a", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
print(err(os.open, "a", os.O_CREAT | os.O_EXCL), oct(os.fstat(fd).st_mode))
os.write(fd, b"hello"); os.lseek(fd, 100000, 0); os.write(fd, b"end"); print(os.fstat(fd).st_size, os.pread(fd, 4, 50000))
os.unlink("a"); print(os.fstat(fd).st_nlink, os.pread(fd, 5, 0)); os.close(fd)
for n in "x", "y": open(n, "w").write(n)
os.rename("x", "y"); print(open("y").read(), os.path.exists("x"), err(os.rename, "none", "y"), err(os.rename, "y", "/etc/y"))
os.mkdir("d"); print(err(os.rmdir, "y"), err(os.unlink, "d") in ("EISDIR", "EPERM"), err(os.rename, "d", "d/e"), err(os.mkdir, "d"), err(os.listdir, "y"))
os.symlink("loop", "loop"); print(err(os.open, "loop", 0), os.readlink("loop"), err(os.open, "loop", os.O_NOFOLLOW))
os.symlink("y", "s"); print(os.lstat("s").st_size, stat.S_ISLNK(os.lstat("s").st_mode), os.stat("s").st_size)
os.link("y", "d/h"); print(os.stat("y").st_nlink, os.path.samefile("y", "d/h"))
f = open("m", "wb+"); f.truncate(8192); m = mmap.mmap(f.fileno(), 8192); m[0:4] = b"abcd"; m[8190:8192] = b"yz"; m.flush()
print(f.read(4), os.pread(f.fileno(), 2, 8190)); os.pwrite(f.fileno(), b"Q", 1); print(m[0:4]); m.close()
p = mmap.mmap(f.fileno(), 4096, flags=mmap.MAP_PRIVATE); p[0:1] = b"Z"; print(p[0:2], os.pread(f.fileno(), 2, 0)); p.close()
a = os.open("m", os.O_WRONLY | os.O_APPEND); os.write(a, b"app"); print(os.fstat(a).st_size)
fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
pid = os.fork()
if pid == 0:
    try:
        fcntl.lockf(open("m", "rb+"), fcntl.LOCK_EX | fcntl.LOCK_NB); os._exit(0)
    except OSError as e:
        os._exit(e.errno)
print(errno.errorcode[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])])
g = open("m"); fcntl.flock(g, fcntl.LOCK_SH); h = open("m"); print(err(fcntl.flock, h, fcntl.LOCK_EX | fcntl.LOCK_NB))
r, w = os.pipe(); os.set_blocking(r, False); print(err(os.read, r, 1)); os.close(w); print(os.read(r, 1)); print(err(os.write, r, b"x"))
d = os.dup2(1, 77); print(os.get_inheritable(77), fcntl.fcntl(77, fcntl.F_GETFD)); os.close(77); print(err(os.close, 77), err(os.read, 77, 1))
dirfd = os.open("d", os.O_DIRECTORY); os.mkdir("in", dir_fd=dirfd); print(sorted(os.listdir(dirfd)), os.stat("h", dir_fd=dirfd).st_size)
os.chmod("y", 0o4711); print(oct(os.stat("y").st_mode)); os.utime("y", ns=(1, 2)); print(os.stat("y").st_atime_ns, os.stat("y").st_mtime_ns)
print(err(os.open, "/etc/new", os.O_CREAT | os.O_WRONLY), err(os.mkdir, "/usr/x"), err(os.unlink, "/etc/passwd"), err(os.open, "/etc/passwd", os.O_RDWR))
print(err(os.open, "y/z", 0), err(os.open, "q" * 300, 0), err(os.open, "", 0), err(os.stat, "/" + "a/" * 2500), err(os.readlink, "y"))
with tempfile.TemporaryFile() as t: t.write(b"x" * 70000); t.seek(0); print(len(t.read()))
fd = os.open("/tmp", os.O_RDWR | os.O_TMPFILE, 0o600); print(os.write(fd, b"tmp")); os.close(fd)
print(os.sendfile(os.open("sf", os.O_CREAT | os.O_WRONLY), os.open("/etc/passwd", 0), 0, 1000000) == os.stat("/etc/passwd").st_size)
fd = os.memfd_create("mem"); os.write(fd, b"memory"); print(os.pread(fd, 10, 0), os.readlink(f"/proc/self/fd/{fd}"))
print(sorted(e.name for e in os.scandir("/tmp") if e.is_file(follow_symlinks=False)))
if os.fork() == 0:
    os.setgid(1000); os.setuid(1000)
    print(err(os.chown, "/tmp/y", 0, 0), err(os.open, "/etc/shadow", 0), err(os.unlink, "/tmp/y"), err(os.setuid, 0), os.access("/etc/shadow", os.R_OK), flush=True); os._exit(0)
os.wait()
END
