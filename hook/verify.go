package hook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

// verify waits until the ports serve the new leaf, lets the front settle, and
// looks once more, because settling reloads the daemons again.
//
// A port that served no TLS before the deploy is reported and not counted, as
// long as another of its front did: it may be closed to this host, or its daemon may be
// broken for reasons of its own. One that took the connection and then hung is no
// such port: it speaks TLS once its daemon works again. When no port did, the front was starting or
// had no certificate, and then all count.
func (d *deploy) verify(ctx context.Context) error {
	want := d.b.Fingerprint()
	d.step(StepVerify)
	if err := d.prove(ctx, want); err != nil {
		return err
	}
	d.r.Served = time.Since(d.began)
	d.step(StepSettle)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin) // a front that is half-way is not left like that
	defer cancel()
	settleErr := d.f.Settle(ctx, d.s.Switched())
	d.settled = true
	if err := d.prove(ctx, want); err != nil {
		return err
	}
	if settleErr != nil {
		return untold{fmt.Errorf("%w: %w", ErrUnsettled, settleErr)}
	}
	for _, e := range d.r.Endpoints {
		if e.Leaf != want {
			d.warn("%v served no TLS before and serves none now: %v", e.Port, e.Err)
		}
	}
	return nil
}

const (
	explainAfter     = 2 * time.Second  // with ports that do not follow a reload, before their daemon is asked why
	reloadAgainAfter = 13 * time.Second // with a daemon that has no reason, before it is told once more
	settleWithin     = 30 * time.Second // for settling and the look after it; Settle has a limit of its own
)

// prove waits for the ports that count, and judges their answers.
func (d *deploy) prove(ctx context.Context, want string) error {
	err := d.await(ctx, func(e mailu.Endpoint) bool { return e.Leaf == want || !d.counts(e) })
	if err != nil {
		return err
	}
	return d.judge(ctx, want)
}

// await asks the ports until done accepts each answer, the time is up, or a
// daemon says that it will not load what is installed. Ports that say they have
// no TLS are those of a front that was configured without it, when its pair was
// missing; its watcher, which was paused, configures it anew when it settles. A
// daemon that says nothing and does not follow is told again, but not soon: the
// killall of the front's own configuration run can hit a child of dovecot's
// master, which then waits ten seconds for it and leaves that service alone for
// two. Telling it meanwhile would make it wait once more.
func (d *deploy) await(ctx context.Context, done func(mailu.Endpoint) bool) error {
	followed := func(wait time.Duration) bool {
		soon, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		d.r.Endpoints = d.f.Await(soon, done)
		return !slices.ContainsFunc(d.r.Endpoints, func(e mailu.Endpoint) bool { return !done(e) }) || ctx.Err() != nil
	}
	if followed(explainAfter) {
		return nil
	}
	var refusal *mailu.Refusal
	if err := d.f.Explain(ctx); errors.As(err, &refusal) {
		return err
	}
	if !slices.ContainsFunc(d.r.Endpoints, func(e mailu.Endpoint) bool { return errors.Is(e.Err, mailu.ErrSilent) }) {
		_ = d.f.Settle(ctx, d.s.Switched()) // the ports decide
	}
	if followed(reloadAgainAfter) {
		return nil
	}
	_ = d.f.Reload(ctx, done) // where nobody can be told, the ports may follow anyway
	d.r.Endpoints = d.f.Await(ctx, done)
	return nil
}

// verifyOld waits until each port serves the old pair again, or what it served
// before, including nothing.
func (d *deploy) verifyOld(ctx context.Context) (wrong []mailu.Endpoint, err error) {
	_ = d.await(ctx, d.isOld) // whatever a daemon says of the old pair, the ports decide
	if err := d.f.Settle(ctx, d.s.Switched()); err != nil {
		d.warn("the front has not settled: %v", err)
	}
	d.settled = true
	if ctx.Err() == nil {
		_ = d.await(ctx, d.isOld) // settling has reloaded the daemons
	}
	for _, e := range d.r.Endpoints {
		if !d.isOld(e) {
			wrong = append(wrong, e)
		}
	}
	if wrong != nil {
		err = fmt.Errorf("the old certificate is not served by %s", describe(wrong))
	}
	return wrong, err
}

