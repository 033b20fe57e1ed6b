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
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
	"mailu-hook/internal/webroot"
)

const (
	overrideName = "mailu-hook-acme.conf"
	tokensName   = "mailu-hook-acme"

	// The server that includes it answers on 443, and on 80 with TLS_FLAVOR=mail;
	// else port 80 redirects there, and CAs follow (RFC 8555, section 8.3).
	override = `# Made by mailu-hook while an ACME challenge is answered, and removed after.
location ^~ /.well-known/acme-challenge/ {
    default_type text/plain;
    root ` + overridesPoint + "/" + tokensName + `;
}
`
	challengeLimit = 10 * time.Second // until the front shows a first answer
	challengePause = 50 * time.Millisecond
	showLimit      = 3 * time.Second // one question to the front
)

// Challenges lets the front answer http-01 challenges, while it keeps serving on
// all its ports.
type Challenges struct {
	*webroot.Root
	front *Front
}

// ServeChallenges puts an override and a directory of answers into the front's
// overrides, reloads nginx, and returns once the front shows an answer. The
// caller closes the Challenges. After an error, nothing is left; it is a
// *mailu.Refusal if nginx does not take the override. After a crash,
// ForgetChallenges removes what is there.
func (f *Front) ServeChallenges(ctx context.Context) (*Challenges, error) {
	if f.overrides == "" {
		return nil, say.Hint(fmt.Errorf("nothing is mounted at %s in %s, so it cannot answer challenges", overridesPoint, f.Container),
			"mount ROOT/overrides/nginx there as Mailu's compose file does, or choose another --challenge")
	}
	c, err := f.placeChallenges()
	var old []int
	if err == nil {
		old, err = f.hangUpNginx(ctx)
	}
	if err == nil {
		err = c.awaitFirst(ctx)
	}
	if err == nil {
		err = f.awaitRetired(ctx, old)
	}
	if err != nil {
		if c != nil {
			c.Root.Close()
		}
		cleanUp, cancel := context.WithTimeout(context.WithoutCancel(ctx), challengeLimit)
		defer cancel()
		return nil, errors.Join(err, f.ForgetChallenges(cleanUp))
	}
	return c, nil
}

// placeChallenges writes the files.
func (f *Front) placeChallenges() (*Challenges, error) {
	root, err := os.OpenRoot(f.overrides)
	if err != nil {
		return nil, fmt.Errorf("opening the overrides of %s: %w", f.Container, err)
	}
	defer root.Close()
	if err := root.Mkdir(tokensName, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making a directory for the answers to challenges: %w", err)
	}
	err = root.Chmod(tokensName, 0o755) // whatever the umask: nginx reads it as its own user
	if err == nil {
		err = root.WriteFile(overrideName, []byte(override), 0o644)
	}
	if err == nil {
		err = root.Chmod(overrideName, 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("writing %s: %w", filepath.Join(f.overrides, overrideName), err)
	}
	answers, err := webroot.Open(filepath.Join(f.overrides, tokensName))
	if err != nil {
		return nil, err
	}
	return &Challenges{answers, f}, nil
}

// Close takes the answers and the override away, and reloads nginx.
func (c *Challenges) Close(ctx context.Context) error {
	c.Root.Close()
	return c.front.ForgetChallenges(ctx)
}

// ForgetChallenges removes what ServeChallenges of this run or of a killed one
// left in the front's overrides, and reloads nginx if there was anything. A front
// that is gone meanwhile needs no reload.
func (f *Front) ForgetChallenges(ctx context.Context) error {
	root, err := os.OpenRoot(f.overrides)
	if f.overrides == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the overrides of %s: %w", f.Container, err)
	}
	defer root.Close()
	if _, err := root.Lstat(overrideName); errors.Is(err, fs.ErrNotExist) {
		return root.RemoveAll(tokensName)
	}
	err = root.Remove(overrideName)
	if err == nil {
		err = root.RemoveAll(tokensName)
	}
	if err != nil {
		return fmt.Errorf("removing the override for challenges: %w", err)
	}
	if !f.Running(ctx) {
		return nil
	}
	old, err := f.hangUpNginx(ctx)
	if err != nil {
		return err
	}
	_ = f.awaitRetired(ctx, old) // nginx may object to something else, and keep them
	return nil
}

// hangUpNginx makes nginx load its configuration anew, and returns the workers
// that have the old one.
func (f *Front) hangUpNginx(ctx context.Context) (old []int, err error) {
	procs, err := f.started(ctx)
	if err != nil {
		return nil, err
	}
	nginx, _ := master(procs, "nginx")
	return workers(procs), f.in.hangUp(ctx, nginx)
}

// workers are the pids inside of the workers of nginx that take connections. One
// that shuts down has closed its sockets, and says so in its title; one that has
// just begun has no title of its own yet.
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

// awaitRetired waits until the old workers take no more connections. For a moment
// both they and the new ones do, and it is chance who meets whom.
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
		if err := sleep(ctx, challengePause); err != nil {
			return fmt.Errorf("waiting for nginx in %s to retire its old workers: %w", f.Container, err)
		}
	}
}

// awaitFirst waits until the front shows an answer that nobody but us asks for.
func (c *Challenges) awaitFirst(ctx context.Context) error {
	token := "mailu-hook-" + rand.Text()
	if err := c.Present(ctx, token, token); err != nil {
		return err
	}
	defer func() { _ = c.CleanUp(ctx, token) }() // Close removes the directory
	ctx, cancel := context.WithTimeoutCause(ctx, challengeLimit, errors.New("not within "+challengeLimit.String()))
	defer cancel()
	for {
		err := c.front.shows(ctx, token)
		if err == nil {
			return nil
		}
		if sleep(ctx, challengePause) != nil {
			return c.front.unshown(context.WithoutCancel(ctx), err)
		}
	}
}

// unshown explains why the front does not show an answer.
func (f *Front) unshown(ctx context.Context, err error) error {
	var refusal *mailu.Refusal
	if verr := f.verdict(ctx, "nginx", "-t", "-q"); errors.As(verr, &refusal) {
		return say.Hint(refusal, "another override may answer /.well-known/acme-challenge/ already: remove that, or mend what nginx names, or choose another --challenge")
	}
	return say.Hint(fmt.Errorf("%s does not show the answer to a challenge: %w", f.Container, err),
		"is TLS up in the front (its log says), and port 80 listed in PORTS? Else choose another --challenge")
}

// shows asks the front itself for the answer to token, as a CA would.
func (f *Front) shows(ctx context.Context, token string) error {
	transport := &http.Transport{
		DialContext:       f.dialHTTP,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}
	client := &http.Client{Transport: transport, Timeout: showLimit}
	url := "http://" + cmp.Or(f.Target().ServerName, "localhost") + "/.well-known/acme-challenge/" + token
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return errors.New(say.Plain(err.Error()))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(len(token))+1))
	if err != nil {
		return err
	}
	if string(body) != token {
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
