# SPDX-License-Identifier: Apache-2.0
# git over a repository of 5,000 files: clone, checkout of another branch, status, fsck.
#: timeout 240
cd /tmp
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000' GIT_CONFIG_NOSYSTEM=1
git init -q -b main r && cd r
for d in {1..50}; do mkdir -p d$d; for f in {1..100}; do echo "file $d $f" >d$d/f$f; done; done
git add . && git commit -q -m first && git rev-parse HEAD
git checkout -q -b other && rm -rf d1 && for f in {1..100}; do echo changed >>d2/f$f; done && git commit -q -a -m second && git rev-parse HEAD && git checkout -q main
cd .. && git clone -q r c && cd c && find . -name 'f*' -not -path './.git/*' | wc -l && git status --short | wc -l
git checkout -q other && ls | wc -l && git diff --stat main | tail -n 1; git fsck --full 2>&1 | wc -l; find d3 -type f -exec cat {} + | sha256sum
