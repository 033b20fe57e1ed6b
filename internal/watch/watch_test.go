package watch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// agent runs until the test ends, on the clock of the test.
type agent struct {
	mu     sync.Mutex
	rounds []string // why
	times  []time.Duration
	tell   func(string)
	stop   func() // and wait
}

func start(t *testing.T, o Options) *agent {
	t.Helper()
	a := &agent{}
	began := time.Now()
	round := o.Round
	o.Round = func(ctx context.Context, why string) bool {
		a.mu.Lock()
		a.rounds, a.times = append(a.rounds, why), append(a.times, time.Since(began))
		a.mu.Unlock()
		return round != nil && round(ctx, why)
	}
	o.Feeds = append(o.Feeds, func(_ context.Context, tell func(string)) { a.tell = tell })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Run(ctx, o)
	}()
	a.stop = func() { cancel(); <-ended }
	synctest.Wait()
	return a
}

// done are the reasons of the rounds so far.
func (a *agent) done() []string {
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.rounds)
}

func TestRoundsComeAtTheStartForAReasonAndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t, Options{Every: 10 * time.Minute})
		defer a.stop()
		assert.Equal(t, []string{"it starts"}, a.done())
		a.tell("a file has changed")
		time.Sleep(settle)
		synctest.Wait()
		assert.Equal(t, "a file has changed", a.done()[1])
		time.Sleep(time.Hour)
		a.stop()
		for i := 2; i < len(a.times); i++ {
			between := a.times[i] - a.times[i-1]
			assert.True(t, between >= 9*time.Minute && between <= 10*time.Minute, "%s", between)
		}
		assert.GreaterOrEqual(t, len(a.times), 8)
		assert.Equal(t, settle, a.times[1])
	})
}

func TestReasonsThatComeTogetherAreOneRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t, Options{Every: time.Hour, Round: func(context.Context, string) bool { time.Sleep(time.Minute); return false }})
		defer a.stop()
		for range 1000 { // also while a round is under way
			a.tell("a file has changed")
			time.Sleep(time.Millisecond)
		}
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		assert.Len(t, a.done(), 2)
		a.tell("and one more")
		time.Sleep(time.Minute)
		assert.Len(t, a.done(), 3)
	})
}

func TestReasonsWithoutEndAreHeardLessAndLessOftenUntilSomethingComesOfThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		acts := false
		a := start(t, Options{Every: time.Hour, Round: func(context.Context, string) bool { return acts }})
		defer a.stop()
		babble := func(d time.Duration) (rounds int) {
			before := len(a.done())
			for until := time.Now().Add(d); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
				a.tell("a file has changed")
			}
			return len(a.done()) - before
		}
		first := babble(time.Minute)
		assert.LessOrEqual(t, first, 10)
		assert.GreaterOrEqual(t, first, 5)
		assert.Equal(t, 4, babble(4*longestSettle))

		acts = true
		assert.Greater(t, babble(4*longestSettle), 100, "something comes of them")
		acts = false

		babble(time.Minute)
		time.Sleep(2 * longestSettle)
		n := len(a.done())
		a.tell("a file has changed")
		time.Sleep(settle)
		assert.Len(t, a.done(), n+1, "after some quiet it listens at once")
	})
}

func TestWhatARoundHasChangedIsLookedAtAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		acts := true
		a := start(t, Options{Every: time.Hour, Round: func(context.Context, string) bool { defer func() { acts = false }(); return acts }})
		defer a.stop()
		time.Sleep(seeAgain)
		assert.Len(t, a.done(), 2)
		time.Sleep(30 * time.Minute)
		assert.Len(t, a.done(), 2, "it found all well")
	})
}

func TestAChangeIsHeardOfWithinSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changed atomic.Bool
		a := start(t, Options{
			Every: 24 * time.Hour, Round: func(context.Context, string) bool { changed.Store(false); return false },
			Feeds: []Feed{Changes("it", changed.Load)},
		})
		defer a.stop()
		time.Sleep(time.Hour)
		assert.Len(t, a.done(), 1, "it starts")
		changed.Store(true)
		time.Sleep(5 * time.Second)
		assert.Equal(t, []string{"it starts", "it has changed"}, a.done())
		time.Sleep(time.Hour)
		assert.Len(t, a.done(), 2)
	})
}

