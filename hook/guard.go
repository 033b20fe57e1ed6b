package hook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"mailu-hook/internal/say"
)

// Guard reports whether others are ready for a bundle: whether those who know this
// server by its key or its CA would still recognize it. It is asked once in a deploy,
// when the bundle is good and would be installed, and answers soon.
type Guard func(ctx context.Context, b *Bundle) Ruling

// Ruling is what a Guard says of a bundle.
type Ruling struct {
	// Objection is why the bundle must not be served yet, and what to do about it;
	// nil if nothing is known that speaks against it.
	Objection *Rejection
	// Doubt is why that could not be found out. It lets a bundle pass with a
	// warning, but not one that is held back already.
	Doubt *Rejection
	// Published reports whether others know this server by anything at all.
	Published bool
	// TTL is for how long others may go on by what the Guard was told.
	TTL      time.Duration
	Warnings []string
}

// Guarded is a bundle that a Guard held back, in State. It is installed once
// nothing speaks against it and every resolver can know.
type Guarded struct {
	Keys  string    `json:"keys"`           // SHA-256 over the public keys of its chain
	TTL   int64     `json:"ttl_seconds"`    // longest of any answer since
	Clear time.Time `json:"clear,omitzero"` // when nothing spoke against it for the first time
}

const longestTTL = 24 * 60 * 60 // seconds that caches heed, as a rule

// consult asks the guard, and returns why b is not to be installed now. A pair
// that is about to expire, or cannot be used, protects nobody: that is replaced,
// with a warning.
func (d *deploy) consult(ctx context.Context, old Pair) error {
	if d.o.Guard == nil || old.Holds(d.b) {
		return nil
	}
	d.step(StepConsult)
	ruling := d.o.Guard(ctx, d.b)
	d.published = ruling.Published
	d.r.Warnings = append(d.r.Warnings, ruling.Warnings...)
	state, _ := d.s.State() // one that is damaged holds nothing back
	held, guarded := ruling.weigh(d.b, state.Guarded, time.Now())
	switch {
	case held == nil && ruling.Doubt != nil:
		d.warn("%s", ruling.Doubt.Fact)
		return nil
	case held == nil:
		return nil
	case old.Leaf == nil || IsPlaceholder(old.Leaf):
		d.warn("installed anyway, because there is nothing else to serve: %s; %s", held.Fact, held.Remedy)
		return nil
	case time.Until(old.Leaf.NotAfter) < d.o.Grace:
		d.warn("installed anyway, because the current certificate expires at %s: %s; %s", say.Time(old.Leaf.NotAfter), held.Fact, held.Remedy)
		return nil
	}
	then := "; mailu-hook sync installs it once DANE allows"
	if d.b.Lineage == "" { // nothing that sync would find again
		then = "; then run this again"
	}
	held = &Rejection{File: d.b.CertFile, Fact: "held back: " + held.Fact, Remedy: held.Remedy + then, Leaf: d.b.Leaf()}
	if !d.o.DryRun {
		d.postpone(ctx, held, guarded)
	}
	return held
}

// weigh turns the ruling on b, and what is remembered of earlier ones, into what
// holds b back now, and what to remember of that.
func (r Ruling) weigh(b *Bundle, before *Guarded, now time.Time) (*Rejection, *Guarded) {
	g := Guarded{Keys: b.keys()}
	known := before != nil && before.Keys == g.Keys
	if known {
		g = *before
	}
	g.TTL = min(max(g.TTL, int64(r.TTL/time.Second)), longestTTL)
	switch {
	case r.Objection != nil:
		g.Clear = time.Time{}
		return r.Objection, &g
	case !known:
		return nil, nil
	case r.Doubt != nil:
		return r.Doubt, &g
	}
	if g.Clear.IsZero() || g.Clear.After(now) { // of a clock that was wrong
		g.Clear = now.UTC()
	}
	if until := g.until(); now.Before(until) {
		return &Rejection{
			Fact: fmt.Sprintf("the records have matched since %s, but resolvers may cache the old ones until %s",
				say.Time(g.Clear), say.Time(until)),
			Remedy: "wait until then",
		}, &g
	}
	return nil, nil
}

// until is when no resolver can still cache what held the bundle back. It is zero
// while that is still published.
func (g *Guarded) until() time.Time {
	if g.Clear.IsZero() {
		return time.Time{}
	}
	return g.Clear.Add(time.Duration(g.TTL+1) * time.Second).Truncate(time.Second)
}

// keys identifies a bundle for a Guard: a renewal that keeps the keys changes
// nothing.
func (b *Bundle) keys() string {
	sum := sha256.New()
	for _, c := range b.Chain {
		sum.Write(c.RawSubjectPublicKeyInfo)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// postpone remembers a deploy that is held back, so that sync finishes it. It is
// tried each time: that costs a question and touches nothing.
func (d *deploy) postpone(ctx context.Context, held *Rejection, g *Guarded) {
	d.note(ctx, func() {
		d.state.Guarded, d.state.RolledBackFrom = g, d.before.rolledBackFrom
		d.state.Pending.Reason = held.Fact
		d.state.Last = &Last{At: time.Now().UTC(), Outcome: OutcomeRejected, Lineage: d.b.Lineage, Generation: d.s.Live(), Error: held.Error()}
	})
	d.r.Next = g.until()
}
