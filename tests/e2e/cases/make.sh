# SPDX-License-Identifier: Apache-2.0
# make -j2 with the jobserver's pipe, recursion, incremental builds and failures.
#: timeout 180
mkdir /tmp/m && cd /tmp/m
for i in 1 2 3 4 5 6; do printf '#include "h.h"\nint f%d(int x) { return x + K * %d; }\n' $i $i >f$i.c; done
printf '#define K 10\n' >h.h
printf '#include <stdio.h>\n' >main.c; for i in 1 2 3 4 5 6; do echo "int f$i(int);"; done >>main.c
echo 'int main(void) { printf("%d\n", f1(f2(f3(f4(f5(f6(0))))))); return 0; }' >>main.c
cat >Makefile <<'END'
OBJS := $(patsubst %.c,%.o,$(sort $(wildcard *.c)))
all: prog sub
prog: $(OBJS)
	@gcc -o $@ $^
%.o: %.c h.h
	@gcc -c -o $@ $<
sub:
	@$(MAKE) --no-print-directory -C d
bad:
	@false
slow1 slow2 slow3 slow4:
	@sleep 0.2; touch $@
.PHONY: all sub bad
END
mkdir d; printf 'all: a b c\n\t@echo sub done\na b c:\n\t@sleep 0.1; echo $@ >$@\n' >d/Makefile
make -j2 all 2>&1 && ./prog; cat d/a d/b d/c
make -j2 prog; make -q prog; echo "up to date $?"
sleep 0.05; touch f3.c; make -n prog | sort
sed -i 's/10/11/' h.h; touch h.h; make -s -j2 prog && ./prog
make bad 2>/dev/null; echo "bad $?"; make -k bad nothing 2>/dev/null; echo "keep going $?"
make -j4 slow1 slow2 slow3 slow4 && ls slow*
make -j2 --dry-run V=1 slow9 2>&1 | head -n 1