func TestWhatChangesWithoutEndIsAskedForOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int32
		a := start(t, Options{Every: 24 * time.Hour, Feeds: []Feed{Changes("it", func() bool { looks.Add(1); return true })}})
		defer a.stop()
		time.Sleep(10 * time.Minute)
		soon := looks.Load()
		time.Sleep(time.Hour)
		assert.InDelta(t, 60, looks.Load()-soon, 2)
	})
}

func TestTheRoundUnderWayIsWaitedForAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var undone atomic.Bool
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			Run(ctx, Options{Every: time.Hour, Round: func(ctx context.Context, _ string) bool {
				<-ctx.Done()
				time.Sleep(time.Second) // it undoes what is half done
				undone.Store(true)
				return true
			}})
		}()
		synctest.Wait()
		stop()
		<-ended
		assert.True(t, undone.Load())
	})
}

func TestManyRoundsTakeNoMoreMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var count int
		ctx, stop := context.WithCancel(t.Context())
		var before, after runtime.MemStats
		go Run(ctx, Options{Every: time.Minute, Round: func(context.Context, string) bool {
			switch count++; count {
			case 1000:
				runtime.GC()
				runtime.ReadMemStats(&before)
			case 11000:
				runtime.GC()
				runtime.ReadMemStats(&after)
			}
			return false
		}})
		time.Sleep(11001 * time.Minute)
		stop()
		synctest.Wait()
		require.Greater(t, count, 11000)
		assert.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(100_000), "bytes after 10,000 rounds")
	})
}

func TestWhatBreaksOffIsBegunAgainLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var tries []time.Duration
		feed := Retried(func(ctx context.Context, tell func(string)) error {
			tries = append(tries, time.Since(began))
			return errors.New("gone")
		})
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
		defer stop()
		feed(ctx, func(string) { t.Error("it has nothing to tell") })
		assert.Equal(t, []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second, 31 * time.Second}, tries[:6])
		assert.Equal(t, time.Minute, tries[8]-tries[7])
	})
}

func TestChangesOfFilesAreReasons(t *testing.T) {
	one, two := t.TempDir(), filepath.Join(t.TempDir(), "later")
	told := make(chan string, 100)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go Files(func() []string { return []string{one, two} })(ctx, func(why string) { told <- why })
	write := func(name string) { require.NoError(t, os.WriteFile(name, []byte("x"), 0o600)) }
	require.Eventually(t, func() bool { // the feed may still be starting
		write(filepath.Join(one, "key"))
		select {
		case why := <-told:
			return assert.Equal(t, one+" has changed", why)
		case <-time.After(50 * time.Millisecond):
			return false
		}
	}, 10*time.Second, time.Millisecond)
}

func TestLookFindsWhatTheKernelDoesNotTell(t *testing.T) {
	one, gone := t.TempDir(), filepath.Join(t.TempDir(), "gone")
	f := files{dirs: func() []string { return []string{one, gone} }} // without a kernel
	assert.Empty(t, f.look())
	assert.Empty(t, f.look())
	require.NoError(t, os.WriteFile(filepath.Join(one, "key"), []byte("x"), 0o600))
	assert.Equal(t, one, f.look())
	assert.Empty(t, f.look())
	require.NoError(t, os.Mkdir(gone, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(gone, "key"), []byte("x"), 0o600))
	assert.Equal(t, gone, f.look(), "it came back")
	require.NoError(t, os.RemoveAll(gone))
	assert.Equal(t, gone, f.look())
}

// systemd listens as the service manager does.
type systemd struct {
	t    *testing.T
	conn *net.UnixConn
	n    *Notifier
}

func newSystemd(t *testing.T) *systemd {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // short enough for a socket
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	env := map[string]string{"NOTIFY_SOCKET": socket, "WATCHDOG_USEC": "40000"}
	return &systemd{t, conn, NewNotifier(func(name string) string { return env[name] })}
}

