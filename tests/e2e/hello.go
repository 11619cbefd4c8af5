// SPDX-License-Identifier: Apache-2.0
// The Go program of the go-hello case; make-root compiles it into the root.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

type node struct{ left, right *node }

func tree(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{tree(depth - 1), tree(depth - 1)}
}

func (n *node) count() int {
	if n.left == nil {
		return 1
	}
	return 1 + n.left.count() + n.right.count()
}

func main() {
	fmt.Println("hello from Go")
	numbers, sums := make(chan int), make(chan int)
	var wg sync.WaitGroup
	for i := 0; i < 100; i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s := 0
			for n := range numbers {
				s += n
			}
			sums <- s
		}()
	}
	go func() {
		for i := 1; i <= 100000; i++ {
			numbers <- i
		}
		close(numbers)
		wg.Wait()
		close(sums)
	}()
	total := 0
	for s := range sums {
		total += s
	}
	fmt.Println("sum", total)
	for i := 0; i < 10; i++ {
		if n := tree(15).count(); n != 65535 {
			fmt.Println("wrong tree", n)
		}
	}
	runtime.GC()
	fmt.Println("collected")
	ticks := time.NewTicker(5 * time.Millisecond)
	for i := 0; i < 10; i++ {
		<-ticks.C
	}
	select {
	case <-time.After(20 * time.Millisecond):
		fmt.Println("timer")
	}
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-got)
	out, err := exec.Command("sh", "-c", "echo child; exit 2").Output()
	fmt.Println(strings.TrimSpace(string(out)), err)
	var locked sync.WaitGroup
	for i := 0; i < 8; i++ {
		locked.Add(1)
		go func() {
			runtime.LockOSThread()
			time.Sleep(10 * time.Millisecond)
			locked.Done()
		}()
	}
	locked.Wait()
	// Endless without a call: only a preemption signal lets main go on.
	if runtime.GOMAXPROCS(0) == 1 {
		go func() {
			for {
			}
		}()
		runtime.Gosched()
	}
	func() {
		defer func() { fmt.Println("recovered:", recover()) }()
		var p *node
		p.left = nil
	}()
	os.Exit(6)
}
