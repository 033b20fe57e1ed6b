package cli

import (
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// watching is an agent that was prepared, and waits for its rounds.
func (w *world) watching(stderr io.Writer, args ...string) *watching {
	w.t.Helper()
	env := environment(w.environ())
	i := &invocation{settings: env, environ: w.environ(), stdin: strings.NewReader(""), stdout: io.Discard, stderr: stderr, out: &outputOptions{}, all: commands()}
	options, _, err := i.prepare(append([]string{"watch"}, args...), env)
	require.NoError(w.t, err)
	agent, err := options.(*watchOptions).prepare(i)
	require.NoError(w.t, err)
	return agent
}

// live are the bytes on the heap, and the goroutines.
func live() (bytes int64, goroutines int) {
	runtime.GC()
	runtime.GC() // what pools keep outlives one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc), runtime.NumGoroutine()
}

func TestManyRoundsAndRestartsOfFrontsTakeNoMoreMemory(t *testing.T) {
	rounds := 200
	if os.Getenv("MAILU_HOOK_SOAK") != "" {
		rounds = 10000
	}
	const follows = 2 // a thousand restarts
	w := newWorld(t)
	w.engine(w.stopped())
	require.Equal(t, exitOK, w.install().status)
	agent := w.watching(io.Discard)
	var told atomic.Int32
	tell := func(string) { told.Add(1) }
	round := func() {
		assert.False(t, agent.round(t.Context(), "of the test"), "there is nothing to do")
	}
	for range 50 {
		round()
	}
	require.Error(t, agent.events(t.Context(), tell), "the engine hangs up")
	time.Sleep(startTime)
	bytes, goroutines := live()
	for range rounds {
		round()
	}
	for range follows {
		require.Error(t, agent.events(t.Context(), tell))
	}
	time.Sleep(startTime) // the last of the reasons are due
	round()
	assert.EqualValues(t, (follows+1)*restarts+follows, told.Load(), "each start, and each time that the engine answers again")
	after, left := live()
	assert.Less(t, after-bytes, int64(500_000), "bytes after %d rounds and %d restarts", rounds, follows*restarts)
	assert.LessOrEqual(t, left, goroutines+5)
}

// Nobody waits for an agent, also not for one that runs in a terminal.
func TestAgentKeepsTheBackOffOfRenewAndSaysSoOnce(t *testing.T) {
	w := newRenewer(t)
	_, asked := w.acme(http.NotFound)
	out := onTerminal(t, 80, func(tty *os.File) {
		agent := w.watching(tty, "--renew", "--challenge", "standalone")
		agent.round(t.Context(), "it fails")
		once := asked.Load()
		for range 3 {
			agent.round(t.Context(), "it waits")
		}
		assert.Equal(t, once, asked.Load(), "nobody was asked again")
	})
	assert.Equal(t, 2, strings.Count(out, "mailu-hook: error: "), out)
	assert.Equal(t, 1, strings.Count(out, "not yet time to try: attempt 1 failed"), out)
}
