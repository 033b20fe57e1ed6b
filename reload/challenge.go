package reload

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
	"mailu-hook/internal/wait"
)

const (
	overrideName = "mailu-hook-acme.conf"
	halfName     = overrideName + ".tmp" // nginx includes *.conf only
	tokensName   = "mailu-hook-acme"     // a directory that earlier versions left

	challengeLimit = 10 * time.Second // until the front shows an answer
	challengePause = 50 * time.Millisecond
	showLimit      = 3 * time.Second // one question to the front
	forgottenAfter = time.Hour       // longer than any run answers challenges
)

// override is what nginx includes while challenges are answered. The server that
// includes it listens on 443, and on 80 with TLS_FLAVOR=mail; otherwise port 80
// redirects there, and CAs follow (RFC 8555, section 8.3).
//
// Each answer has a location of its own that matches exactly. Such a location wins
// over every prefix, and nginx does not mind it beside one: a second prefix for
// /.well-known/acme-challenge/, as an administrator may have one, is a duplicate with
// which nginx does not even start. So what a killed run leaves here harms nobody.
func override(answers map[string]string) string {
	var s strings.Builder
	s.WriteString("# Made by mailu-hook while ACME challenges are answered, and removed afterwards.\n")
	for _, token := range slices.Sorted(maps.Keys(answers)) {
		fmt.Fprintf(&s, "location = %s%s {\n    default_type text/plain;\n    return 200 \"%s\";\n}\n", challengePath, token, answers[token])
	}
	return s.String()
}

const challengePath = "/.well-known/acme-challenge/"

