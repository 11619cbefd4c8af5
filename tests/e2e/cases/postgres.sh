# SPDX-License-Identifier: Apache-2.0
# PostgreSQL: a cluster is made and started, fsync on, 1,000 transactions of four clients over its socket, a restart after kill -9.
#: timeout 240
#: needs /usr/lib/postgresql
export LC_ALL=C
pg=$(echo /usr/lib/postgresql/*/bin) data=/tmp/pg/data log=/tmp/pg/log
mkdir /tmp/pg && chown postgres /tmp/pg && cd /tmp/pg
as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
start() { as "$pg/pg_ctl" -D $data -w -t 120 -l $log -o "-c listen_addresses='' -c unix_socket_directories=/tmp/pg -c fsync=on" start >/dev/null || { tail $log; exit 1; }; }
sql() { as psql -h /tmp/pg -At -d t -c "$1" 2>&1; }
as "$pg/initdb" -D $data >init 2>&1 || { cat init; exit 1; }
start; as createdb -h /tmp/pg t
as "$pg/pgbench" -h /tmp/pg -i -s 1 -q t >/dev/null 2>&1; as "$pg/pgbench" -h /tmp/pg -n -c 4 -j 2 -t 250 t 2>/dev/null | grep -E 'processed|failed'
sql 'select count(*) from pgbench_history'; sql 'select sum(abalance) = (select sum(delta) from pgbench_history) from pgbench_accounts'
sql 'create table x(a int primary key, b text); insert into x select g, md5(g::text) from generate_series(1, 5000) g'; sql 'insert into x values (1)'
sql 'select count(*), min(b), max(b) from x'; sql 'begin; update x set b = $$none$$; rollback'; sql 'select count(*) from x where b = $$none$$'
kill -9 "$(head -n 1 $data/postmaster.pid)"; while pgrep -u postgres >/dev/null; do sleep 0.1; done
start; sql 'select count(*) from pgbench_history'; sql 'select count(*) from x'; sql 'vacuum analyze; select 1' | tail -n 1
as "$pg/pg_ctl" -D $data -w stop