// next is what is told next, "" if nothing is for so long.
func (s *systemd) next(within time.Duration) string {
	s.t.Helper()
	buffer := make([]byte, 1000)
	require.NoError(s.t, s.conn.SetReadDeadline(time.Now().Add(within)))
	length, err := s.conn.Read(buffer)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	require.NoError(s.t, err)
	return string(buffer[:length])
}

func (s *systemd) hears(want string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return s.next(10*time.Second) == want }, time.Minute, time.Microsecond, want)
}

// between is what is told before want, but for the watchdog's food.
func (s *systemd) between(want string) (told []string) {
	s.t.Helper()
	for {
		switch state := s.next(10 * time.Second); state {
		case want, "":
			require.Equal(s.t, want, state)
			return told
		case "WATCHDOG=1":
		default:
			told = append(told, state)
		}
	}
}

func TestReloadEndsWithTheRoundThatBeginsAfterIt(t *testing.T) {
	s := newSystemd(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	reload, end := make(chan os.Signal), make(chan bool)
	go Run(ctx, Options{Every: time.Hour, Reload: reload, Notify: s.n, Round: func(ctx context.Context, _ string) bool {
		select {
		case <-end:
		case <-ctx.Done():
		}
		return false
	}})
	monotonic := func() int64 {
		var now unix.Timespec
		require.NoError(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
		return now.Nano() / 1000
	}
	asks := func() {
		t.Helper()
		before := monotonic()
		reload <- syscall.SIGHUP
		for { // systemd takes only one that is told after it has asked
			var at int64
			if n, _ := fmt.Sscanf(s.next(10*time.Second), "RELOADING=1\nMONOTONIC_USEC=%d", &at); n == 1 {
				assert.True(t, before <= at && at <= monotonic(), "%d", at)
				return
			}
		}
	}
	working, waiting := "STATUS=working, because it was asked to reload", "STATUS=waiting"
	end <- true
	s.hears("READY=1")
	asks()
	s.hears(working)
	asks() // while the round for the first is under way
	end <- true
	assert.Equal(t, []string{waiting}, s.between(working))
	end <- true
	assert.Equal(t, []string{waiting}, s.between("READY=1"))
}

func TestNotifierTellsSystemd(t *testing.T) {
	s := newSystemd(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go Run(ctx, Options{Every: time.Hour, Notify: s.n, Round: func(context.Context, string) bool { return false }})
	for _, want := range []string{"STATUS=working, because it starts", "STATUS=waiting", "READY=1", "WATCHDOG=1", "WATCHDOG=1"} {
		s.hears(want)
	}
	stop()
	s.hears("STOPPING=1")
	assert.Nil(t, NewNotifier(func(string) string { return "" }))
}

func TestRoundThatHangsStarvesTheWatchdogAfterItsTime(t *testing.T) {
	s := newSystemd(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go Run(ctx, Options{Every: time.Hour, Limit: 200 * time.Millisecond, Notify: s.n, Round: func(ctx context.Context, _ string) bool { <-ctx.Done(); return false }})
	s.hears("WATCHDOG=1")
	require.Eventually(t, func() bool { return s.next(500*time.Millisecond) == "" }, time.Minute, time.Microsecond, "it is starved")
}

// What was written into a directory before the kernel watched it is told of after the
// look that finds the directory.
func TestDirectoryThatComesToBeIsAReason(t *testing.T) {
	base := t.TempDir()
	live := filepath.Join(base, "live")
	dirs := func() []string {
		if _, err := os.Stat(live); err == nil {
			return []string{live}
		}
		return []string{base}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told := make(chan string, 100)
	go Files(dirs)(ctx, func(why string) { told <- why })
	require.Eventually(t, func() bool { // the feed may still be starting
		require.NoError(t, os.WriteFile(filepath.Join(base, "x"), nil, 0o600))
		return len(told) > 0
	}, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, os.Mkdir(live, 0o700))
	require.Eventually(t, func() bool { return <-told == live+" has changed" }, 10*time.Second, time.Millisecond)
	require.NoError(t, os.WriteFile(filepath.Join(live, "key"), nil, 0o600))
	require.Eventually(t, func() bool { return <-told == live+" has changed" }, 10*time.Second, time.Millisecond, "and is watched from then on")
}
