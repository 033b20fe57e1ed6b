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

// Solver answers challenges of one type where the CA will look for the answers.
// Make one with HTTP, Standalone, TLSALPN or DNSProvider.
type Solver interface {
	// kind is the type of challenge that it answers.
	kind() challenge.Type
	// present shows the answer.
	present(ctx context.Context, a answerTo) error
	// check tells whether the answer can be seen, as far as this host can tell.
	check(ctx context.Context, a answerTo) error
	// cleanUp takes the answer away. It is called once for each call of present,
	// also for one that failed.
	cleanUp(ctx context.Context, a answerTo) error
	// width is how many answers may be shown at one time.
	width() int
}

// answerTo is what a challenge wants to see.
type answerTo struct {
	name    string // as the identifier of its authorization has it
	token   string
	keyAuth string // RFC 8555, section 8.1
	core    *api.Core
}

const (
	width        = 8                // questions to a CA at one time
	cleanUpLimit = 20 * time.Second // also after the time is up
)

var base64url = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9_-]{1,200}$`)
})

// unproved are the names that could not be proved, each with its reason.
type unproved map[string]error

const shownReasons = 4 // the others are most often the same

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

// provable returns the names to go on without, if want allows that: those that
// failed by themselves, unless the main one is among them or none is left. When
// the CA was in trouble or counts requests, no name is given up.
func provable(err error, want Request) []string {
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

// theNames tells whether a name was not proved because of how it is set up, and
// not because of the CA or the way to it.
func theNames(reason error) bool {
	var problem *Problem
	var free local
	if errors.As(reason, &problem) {
		return problem.Status == 0
	}
	return errors.As(reason, &free)
}

// prove answers a challenge for each name that the CA does not take for proved
// already. When it returns, nothing of the answers is left, and after nil the
// order can be finalized. The error is an unproved, or about the order itself.
func (c *Client) prove(o *order, s Solver) error {
	if o.Status != lego.StatusPending {
		return nil // an earlier run did
	}
	failed := unproved{}
	var mu sync.Mutex
	each(o.Authorizations, min(width, s.width()), func(url string) {
		a, err := c.core.Authorizations.Get(url)
		name := challenge.GetTargetedDomain(a)
		if err != nil {
			name, err = url, c.explain(err, "asking what is to be proved", "")
		} else {
			err = c.proveOne(url, a, s)
		}
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			failed[name] = err
		}
	})
	if c.ctx.Err() != nil {
		return c.stopped("proving the names")
	}
	if len(failed) > 0 {
		return failed
	}
	got, err := c.core.Orders.Get(o.URL)
	if err != nil {
		return c.explain(err, "asking for the order", "")
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

// proveOne shows the answer to one challenge, sees whether it can be seen, lets
// the CA look, and takes the answer away.
func (c *Client) proveOne(url string, a lego.Authorization, s Solver) (err error) {
	name := challenge.GetTargetedDomain(a)
	switch a.Status {
	case lego.StatusValid:
		c.progress("%s: proved before", name)
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
		return fmt.Errorf("%s: the CA sent a token that is none: %s", name, say.Foreign(a.Challenges[i].Token))
	}
	answer := answerTo{name: a.Identifier.Value, token: a.Challenges[i].Token, core: c.core}
	if answer.keyAuth, err = c.core.GetKeyAuthorization(answer.token); err != nil {
		return fmt.Errorf("%s: answering the challenge: %v", name, err)
	}
	c.progress("%s: showing the answer to %s", name, s.kind())
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), cleanUpLimit)
		defer cancel()
		if cerr := s.cleanUp(ctx, answer); cerr != nil {
			c.o.Log.Warn("an answer to a challenge was left behind", "name", name, "error", cerr)
		}
	}()
	if err := s.present(c.ctx, answer); err != nil {
		return local{fmt.Errorf("%s: showing the answer: %w", name, err)}
	}
	if err := s.check(c.ctx, answer); err != nil {
		return local{fmt.Errorf("%s: %w", name, err)}
	}
	c.progress("%s: letting the CA look", name)
	return c.validate(url, name, a.Challenges[i])
}

// validate tells the CA to look, and waits for its verdict.
func (c *Client) validate(url, name string, ch lego.Challenge) error {
	if c.ctx.Err() != nil {
		return c.cause()
	}
	_, told := c.core.Challenges.New(ch.URL)
	until := c.http.until(ch.URL) // what the authorization said before was not about this look
	for wait := (pace{}); ; {
		if told == nil { // else the CA may have taken the call whose answer was lost
			if err := wait.next(c.ctx, until); err != nil {
				return fmt.Errorf("%s: waiting for the CA to look: %w", name, err)
			}
		}
		a, err := c.core.Authorizations.Get(url)
		until = c.http.until(url)
		switch {
		case err != nil:
			return c.explain(err, "asking whether the CA has looked", name)
		case a.Status != lego.StatusPending:
			if a.Status == lego.StatusValid {
				c.progress("%s: proved", name)
			}
			return c.verdict(a, name)
		case told != nil:
			return c.explain(told, "telling the CA to look", name)
		}
	}
}

// verdict is what an authorization that is no longer pending says.
func (c *Client) verdict(a lego.Authorization, name string) error {
	if a.Status == lego.StatusValid {
		return nil
	}
	for _, ch := range a.Challenges {
		if ch.Error != nil {
			return dead{fmt.Errorf("proving %s: %w", name, problemOf(ch.Error, name))}
		}
	}
	return dead{fmt.Errorf("proving %s: the CA says that it is %s, and not why", name, say.Plain(a.Status))}
}
