# SPDX-License-Identifier: Apache-2.0
# A Go program, compiled in the root when it was made: goroutines, channels, timers, the garbage collector, child processes.
#: needs /opt/e2e/hello-go
cd /tmp
/opt/e2e/hello-go; echo "go $?"
GOMAXPROCS=1 /opt/e2e/hello-go | head -n 1
