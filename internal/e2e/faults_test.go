package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// engine is the real Docker engine behind a socket of ours, at one of whose
// requests something happens.
type engine struct {
	socket string
	mu     sync.Mutex
	seen   int // requests
	at     int // the one at which trouble begins, from 1
	fault  func(w http.ResponseWriter, r *http.Request) (forward bool)
}

const realSocket = "/var/run/docker.sock"

func newEngine(t *testing.T) *engine {
	t.Helper()
	e := &engine{socket: filepath.Join(t.TempDir(), "docker.sock")}
	listener, err := net.Listen("unix", e.socket)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "docker"})
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	proxy.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", realSocket)
	}}
	server := &http.Server{
		ErrorLog: proxy.ErrorLog,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if e.trouble(w, r) {
				proxy.ServeHTTP(w, r)
			}
		}),
	}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return e
}

// trouble reports whether the request is to be forwarded. From the chosen request
// on, each one is troubled.
func (e *engine) trouble(w http.ResponseWriter, r *http.Request) (forward bool) {
	e.mu.Lock()
	e.seen++
	now := e.fault != nil && e.seen >= e.at
	e.mu.Unlock()
	return !now || e.fault(w, r)
}

func (e *engine) reset(at int, fault func(http.ResponseWriter, *http.Request) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen, e.at, e.fault = 0, at, fault
}

// engineFaults are ways in which an engine fails from one request on.
var engineFaults = map[string]func(http.ResponseWriter, *http.Request) bool{
	"hangs": func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return false
	},
	"answers garbage": func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{\"\x00\xff<html>-----BEGIN PRIVATE KEY-----")
		return false
	},
	"answers 500": func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "<html><b>gateway</b> is tired</html>", http.StatusInternalServerError)
		return false
	},
	"hangs up": func(w http.ResponseWriter, _ *http.Request) bool {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			conn.Close()
		}
		return false
	},
	"answers slowly": func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-r.Context().Done():
			return false
		case <-time.After(400 * time.Millisecond):
			return true
		}
	},
}

// sampled returns every n-th item, all of them in a soak.
func sampled[T any](items []T, n, offset int) []T {
	if os.Getenv("MAILU_HOOK_SOAK") != "" {
		return items
	}
	var some []T
	for i, item := range items {
		if i%n == offset%n {
			some = append(some, item)
		}
	}
	return some
}

type moment struct {
	fault string
	at    int
}

// requestsOfADeploy is more than one makes: the last moments trouble nothing.
const requestsOfADeploy = 8

func moments(faults []string) []moment {
	slices.Sort(faults)
	var all []moment
	for at := 1; at <= requestsOfADeploy; at++ {
		for i := range faults {
			all = append(all, moment{faults[(i+at)%len(faults)], at})
		}
	}
	return all
}

func TestEngineThatFailsAtAnyRequestEndsInAnOutcomeOfTheContract(t *testing.T) {
	l, _, _, _ := deployed(t)
	e := newEngine(t)
	l.env = append(l.env, "DOCKER_HOST=unix://"+e.socket)
	var faults []string
	for name := range engineFaults {
		faults = append(faults, name)
	}
	for i, m := range sampled(moments(faults), len(faults)-1, 0) {
		e.reset(m.at, engineFaults[m.fault])
		l.survives(fmt.Sprintf("the engine %s from request %d on", m.fault, m.at), i, func() { e.reset(0, nil) })
	}
}

func TestFrontThatFailsAtAnyRequestEndsInAnOutcomeOfTheContract(t *testing.T) {
	l, _, _, _ := deployed(t)
	e := newEngine(t)
	l.env = append(l.env, "DOCKER_HOST=unix://"+e.socket)
	recreate := func(ctx context.Context) error {
		err := l.front.Remove()
		front, serr := rig.StartFront(ctx, rig.FrontOptions{Root: l.root, Project: l.front.Project})
		if serr == nil {
			l.front = front
			l.t.Cleanup(func() { _ = front.Remove() })
		}
		return errors.Join(err, serr)
	}
	faults := map[string]func(context.Context) error{
		"is killed":    func(ctx context.Context) error { return l.front.Kill(ctx) },
		"is stopped":   func(ctx context.Context) error { return l.front.Stop(ctx) },
		"is paused":    func(ctx context.Context) error { return l.front.Pause(ctx) },
		"is restarted": func(ctx context.Context) error { return l.front.Restart(ctx) },
		"is recreated": recreate,
	}
	var names []string
	for name := range faults {
		names = append(names, name)
	}
	for i, m := range sampled(moments(names), len(names)-1, 1) {
		var once sync.Once
		e.reset(m.at, func(http.ResponseWriter, *http.Request) bool {
			once.Do(func() {
				if err := faults[m.fault](t.Context()); err != nil {
					t.Log("the engine could not do it:", err) // a busy freezer refuses to pause
				}
			})
			return true
		})
		l.survives(fmt.Sprintf("the front %s at request %d", m.fault, m.at), i, func() {
			e.reset(0, nil)
			if state, _ := l.front.State(t.Context()); state == "paused" {
				require.NoError(t, l.front.Unpause(t.Context()))
			} else if state != "running" {
				require.NoError(t, l.front.Start(t.Context()))
			}
			require.NoError(t, l.front.WaitServing(t.Context()))
		})
	}
}

// survives renews the lineage under trouble, and holds the run to the contract:
// one of its outcomes, in time, the installed pair loadable; and after the
// trouble, one sync brings the front to the new leaf.
func (l *lab) survives(trouble string, i int, fix func()) {
	l.t.Helper()
	l.t.Log("when", trouble)
	renewed := l.issue(mint.Leaf{NotBefore: time.Now().Add(-30*time.Minute + time.Duration(i)*time.Second)})
	live := l.lineage(renewed, "mail.example.com")
	const timeout = 8 * time.Second
	began := time.Now()
	r := l.run([]string{"RENEWED_LINEAGE=" + live, "MAILU_HOOK_TIMEOUT=" + timeout.String()}, "--output", "json")
	took := time.Since(began)
	assert.Contains(l.t, []int{0, 4, 8}, r.code, trouble)
	assert.Contains(l.t, []string{"installed", "rolled_back", "pending"}, r.doc.Outcome, trouble)
	const rollbackAndSettle = timeout + 20*time.Second
	assert.Less(l.t, took, timeout+rollbackAndSettle, trouble)
	l.holdsAPair(trouble)
	fix()
	s := l.sync("--now")
	require.Equal(l.t, 0, s.code, trouble)
	l.endsServing(renewed.SHA256())
	l.healthyAndReloadable()
}

// holdsAPair wants a key and a chain that match under the names that the front reads.
func (l *lab) holdsAPair(when string) {
	l.t.Helper()
	_, err := tls.LoadX509KeyPair(filepath.Join(l.certs(), "cert.pem"), filepath.Join(l.certs(), "key.pem"))
	require.NoError(l.t, err, when)
}

// endsServing waits until every port serves the leaf. After trouble the
// front's own watcher may still be at work, whose killall can hit a child of
// dovecot before it has become a login process ("read failed: Interrupted system
// call"), and then dovecot leaves that service alone for two seconds.
func (l *lab) endsServing(sha256 string) {
	l.t.Helper()
	require.EventuallyWithT(l.t, func(c *assert.CollectT) {
		served, err := l.front.Served(l.t.Context())
		require.NoError(c, err)
		require.Len(c, served, len(l.front.TLSPorts()))
		for port, leaf := range served {
			assert.Equal(c, sha256, leaf, "port %d", port)
		}
	}, 60*time.Second, time.Second)
}
