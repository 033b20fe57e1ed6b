package acme

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/go-acme/lego/v4/challenge/dns01"

	"mailu-hook/internal/resolve"
)

// dnsUpdate changes DNS records by dynamic update (RFC 2136). It takes the variables
// of lego's rfc2136 provider, which would link Kerberos for GSS-TSIG (3.5 MB) and
// holds only one response at a time.
type dnsUpdate struct {
	resolve.Updater
	ttl, timeout, interval time.Duration

	mu   sync.Mutex
	seen map[string]bool // names changed in this run
}

const defaultAlgorithm = "hmac-sha256"

func newDNSUpdate(get lookup) (*dnsUpdate, error) {
	value := func(name string) string {
		return cmp.Or(get.orFile("DNSUPDATE_"+name), get.orFile("RFC2136_"+name))
	}
	seconds := func(name string, standard time.Duration) time.Duration {
		return cmp.Or(get.seconds(standard, "DNSUPDATE_"+name, "RFC2136_"+name), standard)
	}
	u := &dnsUpdate{
		ttl:      seconds("TTL", 120*time.Second),
		timeout:  seconds("PROPAGATION_TIMEOUT", dns01.DefaultPropagationTimeout),
		interval: seconds("POLLING_INTERVAL", time.Second),
		seen:     map[string]bool{},
	}
	u.Server, u.Key, u.Secret = value("NAMESERVER"), value("TSIG_KEY"), value("TSIG_SECRET")
	u.Algorithm = cmp.Or(value("TSIG_ALGORITHM"), defaultAlgorithm)
	if file := get("DNSUPDATE_TSIG_FILE"); file != "" {
		if err := u.readKey(file); err != nil {
			return nil, err
		}
	}
	switch {
	case u.Server == "":
		return nil, errors.New("DNSUPDATE_NAMESERVER is not set")
	case u.Key != "" && u.Secret == "":
		return nil, errors.New("DNSUPDATE_TSIG_KEY is set, DNSUPDATE_TSIG_SECRET is not")
	}
	return u, nil
}

var keyFile2136 = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?s)key\s+"?([^\s"{]+)"?\s*\{.*?algorithm\s+"?([a-z0-9.-]+)"?\s*;.*?secret\s+"?([A-Za-z0-9+/=]+)"?\s*;`)
})

// readKey reads a key file as written by tsig-keygen.
func (u *dnsUpdate) readKey(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("DNSUPDATE_TSIG_FILE: %w", err)
	}
	m := keyFile2136().FindStringSubmatch(string(data))
	if m == nil {
		return fmt.Errorf("DNSUPDATE_TSIG_FILE: %s holds no key in the format of tsig-keygen", file)
	}
	u.Key, u.Algorithm, u.Secret = m[1], m[2], m[3]
	return nil
}

// Timeout is how long a record may take to appear, and how often to look.
func (u *dnsUpdate) Timeout() (timeout, interval time.Duration) { return u.timeout, u.interval }

// Present and CleanUp are for lego, which knows no context.
func (u *dnsUpdate) Present(domain, token, keyAuth string) error {
	return u.present(context.Background(), domain, token, keyAuth)
}

// CleanUp removes the record.
func (u *dnsUpdate) CleanUp(domain, token, keyAuth string) error {
	return u.cleanUp(context.Background(), domain, token, keyAuth)
}

// present adds the record. The first one for a name replaces what a killed run may
// have left there.
func (u *dnsUpdate) present(ctx context.Context, domain, _, keyAuth string) error {
	info := dns01.GetChallengeInfo(domain, keyAuth)
	u.mu.Lock()
	defer u.mu.Unlock()
	name := strings.ToLower(info.EffectiveFQDN)
	err := u.Add(ctx, name, info.Value, u.ttl, !u.seen[name])
	u.seen[name] = u.seen[name] || err == nil
	return err
}

func (u *dnsUpdate) cleanUp(ctx context.Context, domain, _, keyAuth string) error {
	info := dns01.GetChallengeInfo(domain, keyAuth)
	return u.Remove(ctx, info.EffectiveFQDN, info.Value)
}
