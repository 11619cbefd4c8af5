# SPDX-License-Identifier: Apache-2.0
# apt-get and dpkg: packages are installed into the root, run, verified, and removed again; what they change lies in an overlay.
#: timeout 180
#: root overlay
#: needs /opt/e2e/debs
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
apt-get -q -y -o APT::Sandbox::User=root install /opt/e2e/debs/*.deb >/tmp/log 2>&1 || { tail -n 5 /tmp/log; exit 1; }
hello; figlet x; mkdir -p /tmp/t/a/b && tree /tmp/t
dpkg-query -W -f '${Package} ${db:Status-Status} ${Version}\n' hello tree figlet; dpkg -S /usr/bin/tree; dpkg --verify hello tree && echo verified
dpkg -L hello | while read -r f; do stat -c '%A %U:%G %F' "$f"; done | sort | uniq -c
dpkg-divert --quiet --rename --divert /usr/bin/hello.real --add /usr/bin/hello && ls /usr/bin/hello*; dpkg-divert --quiet --rename --remove /usr/bin/hello && hello
apt-get -q -y remove hello >/tmp/log 2>&1 || tail -n 5 /tmp/log
ls /usr/bin/hello 2>&1; dpkg-query -W -f '${db:Status-Status}\n' hello; dpkg --purge hello >/dev/null 2>&1; dpkg-query -W hello 2>&1 | head -n 1
ls /usr/share/doc | wc -l; mv /usr/share/doc /usr/share/papers && ls /usr/share/papers | wc -l && rm -rf /usr/share/papers && ls /usr/share/papers 2>&1
useradd -m someone && su someone -c 'id -un; cd && pwd && touch file && ls'; grep -c someone /etc/passwd; ldconfig && ls -d /etc/ld.so.cache
