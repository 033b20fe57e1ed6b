package acme

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"mailu-hook/internal/say"
	"mailu-hook/internal/wait"
)

// Resolver returns a resolver that asks one server instead of the system's; ""
// returns the system's.
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

// view looks at this host as the CA will, as far as that is possible from here.
type view struct {
	dialer *net.Dialer
	skip   bool
}

func newView(resolver *net.Resolver, skip bool) view {
	return view{&net.Dialer{Timeout: 5 * time.Second, Resolver: resolver}, skip}
}

const (
	lookLimit = 15 * time.Second // until the response is visible: a front takes a moment to load it
	lookPause = 200 * time.Millisecond
	maxHops   = 10 // redirects, as many as Let's Encrypt follows
)

// spare is the remedy that fits every failed self-check.
const spare = " If it is reachable from the Internet but not from this host, as behind some routers: --no-self-check"

// seesHTTP fetches the response as the CA will (RFC 8555, section 8.3): from port 80
// of the name, following redirects, ignoring certificates. The CA has not been asked
// yet, so a failure does not count against its rate limits.
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
	client := &http.Client{Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if len(via) > maxHops {
			return fmt.Errorf("more than %d redirects", maxHops)
		}
		return redirectable(next.URL, a.name)
	}}
	for seen := error(nil); ; {
		err := fetch(ctx, client, "http://"+urlHost(a.name)+challengePath+a.token, a.keyAuth)
		if err == nil || !mayPass(err) {
			return err
		}
		if ctx.Err() != nil && seen != nil { // the last look was cut short and says less
			return seen
		}
		seen = err
		if wait.For(ctx, lookPause) != nil {
			return err
		}
	}
}

// redirectable refuses a redirect that no CA follows, to another port than 80 and
// 443 or to an address: whoever answers for the name must not make this host fetch
// from its internal networks.
func redirectable(to *url.URL, name string) error {
	_, err := netip.ParseAddr(to.Hostname())
	switch {
	case err == nil && to.Hostname() != name:
		return fmt.Errorf("a redirect to an address, %s", to.Host)
	case to.Scheme == "http" && cmp.Or(to.Port(), "80") == "80", to.Scheme == "https" && cmp.Or(to.Port(), "443") == "443":
		return nil
	}
	return fmt.Errorf("a redirect to %s://%s, where no CA looks", to.Scheme, to.Host)
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
		return fmt.Errorf("self-check: %w", err)
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
		return say.Hint(fmt.Errorf("self-check: %s returns %s", say.Plain(at), response.Status),
			"another web server answers for the name, or the front has not loaded its override: check that every A and AAAA record points to this host.%s", spare)
	case strings.TrimRight(string(got), " \r\n\t") != want:
		return say.Hint(fmt.Errorf("self-check: %s returns something else: %s", say.Plain(at), say.Foreign(string(got[:min(len(got), 80)]))),
			"another web server answers for the name: check that every A and AAAA record points to this host.%s", spare)
	}
	return nil
}

// unseen explains why nothing could be fetched.
func unseen(err error) error {
	var name *net.DNSError
	if errors.As(err, &name) {
		// It names the system's server, whichever was asked.
		failed := &net.DNSError{Err: say.Plain(name.Err), Name: say.Plain(name.Name), IsNotFound: name.IsNotFound}
		return say.Hint(fmt.Errorf("self-check: %w", failed),
			"the name does not resolve: check its A and AAAA records; --resolver ADDR asks another DNS server.%s", spare)
	}
	return say.Hint(fmt.Errorf("self-check: %s", say.Plain(err.Error())),
		"the CA will connect to port 80 (443 with tls-alpn) of every address of the name: check that they are right, open, and forwarded to this host.%s", spare)
}

// mayPass reports whether to look again: not if the name does not exist.
func mayPass(err error) bool {
	var name *net.DNSError
	return !(errors.As(err, &name) && name.IsNotFound)
}
