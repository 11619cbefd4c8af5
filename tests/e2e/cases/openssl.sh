# SPDX-License-Identifier: Apache-2.0
# openssl: digests, ciphers and signatures are compared; speed only has to finish.
#: timeout 180
cd /tmp
seq 1 200000 >d
for h in md5 sha1 sha256 sha512 sha3-256 blake2b512; do openssl dgst -$h d; done
openssl enc -aes-256-cbc -pbkdf2 -S 0011223344556677 -k secret -in d -out e && sha256sum e && openssl enc -d -aes-256-cbc -pbkdf2 -S 0011223344556677 -k secret -in e | cmp - d && echo same
openssl enc -chacha20 -K $(printf '%064d' 1) -iv $(printf '%032d' 2) -in d | sha256sum; openssl dgst -sha256 -hmac key d
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out k 2>/dev/null && openssl pkey -in k -pubout -out p && openssl dgst -sha256 -sign k -out s d && openssl dgst -sha256 -verify p -signature s d
openssl ecparam -name prime256v1 -genkey -noout -out ek && openssl req -new -x509 -key ek -subj /CN=test -days 1 -out c && openssl x509 -in c -noout -subject && openssl verify -CAfile c c
openssl rand -hex 16 | wc -c; openssl prime 1000003; openssl speed -seconds 1 -bytes 1024 sha256 >/dev/null 2>&1; echo "speed $?"; openssl speed -seconds 1 -multi 2 -bytes 1024 -evp sha1 >/dev/null 2>&1; echo "speed multi $?"
openssl version | cut -d' ' -f1; openssl base64 -in /etc/passwd | openssl base64 -d | cmp - /etc/passwd && echo base64