// plainAnswer has no character that means something to nginx.
var plainAnswer = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9_.-]{1,512}$`)
})

// Challenges lets the fronts of a group answer http-01 challenges, while they keep
// serving on all their ports. Its methods may be called at the same time.
type Challenges struct {
	fronts Group

	mu      sync.Mutex
	answers map[string]string // by token
	changes int               // of answers

	loading sync.Mutex
	loaded  int   // how many changes the fronts had been told of
	loadErr error // how telling them of those ended
}

// ServeChallenges makes ready to answer challenges: it lets all fronts show an
// answer that nobody but us asks for. The caller closes the Challenges. After an
// error, nothing is left; it is a *mailu.Refusal if nginx does not accept the
// override. After a crash, ForgetChallenges removes what is there, which does no harm
// meanwhile.
func (g Group) ServeChallenges(ctx context.Context) (*Challenges, error) {
	for _, f := range g {
		if f.hidden != "" {
			return nil, say.Hint(fmt.Errorf("this container does not see %s, where %s has its overrides, so it cannot answer challenges", f.hidden, f.Container),
				"%s, or choose another --challenge", mountHere(f.hidden))
		}
		if f.overrides == "" {
			return nil, say.Hint(fmt.Errorf("nothing is mounted at %s in %s, so it cannot answer challenges", overridesPoint, f.Container),
				"mount ROOT/overrides/nginx there as Mailu's compose file does, or choose another --challenge")
		}
	}
	c := &Challenges{fronts: g, answers: map[string]string{}}
	token := "mailu-hook-" + rand.Text()
	c.answers[token] = token
	err := c.place(c.answers)
	if err == nil { // at once: a front that restarts must not meet what nginx refuses
		err = g.each(func(f *Front) error { return f.takesOverride(ctx) })
	}
	if err == nil {
		err = g.each(func(f *Front) error { return f.loadAnswer(ctx, token, token) })
	}
	delete(c.answers, token)
	if err != nil {
		cleanUp, cancel := context.WithTimeout(context.WithoutCancel(ctx), challengeLimit)
		defer cancel()
		return nil, errors.Join(err, g.ForgetChallenges(cleanUp))
	}
	return c, nil
}

// takesOverride returns a *mailu.Refusal if nginx would not load its configuration.
// That it could not be asked is no refusal.
func (f *Front) takesOverride(ctx context.Context) error {
	var refusal *mailu.Refusal
	if err := f.verdict(ctx, "nginx", "-t", "-q"); errors.As(err, &refusal) {
		return say.Hint(refusal, "fix what nginx complains about (usually another file in ROOT/overrides), or choose another --challenge")
	}
	return nil
}

// Present makes all fronts show the answer to a token, and returns once they do.
// Answers that are presented at the same time are loaded together.
func (c *Challenges) Present(ctx context.Context, token, keyAuth string) error {
	if !plainAnswer().MatchString(token) || !plainAnswer().MatchString(keyAuth) {
		return fmt.Errorf("the token %s cannot be shown", say.Foreign(token))
	}
	c.mu.Lock()
	c.answers[token] = keyAuth
	c.changes++
	change := c.changes
	c.mu.Unlock()

	c.loading.Lock()
	defer c.loading.Unlock()
	if c.loaded < change {
		c.mu.Lock()
		answers, changes := maps.Clone(c.answers), c.changes
		c.mu.Unlock()
		c.loaded, c.loadErr = changes, c.load(ctx, answers, token)
	}
	return c.loadErr
}

// load makes all fronts load the answers. They are loaded at once, so that one of
// them is seen means that all can be.
func (c *Challenges) load(ctx context.Context, answers map[string]string, token string) error {
	if err := c.place(answers); err != nil {
		return err
	}
	return c.fronts.each(func(f *Front) error { return f.loadAnswer(ctx, token, answers[token]) })
}

// CleanUp forgets an answer. The fronts show it until another is loaded, or the
// Challenges are closed.
func (c *Challenges) CleanUp(_ context.Context, token string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.answers, token)
	return nil
}

// Close removes the override, and reloads nginx.
func (c *Challenges) Close(ctx context.Context) error { return c.fronts.ForgetChallenges(ctx) }

// place writes the override of each front. It gets its name when it is whole.
func (c *Challenges) place(answers map[string]string) error {
	for _, f := range c.fronts {
		root, err := os.OpenRoot(f.overrides)
		if err != nil {
			return fmt.Errorf("opening the overrides of %s: %w", f.Container, err)
		}
		err = writeWhole(root, override(answers))
		root.Close()
		if err != nil {
			return fmt.Errorf("writing %s: %w", filepath.Join(f.overrides, overrideName), err)
		}
	}
	return nil
}

func writeWhole(root *os.Root, content string) error {
	_ = root.Remove(halfName) // of a run that was killed
	w, err := root.OpenFile(halfName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = w.WriteString(content)
	if err == nil {
		err = w.Chmod(0o644) // whatever the umask: the front's root may not be ours
	}
	if err == nil {
		err = w.Sync()
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = root.Rename(halfName, overrideName)
	}
	if err != nil {
		_ = root.Remove(halfName)
	}
	return err
}

// ForgetChallenges removes what ServeChallenges left in the overrides of all fronts,
// of this run or of a killed one, and reloads the nginx of those that run.
func (g Group) ForgetChallenges(ctx context.Context) error {
	return g.each(func(f *Front) error { return f.forgetChallenges(ctx, func(fs.FileInfo) bool { return true }) })
}

// ForgetOldChallenges removes what a run left that was killed an hour ago or longer,
// so that a run that is answering challenges right now is not disturbed.
func (g Group) ForgetOldChallenges(ctx context.Context) error {
	return g.each(func(f *Front) error { return f.forgetChallenges(ctx, forgotten) })
}

func forgotten(info fs.FileInfo) bool { return time.Since(info.ModTime()) > forgottenAfter }

// OldChallenge is a file that ForgetOldChallenges would remove, "" if there is none.
func (f *Front) OldChallenge() string {
	if f.overrides == "" {
		return ""
	}
	file := filepath.Join(f.overrides, overrideName)
	if info, err := os.Lstat(file); err != nil || !forgotten(info) {
		return ""
	}
	return file
}

func (f *Front) forgetChallenges(ctx context.Context, old func(fs.FileInfo) bool) error {
	root, err := os.OpenRoot(f.overrides)
	if f.overrides == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the overrides of %s: %w", f.Container, err)
	}
	defer root.Close()
	left := false
	for _, name := range []string{overrideName, halfName, tokensName} {
		info, err := root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && !old(info) {
			return nil
		}
		if err == nil {
			err = root.RemoveAll(name)
		}
		if err != nil {
			return fmt.Errorf("removing %s: %w", filepath.Join(f.overrides, name), err)
		}
		left = left || name == overrideName
	}
	if runs, _ := f.Running(ctx); !left || f.stopped() || !runs {
		return nil
	}
	procs, err := f.in.processes(ctx)
	if err != nil {
		return err
	}
	nginx, ok := master(procs, "nginx")
	if !ok {
		return nil // it is about to start
	}
	retiring := workers(procs)
	if err := f.in.hangUp(ctx, nginx); err != nil {
		return err
	}
	_ = f.awaitRetired(ctx, retiring) // nginx may object to something else, and keep them
	return nil
}

// loadAnswer makes nginx load the override, and returns once the front shows the
// answer and no worker is left that does not.
func (f *Front) loadAnswer(ctx context.Context, token, answer string) error {
	old, err := f.hangUpNginx(ctx)
	if err != nil {
		return err
	}
	if err := f.awaitAnswer(ctx, token, answer); err != nil {
		return err
	}
	return f.awaitRetired(ctx, old)
}

// hangUpNginx makes nginx load its configuration, and returns the workers that have
// the old one.
func (f *Front) hangUpNginx(ctx context.Context) (old []int, err error) {
	procs, err := f.started(ctx)
	if err != nil {
		return nil, err
	}
	nginx, _ := master(procs, "nginx")
	return workers(procs), f.in.hangUp(ctx, nginx)
}

// workers returns the pids, as seen inside, of nginx's workers that accept
// connections. One that is shutting down has closed its sockets, and says so in its
// title; one that has just started has no title of its own yet.
func workers(procs []process) (pids []int) {
	nginx, _ := master(procs, "nginx")
	for _, p := range procs {
		if p.name == nginx.name && p.parent == nginx.inside && !strings.Contains(strings.Join(p.args, " "), "shutting down") {
			pids = append(pids, p.inside)
		}
	}
	return pids
}

const retireLimit = 5 * time.Second

// awaitRetired waits until the old workers accept no more connections. For a moment
// both they and the new ones do, and it is chance which of them a client meets.
func (f *Front) awaitRetired(ctx context.Context, old []int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, retireLimit, errors.New("not within "+retireLimit.String()))
	defer cancel()
	for {
		procs, err := f.in.processes(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(workers(procs), func(pid int) bool { return slices.Contains(old, pid) }) {
			return nil
		}
		if err := wait.For(ctx, challengePause); err != nil {
			return fmt.Errorf("waiting for nginx in %s to retire its old workers: %w", f.Container, err)
		}
	}
}

func (f *Front) awaitAnswer(ctx context.Context, token, answer string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, challengeLimit, errors.New("not within "+challengeLimit.String()))
	defer cancel()
	for {
		err := f.shows(ctx, token, answer)
		if err == nil {
			return nil
		}
		if wait.For(ctx, challengePause) != nil {
			return f.unshown(context.WithoutCancel(ctx), err)
		}
	}
}

// unshown explains why the front does not show an answer.
func (f *Front) unshown(ctx context.Context, err error) error {
	if refusal := f.takesOverride(ctx); refusal != nil {
		return refusal
	}
	return say.Hint(fmt.Errorf("%s does not show the answer to a challenge: %w", f.Container, err),
		"is TLS up in the front (docker logs %s), and port 80 listed in PORTS? Otherwise choose another --challenge", f.Container)
}

// shows asks the front itself for the answer to token, as a CA would.
func (f *Front) shows(ctx context.Context, token, answer string) error {
	transport := &http.Transport{
		DialContext:       f.dialHTTP,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}
	client := &http.Client{Transport: transport, Timeout: showLimit}
	url := "http://" + cmp.Or(f.Target().ServerName, "localhost") + challengePath + token
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return errors.New(say.Plain(err.Error()))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(len(answer))+1))
	if err != nil {
		return err
	}
	if string(body) != answer {
		return fmt.Errorf("%s says %s", say.Plain(response.Request.URL.Redacted()), response.Status)
	}
	return nil
}

// dialHTTP connects to a port of the front, whatever the host name.
func (f *Front) dialHTTP(ctx context.Context, _, addr string) (net.Conn, error) {
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	return f.Target().Dial(ctx, mailu.Port{Number: port, Proxy: mailu.Proxied(f.proxy, port)})
}
