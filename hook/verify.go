package hook

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"mailu-hook/internal/front"
	"mailu-hook/internal/say"
)

// verify waits until the ports serve the new leaf, lets the front settle, and
// looks once more, because settling reloads the daemons again.
//
// A port that served no TLS before the deploy is reported and not counted, as
// long as another did: it may be closed to this host, or its daemon may be
// broken for reasons of its own. When no port did, the front was starting or
// had no certificate, and then all count.
func (d *deploy) verify(ctx context.Context) error {
	want := d.b.Fingerprint()
	d.step(Verify)
	if err := d.await(ctx, want); err != nil {
		return err
	}
	if err := d.judge(ctx, want); err != nil {
		return err
	}
	d.r.Served = time.Since(d.began)
	d.step(Settle)
	ctx = context.WithoutCancel(ctx) // the front is half-way: Settle has a bound of its own
	settleErr := d.f.Settle(ctx)
	d.r.Endpoints = d.f.Look(ctx)
	if err := d.judge(ctx, want); err != nil {
		return err
	}
	if settleErr != nil {
		return fmt.Errorf("every port serves the new certificate, but the front did not settle: %w", settleErr)
	}
	for _, e := range d.r.Endpoints {
		if e.Leaf != want {
			d.warn("port %d (%s) served no TLS before and serves none now: %v", e.Number, e.Protocol, e.Err)
		}
	}
	return nil
}

const patience = 2 * time.Second // with ports that do not follow, before their daemon is asked why

// await asks the ports until all that count show the new leaf, the time is up,
// or a daemon says that it will not load it.
func (d *deploy) await(ctx context.Context, want string) error {
	done := func(e front.Endpoint) bool { return e.Leaf == want || !d.counts(e) }
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d.r.Endpoints = d.f.Await(soon, done)
	for _, e := range d.r.Endpoints {
		if !done(e) {
			var refusal *front.Refusal
			if err := d.f.Explain(ctx); errors.As(err, &refusal) {
				return err
			}
			d.r.Endpoints = d.f.Await(ctx, done)
			break
		}
	}
	return nil
}

// verifyOld waits until each port that served TLS before the deploy serves the
// old pair again, or what it served before.
func (d *deploy) verifyOld(ctx context.Context) error {
	good := func(e front.Endpoint) bool {
		was := d.was(e.Number)
		return !was.Answers() || e.Leaf == d.prevLeaf || e.Leaf == was.Leaf
	}
	d.r.Endpoints = d.f.Await(ctx, good)
	if err := d.f.Settle(ctx); err != nil {
		d.warn("the front did not settle: %v", err)
	}
	d.r.Endpoints = d.f.Look(ctx)
	var wrong []string
	for _, e := range d.r.Endpoints {
		if !good(e) {
			wrong = append(wrong, describe(e))
		}
	}
	if wrong != nil {
		return fmt.Errorf("the old certificate is not served by %s", strings.Join(wrong, ", "))
	}
	return nil
}

func (d *deploy) was(port int) front.Endpoint {
	for _, e := range d.before.ports {
		if e.Number == port {
			return e
		}
	}
	return front.Endpoint{}
}

// counts tells whether the deploy depends on a port's answer.
func (d *deploy) counts(e front.Endpoint) bool {
	return d.was(e.Number).Answers() || !front.AnyAnswers(d.before.ports)
}

// judge says whether the answers in d.r.Endpoints prove the deploy. It returns
// a *front.Refusal when the front answered, and answered wrongly.
func (d *deploy) judge(ctx context.Context, want string) error {
	var wrong []string
	regressed := false
	for _, e := range d.r.Endpoints {
		if e.Leaf != want && d.counts(e) {
			wrong = append(wrong, describe(e))
			regressed = regressed || d.was(e.Number).Answers()
		}
	}
	if wrong == nil {
		return nil
	}
	if !front.AnyAnswers(d.r.Endpoints) && !d.f.Running(context.WithoutCancel(ctx)) {
		return say.Hint(errors.New("the front stopped running during the deploy"), "start it: it will load the new certificate; look at its log for why it stopped")
	}
	err := fmt.Errorf("the new certificate is not served by %s", strings.Join(wrong, ", "))
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		err = fmt.Errorf("interrupted before every port was seen with the new certificate: %w", err)
	}
	if regressed {
		return &front.Refusal{Err: err}
	}
	return err
}

func describe(e front.Endpoint) string {
	if e.Answers() {
		return fmt.Sprintf("port %d (%s, shows leaf %.8s)", e.Number, e.Protocol, e.Leaf)
	}
	return fmt.Sprintf("port %d (%s: %v)", e.Number, e.Protocol, e.Err)
}
