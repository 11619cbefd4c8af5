# SPDX-License-Identifier: Apache-2.0
# 50,000 inserts with a rollback journal, queries, and two writers that lock each other out.
#: timeout 300
cd /tmp
awk 'BEGIN { print "pragma journal_mode=delete; create table t(id integer primary key, a int, b text);"; for (k = 0; k < 10; k++) { print "begin;"; for (i = 0; i < 5000; i++) { n = k * 5000 + i; printf "insert into t(a, b) values(%d, %cname%d%c);\n", n * 7919 % 10007, 39, n % 777, 39 } print "commit;" } }' | sqlite3 db
sqlite3 db "select count(*), sum(a), min(b), max(b) from t; select b, count(*) from t group by b order by 2 desc, 1 limit 3; create index i on t(a); select id from t where a = 5000 order by id limit 3; explain query plan select * from t where a = 1;"
for i in $(seq 1 50); do echo "insert into t(a, b) values($i, 'single');"; done | sqlite3 db; sqlite3 db "select count(*) from t where b = 'single'"
sqlite3 db "begin; delete from t where a < 5000; rollback; select count(*) from t; update t set a = a + 1 where id % 2; select sum(a) from t; delete from t where id % 3 = 0; vacuum; pragma integrity_check; select count(*) from t;"
(for i in $(seq 1 40); do echo "insert into t(a, b) values($i, 'w1');"; done | sqlite3 -cmd '.timeout 20000' db) & (for i in $(seq 1 40); do echo "insert into t(a, b) values($i, 'w2');"; done | sqlite3 -cmd '.timeout 20000' db) & wait
sqlite3 db "select b, count(*) from t where b in ('w1', 'w2') group by b;"; ls db*; sqlite3 db 'select a, b from t order by b, a' | sha256sum
