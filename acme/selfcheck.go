package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"mailu-hook/internal/say"
)

// Resolver looks names up at one server instead of those of the system; "" is
// the system's.
func Resolver(server string) *net.Resolver {
	if server == "" {
		return net.DefaultResolver
	}
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(strings.Trim(server, "[]"), "53")
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}}
}

// view looks at this host from outside, as far as it can: the way the CA will.
type view struct {
	dialer *net.Dialer
	skip   bool
}

func newView(resolver *net.Resolver, skip bool) view {
	return view{&net.Dialer{Timeout: 5 * time.Second, Resolver: resolver}, skip}
}

const (
	lookLimit = 15 * time.Second // until the answer can be seen: a front needs a moment to load it
	lookPause = 200 * time.Millisecond
	maxHops   = 10 // redirects, as Let's Encrypt follows them
)

// spare is the remedy that fits every failed look.
const spare = " If only this host cannot see it, as behind some routers: --no-self-check"

// seesHTTP fetches the answer as the CA will (RFC 8555, section 8.3): from port 80
// of the name, through redirects, past any certificate. No CA was asked before, so
// a failure costs nothing of its limits.
func (v view) seesHTTP(ctx context.Context, a answerTo) error {
	if v.skip {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	transport := &http.Transport{
		DialContext:       v.dialer.DialContext,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > maxHops {
			return fmt.Errorf("more than %d redirects", maxHops)
		}
		return nil
	}}
	for seen := error(nil); ; {
		err := fetch(ctx, client, "http://"+urlHost(a.name)+challengePath+a.token, a.keyAuth)
		if err == nil || !mayPass(err) {
			return err
		}
		if ctx.Err() != nil && seen != nil { // the last look was cut short, and tells less
			return seen
		}
		seen = err
		select {
		case <-ctx.Done():
			return err
		case <-time.After(lookPause):
		}
	}
}

const challengePath = "/.well-known/acme-challenge/"

func urlHost(name string) string {
	if strings.Contains(name, ":") {
		return "[" + name + "]"
	}
	return name
}

func fetch(ctx context.Context, client *http.Client, url, want string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("looking for the answer: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return unseen(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return unseen(err)
	}
	at := response.Request.URL.Redacted()
	switch {
	case response.StatusCode != http.StatusOK:
		return say.Hint(fmt.Errorf("looking for the answer: %s says %s", say.Plain(at), response.Status),
			"another web server answers for the name, or the front has not loaded its override: does every A and AAAA record lead here?%s", spare)
	case strings.TrimRight(string(got), " \r\n\t") != want:
		return say.Hint(fmt.Errorf("looking for the answer: %s shows something else: %s", say.Plain(at), say.Foreign(string(got[:min(len(got), 80)]))),
			"another web server answers for the name: does every A and AAAA record lead here?%s", spare)
	}
	return nil
}

// unseen explains why a look met nobody.
func unseen(err error) error {
	var name *net.DNSError
	if errors.As(err, &name) {
		// The server that it names is the system's, whichever was asked.
		failed := &net.DNSError{Err: say.Plain(name.Err), Name: say.Plain(name.Name), IsNotFound: name.IsNotFound}
		return say.Hint(fmt.Errorf("looking for the answer: %w", failed),
			"the name cannot be looked up: does it have an A or AAAA record? --resolver ADDR asks another server%s", spare)
	}
	return say.Hint(fmt.Errorf("looking for the answer: %s", say.Plain(err.Error())),
		"the CA will come to port 80 of every address of the name (tls-alpn: 443): are they right, open, and forwarded to this host?%s", spare)
}

// mayPass tells whether another look may see more: not where a name is missing.
func mayPass(err error) bool {
	var name *net.DNSError
	return !(errors.As(err, &name) && name.IsNotFound)
}
