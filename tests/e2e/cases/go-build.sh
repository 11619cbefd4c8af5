# SPDX-License-Identifier: Apache-2.0
# The Go tool chain itself: a compile, a link, a run.
#: timeout 400
#: needs /usr/bin/go
cd /tmp && mkdir w && cd w
export GOCACHE=/tmp/cache GOFLAGS=-mod=mod GO111MODULE=off GOPATH=/tmp/gopath GOTELEMETRY=off CGO_ENABLED=0
printf 'package main\n\nimport "os"\n\nfunc main() { os.Stdout.WriteString("built\\n"); os.Exit(3) }\n' >main.go
go version | cut -d' ' -f1-3; go vet main.go; go build -o hello main.go && ./hello; echo "status $?"
