//go:build measure

package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// measureWatch measures the agent: the time from the change of a file until every port
// shows the new leaf, and what it costs while there is nothing to do. BENCH_IDLE is how
// long it idles.
func measureWatch(t *testing.T, r *report) {
	idle := 10 * time.Minute
	if set := os.Getenv("BENCH_IDLE"); set != "" {
		var err error
		idle, err = time.ParseDuration(set)
		require.NoError(t, err)
	}
	l, _ := startServing(t, rig.FrontOptions{})
	ip, err := l.front.IP(t.Context())
	require.NoError(t, err)
	store := filepath.Join(l.root, "traefik", "acme.json")
	require.NoError(t, os.MkdirAll(filepath.Dir(store), 0o700))
	l.traefik(store, l.issue(mint.Leaf{NotBefore: time.Now().Add(-time.Hour)}))
	require.Equal(t, 0, l.run(nil, "install", store).code)
	a := l.watch()
	var served sample
	for range r.rounds {
		pair := l.issue(mint.Leaf{NotBefore: time.Now()})
		n, _ := a.rounds()
		began := time.Now()
		l.traefik(store, pair)
		untilServed(t, ip, pair.SHA256())
		served = append(served, milliseconds(time.Since(began)))
		a.waits(n + 2) // that one, and the look ten seconds later
	}
	before := a.processorTime()
	time.Sleep(idle)
	used := a.processorTime() - before
	tab := newTable(4, "The agent", "From the change of a source until all six TLS ports show the new leaf, as above; then "+idle.String()+` without anything to
do: its share of one processor, and its memory in the end.`,
		"", "served after, ms", "CPU while idle, %", "memory (RSS), MiB")
	tab.row("`mailu-hook watch`", served, number(100*used.Seconds()/idle.Seconds()), number(a.memory()))
	r.add(tab)
	require.NoError(t, a.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, <-a.ended)
}

// processorTime is what the agent has used so far (proc(5): utime and stime, in
// hundredths of a second).
func (a *agent) processorTime() (used time.Duration) {
	a.l.t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(a.cmd.Process.Pid), "stat"))
	require.NoError(a.l.t, err)
	for _, text := range strings.Fields(string(data[strings.LastIndexByte(string(data), ')'):]))[12:14] {
		ticks, err := strconv.Atoi(text)
		require.NoError(a.l.t, err)
		used += time.Duration(ticks) * 10 * time.Millisecond
	}
	return used
}

// memory is what the agent occupies, in MiB.
func (a *agent) memory() float64 {
	a.l.t.Helper()
	kibi, err := strconv.ParseFloat(strings.TrimSuffix(field(filepath.Join("/proc", strconv.Itoa(a.cmd.Process.Pid), "status"), "VmRSS"), " kB"), 64)
	require.NoError(a.l.t, err)
	return kibi / 1024
}
