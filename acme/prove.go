package acme

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	lego "github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/challenge"

	"mailu-hook/internal/say"
)

// Solver answers challenges of one type. HTTP, ALPN and DNSProvider make one.
type Solver interface {
	// kind is the challenge type.
	kind() challenge.Type
	// present publishes the response.
	present(ctx context.Context, a answerTo) error
	// check is the self-check: it looks for the response as the CA will, as far as
	// this host can.
	check(ctx context.Context, a answerTo) error
	// cleanUp removes the response. It is called once for each call of present,
	// including one that failed.
	cleanUp(ctx context.Context, a answerTo) error
	// width is how many responses may be published at once.
	width() int
}

// answerTo is the response that a challenge expects.
type answerTo struct {
	name    string // the identifier of the authorization
	token   string
	keyAuth string // RFC 8555, section 8.1
	core    *api.Core
}

const (
	width        = 8                // requests to a CA at once
	cleanUpLimit = 20 * time.Second // even if the run has timed out
)

var base64url = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9_-]{1,200}$`)
})

// unproved holds the names that failed validation, each with the reason.
type unproved map[string]error

const shownReasons = 4 // the others are usually the same

func (u unproved) Error() string {
	var text []string
	for i, reason := range u.Unwrap() {
		if i == shownReasons {
			text = append(text, fmt.Sprintf("and %d more names", len(u)-i))
			break
		}
		text = append(text, reason.Error())
	}
	return strings.Join(text, "; ")
}

// Unwrap returns the reasons, sorted by name.
func (u unproved) Unwrap() []error {
	var reasons []error
	for _, name := range slices.Sorted(maps.Keys(u)) {
		reasons = append(reasons, u[name])
	}
	return reasons
}

// soFar adds to err, which ended a run, what the CA had said of names by then.
func (u unproved) soFar(err error) error {
	for _, reason := range u.Unwrap() {
		var said *Problem
		if errors.As(reason, &said) {
			return say.Hint(fmt.Errorf("%w; so far %w", err, said), "%s", said.Hint())
		}
	}
	return err
}

// dropped returns the names to continue without, if want allows that: those whose
// own setup is wrong, unless the main one is among them or none would be left. If
// the CA was in trouble or limits requests, no name is dropped.
func dropped(err error, want Request) []string {
	var failed unproved
	if !want.Subset || !errors.As(err, &failed) {
		return nil
	}
	if _, main := failed[want.Names[0]]; main || len(failed) >= len(want.Names) {
		return nil
	}
	for name, reason := range failed {
		if !slices.Contains(want.Names, name) || !theNames(reason) {
			return nil
		}
	}
	return slices.Sorted(maps.Keys(failed))
}

// theNames reports whether validation failed because of how the name is set up, and
// not because of the CA or the connection to it.
func theNames(reason error) bool {
	var problem *Problem
	var free local
	if errors.As(reason, &problem) {
		return problem.Status == 0
	}
	return errors.As(reason, &free)
}

// prove answers a challenge for each name that is not valid already. When it returns,
// all responses are removed; after success the order can be finalized. The error is
// an unproved, or about the order itself.
func (c *Client) prove(o *order, s Solver) error {
	if o.Status != lego.StatusPending {
		return nil // by an earlier run
	}
	failed, left := unproved{}, slices.Clone(o.Names)
	var mu sync.Mutex
	each(o.Authorizations, min(width, s.width()), func(url string) {
		a, err := c.core.Authorizations.Get(url)
		name := challenge.GetTargetedDomain(a)
		mu.Lock()
		ordered := slices.Index(left, CanonicalNames([]string{name})[0])
		if err == nil && ordered >= 0 {
			left = slices.Delete(left, ordered, ordered+1)
		}
		mu.Unlock()
		switch {
		case err != nil:
			name, err = url, c.explain(err, "fetching an authorization", "")
		case ordered < 0: // the solver would publish something under a foreign name
			name, err = url, fmt.Errorf("the CA sent an authorization for %s, which was not ordered", say.Foreign(name))
		default:
			err = c.proveOne(url, a, s)
		}
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			failed[name] = err
		}
	})
	if c.ctx.Err() != nil {
		return failed.soFar(c.stopped("validating the names"))
	}
	if len(failed) > 0 {
		return failed
	}
	got, err := c.core.Orders.Get(o.URL)
	if err != nil {
		return c.explain(err, "fetching the order", "")
	}
	o.Order = got.Order
	return nil
}

func each(urls []string, width int, work func(string)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, width)
	for _, url := range urls {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			work(url)
		})
	}
	wg.Wait()
}

// proveOne publishes the response to one challenge, checks that it is visible, asks
// the CA to validate, and removes the response.
func (c *Client) proveOne(url string, a lego.Authorization, s Solver) (err error) {
	name := challenge.GetTargetedDomain(a)
	switch a.Status {
	case lego.StatusValid:
		c.progress("%s: already valid", name)
		return nil
	case lego.StatusPending:
	default:
		return c.verdict(a, name)
	}
	i := slices.IndexFunc(a.Challenges, func(ch lego.Challenge) bool { return ch.Type == string(s.kind()) })
	if i < 0 {
		return say.Hint(fmt.Errorf("%s: the CA offers no %s challenge", name, s.kind()), "choose another with --challenge")
	}
	if !base64url().MatchString(a.Challenges[i].Token) { // RFC 8555, section 8.3; it becomes a file name
		return fmt.Errorf("%s: the CA sent an invalid token: %s", name, say.Foreign(a.Challenges[i].Token))
	}
	answer := answerTo{name: a.Identifier.Value, token: a.Challenges[i].Token, core: c.core}
	if answer.keyAuth, err = c.core.GetKeyAuthorization(answer.token); err != nil {
		return fmt.Errorf("%s: computing the challenge response: %v", name, err)
	}
	c.progress("%s: publishing the %s response", name, s.kind())
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), cleanUpLimit)
		defer cancel()
		if cerr := s.cleanUp(ctx, answer); cerr != nil {
			c.o.Log.Warn("a challenge response was left behind", "name", name, "error", cerr)
		}
	}()
	if err := s.present(c.ctx, answer); err != nil {
		return local{fmt.Errorf("%s: publishing the challenge response: %w", name, err)}
	}
	if err := s.check(c.ctx, answer); err != nil {
		return local{fmt.Errorf("%s: %w", name, err)}
	}
	c.progress("%s: asking the CA to validate", name)
	return c.validate(url, name, a.Challenges[i])
}

// validate asks the CA to validate and waits for the result. A CA may leave a
// challenge that it could not validate pending, with the reason, and look again only
// when it is asked to (RFC 8555, section 8.2): step-ca and Caddy do.
func (c *Client) validate(url, name string, ch lego.Challenge) error {
	if c.ctx.Err() != nil {
		return c.cause()
	}
	now, told := c.core.Challenges.New(ch.URL)
	done := now.Status == lego.StatusValid || now.Status == lego.StatusInvalid
	until := c.http.until(ch.URL) // an earlier Retry-After of the authorization was not about this validation
	looks, again := 1, time.Now().Add(c.look)
	var seen *Problem
	for wait := (pace{}); ; done = false {
		if told == nil && !done { // otherwise the CA may have received the request whose response was lost
			if err := wait.next(c.ctx, until); err != nil && seen != nil {
				return fmt.Errorf("%s: waiting for the CA to validate again: %w: %w", name, err, seen)
			} else if err != nil {
				return fmt.Errorf("%s: waiting for the CA to validate: %w", name, err)
			}
		}
		a, err := c.core.Authorizations.Get(url)
		until = c.http.until(url)
		switch {
		case err != nil:
			return c.explain(err, "fetching the result of the validation", name)
		case a.Status != lego.StatusPending:
			if a.Status == lego.StatusValid {
				c.progress("%s: valid", name)
			}
			return c.verdict(a, name)
		case told != nil:
			return c.explain(told, "asking the CA to validate", name)
		}
		reason := reasonOf(a, ch.URL, name)
		if reason == nil {
			continue
		}
		if seen == nil {
			c.progress("%s: %s; asking again", name, reason)
		}
		if seen = reason; time.Now().Before(again) {
			continue
		}
		if looks == mostLooks {
			return dead{fmt.Errorf("validating %s: %w", name, seen)}
		}
		_, told = c.core.Challenges.New(ch.URL)
		pause := c.look << looks
		if looks, wait = looks+1, (pace{}); looks == mostLooks {
			pause = c.look
		}
		again = time.Now().Add(pause)
	}
}

const (
	firstLook = 2 * time.Second
	mostLooks = 4 // that a CA is asked for
)

// reasonOf is why the CA could not validate a challenge that it left pending.
func reasonOf(a lego.Authorization, url, name string) *Problem {
	for _, ch := range a.Challenges {
		if ch.URL == url && ch.Error != nil {
			return problemOf(ch.Error, name)
		}
	}
	return nil
}

// verdict is the result of an authorization that is no longer pending.
func (c *Client) verdict(a lego.Authorization, name string) error {
	if a.Status == lego.StatusValid {
		return nil
	}
	for _, ch := range a.Challenges {
		if ch.Error != nil {
			return dead{fmt.Errorf("validating %s: %w", name, problemOf(ch.Error, name))}
		}
	}
	return dead{fmt.Errorf("validating %s: the CA says it is %s and gives no reason", name, say.Plain(a.Status))}
}
