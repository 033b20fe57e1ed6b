package reload

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stopped: the watcher is, or is not, within the moment that a signal takes.
func (tree fakeTree) stopped(t *testing.T, want bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		watcher, ok := running(localProcesses(tree.pid1), watcherScript)
		return ok && watcher.stopped == want
	}, 5*time.Second, 5*time.Millisecond)
}

func TestPausedWatcherIsStoppedUntilItIsResumed(t *testing.T) {
	t.Parallel()
	tree := newTree(t)
	release := tree.front(t).PauseWatcher()
	tree.stopped(t, true)
	release()
	tree.stopped(t, false)
	release()
	tree.stopped(t, false)
}

func TestWatcherThatAKilledRunPausedIsResumed(t *testing.T) {
	t.Parallel()
	tree := newTree(t)
	tree.front(t).PauseWatcher()
	tree.stopped(t, true)
	_, err := tree.front(t).watcher.quiesce(t.Context()) // of another run
	require.NoError(t, err)
	tree.stopped(t, false)
}

func TestNothingIsPausedWhereProcessesAreOutOfReach(t *testing.T) {
	t.Parallel()
	tree := newTree(t)
	f := tree.front(t)
	f.in.id = strings.Repeat("0123456789abcdef", 4) // of an engine elsewhere
	f.PauseWatcher()()
	tree.stopped(t, false)
	assert.False(t, f.watcher.paused)
}

func TestRunsOfTheWatcherAreKeptApart(t *testing.T) {
	t.Parallel()
	tree := newTreeWith(t, "while [ ! -e go ]; do sleep 0.05; done; for i in 1 2 3 4; do ./python3 ./config.py; done; sleep 600 & wait")
	f := tree.front(t)
	defer f.PauseWatcher()()
	require.NoError(t, os.WriteFile(filepath.Join(tree.dir, "go"), nil, 0o600)) // the switch
	_, err := f.watcher.quiesce(t.Context())
	require.NoError(t, err)
	tree.stopped(t, false)
	assert.False(t, f.watcher.paused)

	data, err := os.ReadFile(filepath.Join(tree.dir, "runs"))
	require.NoError(t, err)
	times := strings.Fields(string(data))
	require.Len(t, times, 8, "four runs, and the end of each was waited for")
	at := func(i int) time.Time {
		n, err := strconv.ParseInt(times[i], 10, 64)
		require.NoError(t, err)
		return time.Unix(0, n)
	}
	for i := 2; i < len(times); i += 2 {
		assert.GreaterOrEqual(t, at(i).Sub(at(i-1)), settlePoll, "between two runs something was seen to be over")
	}
}

func TestAfterTheRunsOfOneChangeNoMoreAreWaitedFor(t *testing.T) {
	t.Parallel()
	waited := map[string]time.Duration{}
	for _, runs := range []string{"1 2 3", "1 2 3 4"} {
		tree := newTreeWith(t, "while [ ! -e go ]; do sleep 0.05; done; for i in "+runs+"; do ./python3 ./config.py; done; sleep 600 & wait")
		f := tree.front(t)
		defer f.PauseWatcher()()
		require.NoError(t, os.WriteFile(filepath.Join(tree.dir, "go"), nil, 0o600)) // the switch
		_, err := f.watcher.quiesce(t.Context())
		require.NoError(t, err)
		data, err := os.ReadFile(filepath.Join(tree.dir, "runs"))
		require.NoError(t, err)
		times := strings.Fields(string(data))
		last, err := strconv.ParseInt(times[len(times)-1], 10, 64)
		require.NoError(t, err)
		waited[runs] = time.Since(time.Unix(0, last))
	}
	assert.Less(t, waited["1 2 3 4"], waited["1 2 3"])
}

func TestWatcherIsResumedEvenIfTheProcessListNeverSettles(t *testing.T) {
	t.Parallel()
	tree := newTreeWith(t, "./python3 ./busy.sh & ./python3 ./config.py; ./python3 ./config.py; sleep 600 & wait")
	f := tree.front(t)
	f.watcher.expect(time.Now().Add(5 * time.Second)) // however busy this host is, and late the first run
	_, err := f.watcher.quiesce(t.Context())
	require.NoError(t, err)
	tree.stopped(t, false)
	data, err := os.ReadFile(filepath.Join(tree.dir, "runs"))
	require.NoError(t, err)
	assert.Len(t, strings.Fields(string(data)), 4, "two runs")
}

func TestWatcherThatWaitsForAProcessorIsWaitedForButNotForEver(t *testing.T) {
	t.Parallel()
	for script, runs := range map[string]int{
		"while [ ! -e go ]; do :; done; ./python3 ./config.py; sleep 600 & wait": 2,
		"while :; do :; done": 0,
	} {
		tree := newTreeWith(t, script)
		f := tree.front(t)
		f.watcher.expect(time.Now().Add(100 * time.Millisecond))
		late := time.AfterFunc(time.Second, func() { _ = os.WriteFile(filepath.Join(tree.dir, "go"), nil, 0o600) })
		defer late.Stop()
		_, err := f.watcher.quiesce(t.Context())
		require.NoError(t, err)
		data, _ := os.ReadFile(filepath.Join(tree.dir, "runs")) // none without a run
		assert.Len(t, strings.Fields(string(data)), runs, script)
	}
}

func TestWatcherIsResumedWhenTheTimeIsUp(t *testing.T) {
	t.Parallel()
	tree := newTreeWith(t, "./python3 ./config.py; while :; do ./python3 ./config.py; done")
	f := tree.front(t)
	f.watcher.expect(time.Now().Add(time.Hour)) // however busy this host is, and late the first run
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := f.watcher.quiesce(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	tree.stopped(t, false)
}

func TestRefusalWhileTheWatcherIsPausedIsAVerdict(t *testing.T) {
	for paused, tests := range map[bool]int{true: 1, false: 2} {
		f, fake := frontOf(t, &daemons{ps: []string{psWhole}, statuses: map[string]int{"nginx": 1}})
		f.watcher.paused = paused
		require.Error(t, f.Reload(t.Context(), keeps))
		n := 0
		for _, command := range fake.ran() {
			if strings.HasPrefix(command, "nginx") {
				n++
			}
		}
		assert.Equal(t, tests, n, "paused: %t", paused)
	}
}

func TestSignalsGoToNoProcessGroup(t *testing.T) {
	for _, pid := range []int{0, -1} {
		assert.Error(t, signal(process{host: pid}, syscall.SIGCONT))
	}
}
