# SPDX-License-Identifier: Apache-2.0
# perl: fork, pipes, signals, sockets in pairs, sorting, regular expressions, files.
cd /tmp
cat >p.pl <<'END'
use strict; use warnings; use POSIX qw(:sys_wait_h :signal_h); use Socket; use Time::HiRes qw(sleep time alarm); use IO::Handle; use IPC::Open3;
$| = 1;
my %got; $SIG{$_} = sub { $got{$_[0]}++ } for qw(USR1 USR2 HUP);
kill $_ => $$ for qw(USR1 USR2 HUP USR1); print join(",", map { "$_=$got{$_}" } sort keys %got), "\n";
my @kids; for my $i (1 .. 10) { my $p = fork // die; if (!$p) { exit $i } push @kids, $p }
my $sum = 0; for (@kids) { waitpid $_, 0; $sum += $? >> 8 } print "sum $sum\n";
pipe my $r, my $w or die; if (!fork) { close $r; print $w "from child $_\n" for 1 .. 3; exit 0 } close $w; print while <$r>; wait;
socketpair my $l, my $m, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die; $l->autoflush(1); $m->autoflush(1);
if (!fork) { close $l; while (<$m>) { print $m uc } exit 0 } close $m; for (qw(one two three)) { print $l "$_\n"; print scalar <$l> } close $l; wait; print "status $?\n";
my $n = 0; { local $SIG{CHLD} = sub { $n++ while waitpid(-1, WNOHANG) > 0 }; for (1 .. 20) { exit 0 unless fork } my $t = time; sleep 0.05 while $n < 20 && time - $t < 20 } print "reaped $n\n";
eval { local $SIG{ALRM} = sub { die "alarm\n" }; alarm 0.2; sleep 10 }; print "caught $@";
my $p = fork; if (!$p) { $SIG{TERM} = 'DEFAULT'; sleep 100 } kill TERM => $p; waitpid $p, 0; print "signal ", $? & 127, "\n";
my $set = POSIX::SigSet->new(SIGUSR1); sigprocmask(SIG_BLOCK, $set); $got{USR1} = 0; kill USR1 => $$; print "blocked $got{USR1}\n"; sigprocmask(SIG_UNBLOCK, $set); print "then $got{USR1}\n";
print `echo backtick; exit 3`, $? >> 8, "\n"; print system("true"), "\n"; open my $f, "-|", "seq 3" or die; print map { "<$_>" } map { s/\n//r } <$f>; close $f; print "\n";
my $pid = open3(my $in, my $out, undef, "tr a-z A-Z"); print $in "open three\n"; close $in; print <$out>; waitpid $pid, 0;
my @x = map { ($_ * 7919) % 10007 } 1 .. 5000; print join(" ", (sort { $a <=> $b } @x)[0 .. 4]), "\n"; my %h; $h{$_ % 13} .= chr(65 + $_ % 26) for @x; print join(",", map { length $h{$_} } sort { $a <=> $b } keys %h), "\n";
my $s = "the quick brown fox " x 100; my $c = () = $s =~ /\b(\w)(\w+)\b/g; $s =~ s/(\w+) (\w+)/$2 $1/; print "$c ", substr($s, 0, 9), "\n";
open my $o, ">", "pf" or die; flock $o, 2 or die; print $o "$_\n" for 1 .. 100; close $o; print -s "pf", " ", (stat "pf")[3], "\n"; rename "pf", "pg"; print -e "pf" ? "still" : "moved", "\n"; open my $no, "<", "/none" or print "$!\n";
local $0 = "renamed"; printf "%s %s\n", getpgrp == getpgrp(0) ? "group" : "?", wantarray // "main"; exit 6;
END
perl p.pl; echo "perl $?"
