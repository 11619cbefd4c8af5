# SPDX-License-Identifier: Apache-2.0
# git: init, add, commit, branch, merge, log, gc, clone, fsck; ids are equal because names and dates are fixed.
#: timeout 180
cd /tmp
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000' GIT_CONFIG_NOSYSTEM=1 GIT_PAGER=cat
git init -q -b main r && cd r
for i in $(seq 1 200); do mkdir -p d$((i % 10)); seq $i $((i * 10)) >d$((i % 10))/f$i; done
git add . && git commit -q -m first && git rev-parse HEAD
for i in 1 2 3 4 5; do echo $i >>d1/f1; git commit -q -a -m "change $i"; done; git log --oneline
git checkout -q -b side HEAD~2; echo side >side; git add side; git commit -q -m side; git checkout -q main; git merge -q -m merge side; git rev-parse HEAD; git log --graph --format=%s | head -n 4
git diff --stat HEAD~3 | cat; git show --stat HEAD~1 | head -n 12; git blame -s d1/f1 | tail -n 2; git grep -c 1999 | head -n 3; git status --short; git ls-files | wc -l
echo dirty >d2/f2; git status --short; git stash -q; git stash list; git stash pop -q; git checkout -q d2/f2; git tag v1; git describe --tags
git gc -q --prune=now && git count-objects -v | grep -E '^(count|in-pack|packs)'; git fsck --full 2>&1 | head -n 3; git cat-file -p HEAD^{tree} | head -n 2
cd .. && git clone -q r c && git -C c rev-parse HEAD && git -C c log --oneline | wc -l; git clone -q --bare r b.git && ls b.git
git -C c rm -q d3/f3 && git -C c commit -q -m rm && git -C r pull -q ../c main && git -C r log -1 --format=%s; git -C r archive HEAD | tar t | wc -l
git -C r rebase -q HEAD~1; git -C r bisect start HEAD HEAD~3 >/dev/null && git -C r bisect reset -q; git -C r reflog | wc -l; git -C r config --list --local | grep -c core; git hash-object /etc/passwd | wc -c
