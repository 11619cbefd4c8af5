# SPDX-License-Identifier: Apache-2.0
# The Java virtual machine: a class written byte by byte (no compiler is needed), and keytool as a larger program.
#: timeout 240
#: needs /usr/bin/java
cd /tmp
python3 -u - <<'END'
import struct
pool = []
def add(tag, body): pool.append(bytes([tag]) + body); return len(pool)
def utf(s): return add(1, struct.pack(">H", len(s)) + s.encode())
def cls(n): return add(7, struct.pack(">H", utf(n)))
def ref(tag, c, n, t): k = cls(c); nt = add(12, struct.pack(">HH", utf(n), utf(t))); return add(tag, struct.pack(">HH", k, nt))
me, sup, code = cls("Hello"), cls("java/lang/Object"), utf("Code")
out, prn = ref(9, "java/lang/System", "out", "Ljava/io/PrintStream;"), ref(10, "java/io/PrintStream", "println", "(Ljava/lang/String;)V")
ext, gc = ref(10, "java/lang/System", "exit", "(I)V"), ref(10, "java/lang/System", "gc", "()V"); s = add(8, struct.pack(">H", utf("Hello from Java")))
name, desc = utf("main"), utf("([Ljava/lang/String;)V")
ops = struct.pack(">BHBBBHBHBBBHB", 0xb2, out, 0x12, s, 0xb6, prn, 0xb8, gc, 0x10, 5, 0xb8, ext, 0xb1)
attr = struct.pack(">HHI", 2, 1, len(ops)) + ops + struct.pack(">HH", 0, 0)
body = struct.pack(">IHHH", 0xcafebabe, 0, 49, len(pool) + 1) + b"".join(pool) + struct.pack(">HHHHH", 0x21, me, sup, 0, 0)
open("Hello.class", "wb").write(body + struct.pack(">H", 1) + struct.pack(">HHHH", 9, name, desc, 1) + struct.pack(">HI", code, len(attr)) + attr + struct.pack(">H", 0))
END
java -Xshare:auto -cp /tmp Hello; echo "java $?"
java -Xint -Xmx64m -cp /tmp Hello; echo "interpreted $?"
java -XX:+UseSerialGC -Xmx32m -XX:TieredStopAtLevel=1 -cp /tmp Hello; echo "serial $?"
keytool -genkeypair -alias a -keyalg EC -keystore ks -storepass secret -dname CN=x 2>/dev/null; echo "keytool $?"; keytool -list -keystore ks -storepass secret 2>/dev/null | grep -c PrivateKeyEntry
java -cp /tmp Missing 2>/dev/null; echo "missing $?"