// isOld reports whether a port shows the old pair, or what it showed before.
func (d *deploy) isOld(e mailu.Endpoint) bool {
	return e.Leaf == d.prevLeaf || e.Leaf == d.was(e.Port).Leaf
}

func (d *deploy) was(port mailu.Port) mailu.Endpoint {
	for _, e := range d.before.ports {
		if e.Port == port {
			return e
		}
	}
	return mailu.Endpoint{}
}

// counts reports whether the deploy depends on a port's answer.
func (d *deploy) counts(e mailu.Endpoint) bool {
	was := d.was(e.Port)
	return was.Answers() || errors.Is(was.Err, mailu.ErrSilent) || !mailu.AnyAnswers(mailu.OfFront(d.before.ports, e.Of))
}

// judge says whether the answers in d.r.Endpoints prove the deploy. It returns
// a *mailu.Refusal when the front answered, and answered wrongly.
func (d *deploy) judge(ctx context.Context, want string) error {
	var wrong []mailu.Endpoint
	regressed := false
	for _, e := range d.r.Endpoints {
		if e.Leaf != want && d.counts(e) {
			wrong = append(wrong, e)
			regressed = regressed || d.was(e.Port).Answers()
		}
	}
	if wrong == nil {
		return nil
	}
	if gone := d.gone(ctx, wrong); errors.Is(gone, errGone) {
		return untold{say.Hint(gone, "start it: it will load the new certificate; its log says why it stopped")}
	} else if gone != nil {
		return untold{gone}
	}
	err := fmt.Errorf("the new certificate is not served by %s", describe(wrong))
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		err = fmt.Errorf("interrupted before every port was seen with the new certificate: %w", err)
	}
	switch {
	case regressed:
		return &mailu.Refusal{Err: err}
	case !mailu.AnyAnswers(d.before.ports) && !mailu.AnyAnswers(d.r.Endpoints):
		return say.Hint(err, "no port answers from here: run mailu-hook on the front's host or in its network, let the firewall pass, and see docker logs of the front; sync then finishes it")
	}
	return err
}

var errGone = errors.New("the front stopped running during the deploy")

// gone returns why ports that are wrong are no verdict on the certificate: none of the
// ports of their containers answers, and these do not run any more, or the engine does
// not say that they do. nil means that there are none, or that one of their containers
// answers, or that it runs and is silent.
func (d *deploy) gone(ctx context.Context, wrong []mailu.Endpoint) (err error) {
	asked := map[string]bool{}
	for _, e := range wrong {
		if mailu.AnyAnswers(mailu.OfFront(d.r.Endpoints, e.Of)) {
			return nil
		}
		if asked[e.Of] {
			continue
		}
		asked[e.Of] = true
		runs, unknown := d.f.Running(context.WithoutCancel(ctx), e.Of)
		switch {
		case unknown != nil:
			err = cmp.Or(err, fmt.Errorf("no port answers, and whether the front runs is not known: %w", unknown))
		case runs:
			return nil
		case e.Of != "":
			err = fmt.Errorf("%s: %w", say.Plain(e.Of), errGone)
		default:
			err = errGone
		}
	}
	return err
}

// describe lists ports with what they show.
func describe(ports []mailu.Endpoint) string {
	var all []string
	for _, e := range ports {
		where, shows := fmt.Sprintf("port %d", e.Number), fmt.Sprintf(": %v", e.Err)
		if e.Of != "" {
			where += " of " + e.Of
		}
		if e.Answers() {
			shows = fmt.Sprintf(", shows leaf %.8s", e.Leaf)
		}
		all = append(all, fmt.Sprintf("%s (%s%s)", where, e.Protocol, shows))
	}
	return strings.Join(all, ", ")
}
