package reload

import (
	"context"
	"slices"
	"syscall"
	"time"

	"mailu-hook/internal/wait"
)

const (
	watcherScript = "certwatcher.py"
	configScript  = "config.py"

	// The watcher looks once a second. A look in the middle of a switch sees one
	// name change, and the next look the other: two periods, and a margin.
	watcherDelay = 2200 * time.Millisecond
	resumedDelay = 1200 * time.Millisecond // after it was resumed: one period, and a margin
	quiet        = time.Second             // without a configuration run: within a row of runs the watcher needs a few ms between two, but hosts can be busy
	mostRuns     = 4                       // that one change of both files makes: each counts as deleted and created, or moved
	afterMost    = 300 * time.Millisecond
	lateLimit    = 5 * time.Second // for a watcher that has something to do, but not the processor to do it
	settlePoll   = 50 * time.Millisecond
	settleLimit  = 20 * time.Second
)

// watcher is the front's own watcher of its certificates
// (core/nginx/certwatcher.py), and what may be expected of it.
type watcher struct {
	in     *interior
	paused bool      // by pause
	reacts time.Time // until when it may begin to react to a switch
}

// expect notes that the watcher may begin to react until then.
func (w *watcher) expect(until time.Time) {
	if until.After(w.reacts) {
		w.reacts = until
	}
}

// PauseWatcher stops the front's watcher by SIGSTOP, so that it does not reconfigure
// daemons that are being reloaded and asked. Settle resumes it, and so does release,
// which must be called in any case. Where the processes of the container are out of
// reach, nothing is paused.
//
// A run that is killed leaves the watcher stopped, which does not touch what the
// front serves. The next Settle or a restart of the container resumes it.
func (f *Front) PauseWatcher() (release func()) { return f.watcher.pause() }

func (w *watcher) pause() (release func()) {
	if !w.in.isLocal() {
		return func() {}
	}
	p, ok := running(localProcesses(w.in.pid), watcherScript)
	if !ok || signal(p, syscall.SIGSTOP) != nil {
		return func() {}
	}
	w.paused = true
	return func() { w.resume(p) }
}

func (w *watcher) resume(p process) {
	_ = signal(p, syscall.SIGCONT) // one that is gone need not be told
	w.paused = false
}

// quiesce returns the processes once the watcher is not expected to react any
// more.
//
// Each run of config.py ends in `killall -HUP dovecot`, which matches by name and
// so also hits children that have not exec'd yet. The run before has made the
// master fork all its services again, and the watcher leaves no pause between
// runs. If a child that is hit was to become dovecot's config service, the master
// blocks for ten seconds, and with it every mail port. So the watcher is stopped
// while one of its runs is under way, and resumed once the process list is stable,
// or after a second where it never is.
//
// A watcher that was paused sees one change, whatever was switched meanwhile. After
// mostRuns it has nothing more to do, unless something else was changed before.
func (w *watcher) quiesce(ctx context.Context) ([]process, error) {
	seen := map[int]bool{} // configuration runs, by pid
	sawOne := w.paused
	quiet, resumedDelay := quiet, resumedDelay
	busy := time.Now().Add(-quiet) // no run was seen yet
	var p process
	defer func() { w.resume(p) }() // however this ends
	for before := []process(nil); ; {
		procs, err := w.in.processes(ctx)
		if err != nil {
			return nil, err
		}
		now := time.Now()
		var watched bool
		p, watched = running(procs, watcherScript)
		stopped := p.stopped || w.paused // a signal takes its time
		switch {
		case reconfiguring(procs):
			busy = now
			_ = signal(p, syscall.SIGSTOP)
			run, _ := running(procs, configScript)
			if seen[run.inside] = true; sawOne && len(seen) >= mostRuns {
				quiet, resumedDelay = afterMost, afterMost
			}
		case stopped && (same(before, procs) || now.Sub(busy) >= quiet):
			w.resume(p)
			w.reacts = now.Add(resumedDelay)
		}
		before = procs
		if !(watched && (stopped || now.Before(w.reacts) || w.isLate(procs))) && now.Sub(busy) >= quiet {
			return procs, nil
		}
		if err := wait.For(ctx, settlePoll); err != nil {
			return nil, err
		}
	}
}

// isLate reports whether the watcher may still react to a switch though its time is over:
// on a busy host it, or the child that is to become a configuration run, waits for a
// processor.
func (w *watcher) isLate(procs []process) bool {
	return time.Now().Before(w.reacts.Add(lateLimit)) &&
		slices.ContainsFunc(procs, func(p process) bool { return p.isScript(watcherScript) && p.isAwake() })
}

// same reports whether no process has come or gone.
func same(a, b []process) bool {
	return slices.EqualFunc(a, b, func(p, q process) bool { return p.inside == q.inside && p.name == q.name })
}

func reconfiguring(procs []process) bool { return runs(procs, configScript) }
