// Package watch is the agent: it waits for reasons to act, and acts on one at a
// time. It knows nothing of certificates: what a round does is the caller's, and a
// feed is whoever has reasons, such as files that change (Files), or an engine
// that tells of its containers (Retried).
package watch

import (
	"context"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"mailu-hook/internal/wait"
)

// Feed tells of reasons to act until ctx ends. tell returns at once.
type Feed func(ctx context.Context, tell func(why string))

// Options of the agent.
type Options struct {
	Every time.Duration // a round at least so often; it begins up to a tenth earlier
	Limit time.Duration // of a round: after that it hangs, and the watchdog is not fed any more
	// Round is one round of work; its failures are its own to tell. It reports whether
	// it has changed something: then the next one comes soon, to see what became of it.
	Round  func(ctx context.Context, why string) (acted bool)
	Feeds  []Feed
	Reload <-chan os.Signal // each is a reason, and a reload to whoever is notified
	Notify *Notifier        // told of each step; nil: nobody is
}

// settle is how long after a reason a round begins: a client that replaces one file
// of a pair also replaces the other, and one round is enough for both. After each round
// that came to nothing it is twice as long, up to longestSettle, until a round changes
// something or there was no reason for that long: a front that writes without end is
// not listened to without end.
const (
	settle        = 200 * time.Millisecond
	longestSettle = 15 * time.Second
)

// seeAgain is how long after a round that has changed something the next one comes: on
// a busy host the front may react to the change later than that round waited for.
const seeAgain = 10 * time.Second

// Run has a round done at once, then whenever a feed has a reason, and at least
// every o.Every, until ctx ends; the round that is under way then is waited for.
// Reasons that come during a round are one reason for the next.
func Run(ctx context.Context, o Options) {
	feeds, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	reasons := make(chan string, 1)
	tell := func(why string) {
		select {
		case reasons <- why:
		default: // there is one already
		}
	}
	for _, feed := range append([]Feed{o.reloads}, o.Feeds...) {
		running.Go(func() { feed(feeds, tell) })
	}
	dog, release := o.Notify.watchdog()
	defer release()
	pause := settle
	for why := "it starts"; ; {
		acted := o.round(ctx, why, dog)
		if why, pause = o.wait(ctx, acted, pause, reasons, dog); why == "" {
			o.Notify.Stopping()
			return
		}
	}
}

// reloads is the feed of those who ask for a reload.
func (o Options) reloads(ctx context.Context, tell func(why string)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.Reload:
			o.Notify.Reloading()
			tell("it was asked to reload")
		}
	}
}

// round does one round, and feeds the watchdog as long as it may take.
func (o Options) round(ctx context.Context, why string, dog <-chan time.Time) (acted bool) {
	defer o.Notify.Round(why)()
	done := make(chan struct{})
	go func() {
		defer close(done)
		acted = o.Round(ctx, why)
	}()
	for began := time.Now(); ; {
		select {
		case <-done:
			return acted
		case <-dog:
			if o.Limit == 0 || time.Since(began) < o.Limit {
				o.Notify.Alive()
			}
		}
	}
}

// wait returns the next reason, after a pause in which more of the same may come, "" at
// the end; and how long the pause after the one that follows is.
func (o Options) wait(ctx context.Context, acted bool, pause time.Duration, reasons <-chan string, dog <-chan time.Time) (why string, next time.Duration) {
	var paused <-chan time.Time
	ended := time.Now()
	longest := o.Every - rand.N(o.Every/10+1)
	if acted {
		longest = min(longest, seeAgain)
	}
	period := time.NewTimer(longest)
	defer period.Stop()
	for {
		select {
		case <-ctx.Done():
			return "", 0
		case <-period.C:
			return "it is time", settle
		case more := <-reasons:
			if paused != nil {
				continue
			}
			if acted || time.Since(ended) >= longestSettle {
				pause = settle
			}
			why, paused = more, time.After(pause)
		case <-paused:
			return why, min(2*pause, longestSettle)
		case <-dog:
			o.Notify.Alive()
		}
	}
}

// Retried is a feed that follows what follow tells of. When that breaks off, it is
// begun again, after a second at first and after a minute at most.
func Retried(follow func(ctx context.Context, tell func(why string)) error) Feed {
	return func(ctx context.Context, tell func(why string)) {
		const shortest, longest = time.Second, time.Minute
		for pause := shortest; ; pause = min(2*pause, longest) {
			began := time.Now()
			_ = follow(ctx, tell) // the next round says what is wrong with it
			if time.Since(began) > longest {
				pause = shortest
			}
			if wait.For(ctx, pause) != nil {
				return
			}
		}
	}
}
