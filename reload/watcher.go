package reload

import (
	"context"
	"slices"
	"syscall"
	"time"
)

const (
	watcherScript = "certwatcher.py"
	configScript  = "config.py"

	// The watcher looks once a second. A look that falls into the switch sees
	// one name change, and the next look the other: two periods, and a margin.
	watcherDelay = 2200 * time.Millisecond
	resumedDelay = 1200 * time.Millisecond // from when it goes on: one period, and a margin
	quiet        = time.Second             // without a configuration run: between two of a row the watcher needs a few ms, but hosts can be busy
	settlePoll   = 50 * time.Millisecond
	settleLimit  = 20 * time.Second
)

// PauseWatcher stops the front's watcher by SIGSTOP, so that it does not reconfigure
// daemons that are being reloaded and asked. Settle sets it going again, and so
// does release, which is to be called in any case. Where the processes of the
// container are out of reach, nothing is paused.
//
// A run that is killed leaves the watcher stopped, and nothing else: what the
// front serves is not touched by that. The next Settle or a restart of the
// container sets it going.
func (f *Front) PauseWatcher() (release func()) {
	if !f.isLocal() {
		return func() {}
	}
	watcher, ok := running(localProcesses(f.pid), watcherScript)
	if !ok || f.signal(watcher, syscall.SIGSTOP) != nil {
		return func() {}
	}
	f.watcherPaused = true
	return func() { f.resumeWatcher(watcher) }
}

func (f *Front) resumeWatcher(watcher process) {
	_ = f.signal(watcher, syscall.SIGCONT) // one that is gone need not be told
	f.watcherPaused = false
}

// quiesce returns the processes once no reaction of the watcher is to be
// expected any more.
//
// Meanwhile it keeps the watcher's runs apart, which follow one another without
// a pause. The killall of each hits what is called dovecot, and so is a child
// that its master has just forked, and not only the master; after the run before,
// the master forks all its services anew. When that child was to be dovecot's
// config service, the master waits ten seconds for it, and all mail ports with
// it. So the watcher is stopped while a run of it goes on, and continued when
// processes have ceased to come and go, or after a second where they never do.
func (f *Front) quiesce(ctx context.Context) ([]process, error) {
	busy := time.Now().Add(-quiet) // nothing was seen to run yet
	var watcher process
	defer func() { f.resumeWatcher(watcher) }() // whatever ends this
	for before := []process(nil); ; {
		procs, err := f.processes(ctx)
		if err != nil {
			return nil, err
		}
		now := time.Now()
		var watched bool
		watcher, watched = running(procs, watcherScript)
		stopped := watcher.stopped || f.watcherPaused // a signal takes its time
		switch {
		case reconfiguring(procs):
			busy = now
			_ = f.signal(watcher, syscall.SIGSTOP)
		case stopped && (same(before, procs) || now.Sub(busy) >= quiet):
			f.resumeWatcher(watcher)
			f.reacts = now.Add(resumedDelay)
		}
		before = procs
		if !(watched && (stopped || now.Before(f.reacts))) && now.Sub(busy) >= quiet {
			return procs, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(settlePoll):
		}
	}
}

// same tells whether no process has come or gone.
func same(a, b []process) bool {
	return slices.EqualFunc(a, b, func(p, q process) bool { return p.inside == q.inside && p.name == q.name })
}

func reconfiguring(procs []process) bool { return runs(procs, configScript) }
