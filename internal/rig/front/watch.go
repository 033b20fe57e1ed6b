package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// watch is /certwatcher.py: one goroutine polls, another acts on the events one
// by one. Events that arrive during a configuration run wait, and none is
// dropped for being out of date, so swapping a pair costs four runs.
func watch() error {
	env := environ()
	cert := underCerts(withDefault(env, "TLS_CERT_FILENAME", "cert.pem"))
	key := underCerts(withDefault(env, "TLS_KEYPAIR_FILENAME", "key.pem"))
	dirs := slices.Compact([]string{filepath.Dir(cert), filepath.Dir(key)})

	before, err := take(dirs...)
	if err != nil {
		return err
	}
	queue := newQueue()
	go func() {
		for {
			act(react(queue.get(), cert, key))
		}
	}()
	for {
		time.Sleep(time.Second)
		after, err := take(dirs...)
		if err != nil {
			return err
		}
		for _, e := range diff(before, after) {
			queue.put(e)
		}
		before = after
	}
}

// underCerts joins as python does: an absolute name stands for itself.
func underCerts(name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join("/certs", name)
}

// act ignores how its commands end, as Mailu does.
func act(r reaction) {
	switch r {
	case reconfigure:
		fmt.Println("certificate files changed: configuring again")
		runLogged("/config.py")
	case reload:
		if exists(nginxPID) {
			fmt.Println("certificate files written to: reloading nginx")
			runLogged("nginx", "-s", "reload")
		}
		if exists("/run/dovecot/master.pid") {
			fmt.Println("certificate files written to: reloading dovecot")
			runLogged("doveadm", "reload")
		}
	}
}

func runLogged(name string, args ...string) {
	if err := attached(name, args...).Run(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	}
}

// queue is watchdog's: without bound, and an event equal to the one last put
// is skipped while that one waits.
type queue struct {
	mu     sync.Mutex
	filled *sync.Cond
	events []event
}

func newQueue() *queue {
	q := &queue{}
	q.filled = sync.NewCond(&q.mu)
	return q
}

func (q *queue) put(e event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.events); n > 0 && q.events[n-1] == e {
		return
	}
	q.events = append(q.events, e)
	q.filled.Signal()
}

func (q *queue) get() event {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.events) == 0 {
		q.filled.Wait()
	}
	e := q.events[0]
	q.events = q.events[1:]
	return e
}
