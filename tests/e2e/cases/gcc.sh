# SPDX-License-Identifier: Apache-2.0
# gcc compiles a generated program of 5,000 lines, links it dynamically and statically, and runs it.
#: timeout 300
cd /tmp
awk 'BEGIN {
    print "#include <stdio.h>\n#include <stdint.h>\n#include <pthread.h>";
    for (i = 0; i < 500; i++) {
        printf "static uint32_t f%d(uint32_t x)\n{\n    uint32_t a = x * %du + %du;\n    for (int i = 0; i < %d; i++) {\n        a ^= a << 13;\n        a ^= a >> 17;\n        a ^= a << 5;\n    }\n    return a;\n}\n", i, i * 2 + 1, i * 77, i % 7 + 1;
    }
    print "static uint32_t (*const table[])(uint32_t) = {";
    for (i = 0; i < 500; i++) printf "    f%d,\n", i;
    print "};\nstatic void *thread(void *p)\n{\n    uint32_t x = *(uint32_t *)p;\n    for (int r = 0; r < 200; r++)\n        for (unsigned i = 0; i < sizeof table / sizeof *table; i++)\n            x = table[i](x);\n    *(uint32_t *)p = x;\n    return NULL;\n}";
    print "int main(void)\n{\n    uint32_t v[4] = {1, 2, 3, 4};\n    pthread_t t[4];\n    for (int i = 0; i < 4; i++)\n        pthread_create(&t[i], NULL, thread, &v[i]);\n    for (int i = 0; i < 4; i++) {\n        pthread_join(t[i], NULL);\n        printf(\"%u\\n\", v[i]);\n    }\n    return 17;\n}";
}' >big.c
echo "lines $(($(wc -l <big.c) / 1000)) thousand"
gcc -O1 -c big.c -o big.o && nm big.o | grep -c ' t f'
gcc big.o -o dynamic -pthread && ./dynamic; echo "status $?"
gcc -static big.o -o static -pthread && ./static | sha256sum
gcc -static-pie -fPIE -O0 -x c - -o pie <<'END' && ./pie
#include <stdio.h>
int main(void) { puts("static pie"); return 0; }
END
printf 'int add(int a, int b) { return a + b; }\n' >lib.c; printf '#include <dlfcn.h>\n#include <stdio.h>\nint main(void) { void *h = dlopen("./lib.so", RTLD_NOW); int (*f)(int, int) = (int (*)(int, int))dlsym(h, "add"); printf("%%d\\n", f(2, 40)); return dlclose(h); }\n' >dl.c
gcc -shared -fPIC lib.c -o lib.so && gcc dl.c -o dl && ./dl
printf 'int main( { }' | gcc -x c - -o bad 2>/dev/null; echo "error $?"
gcc -E -dM - </dev/null | grep -c __x86_64__; gcc -S -O2 lib.c -o - | grep -c 'ret'
ar rcs libx.a big.o && ar t libx.a; strip static -o stripped && ./stripped | head -n 1; objdump -d lib.so | grep -c '<add>:'; file -b pie | cut -d, -f1
