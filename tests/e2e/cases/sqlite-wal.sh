# SPDX-License-Identifier: Apache-2.0
# 50,000 inserts in WAL mode: a memory-mapped index shared by processes, a reader beside a writer, a checkpoint.
#: timeout 300
cd /tmp
sqlite3 db "pragma journal_mode=wal; create table t(id integer primary key, a int, b text);"
awk 'BEGIN { for (k = 0; k < 10; k++) { print "begin;"; for (i = 0; i < 5000; i++) { n = k * 5000 + i; printf "insert into t(a, b) values(%d, %cname%d%c);\n", n * 7919 % 10007, 39, n % 777, 39 } print "commit;" } }' >ins
sqlite3 -cmd '.timeout 20000' db <ins & w=$!
for i in 1 2 3 4 5; do sqlite3 -cmd '.timeout 20000' db "select count(*) % 5000 from t"; done; wait $w
sqlite3 db "select count(*), sum(a) from t; create index i on t(b); select count(*) from t where b = 'name5'; pragma integrity_check;"
python3 -u - <<'END'
import os, sqlite3
c = sqlite3.connect("/tmp/db", timeout=20); c.execute("pragma mmap_size=100000000"); c.execute("insert into t(a, b) values(1, 'held')")
if os.fork() == 0:
    r = sqlite3.connect("/tmp/db"); print(r.execute("select count(*) from t where b = 'held'").fetchone(), flush=True); os._exit(0)
os.wait(); c.commit(); print(c.execute("select count(*) from t where b = 'held'").fetchone(), sorted(f for f in os.listdir("/tmp") if f.startswith("db")))
print(c.execute("pragma wal_checkpoint(truncate)").fetchone(), os.path.getsize("/tmp/db-wal")); c.close()
END
ls db*; sqlite3 db "select sum(a) from t" ".dump" | sha256sum
