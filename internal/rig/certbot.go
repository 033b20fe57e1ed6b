package rig

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
)

// CertbotImage stands in for certbot/certbot: internal/rig/certbot/build.sh makes it.
const CertbotImage = "mailu-hook-certbot"

// Certbot is the real certbot, with all its directories below Dir and CA as
// its server.
type Certbot struct {
	Dir string
	CA  *CA
	Env []string // added to the environment; deploy hooks see it too
}

// Run runs certbot with these arguments. Some of what matters to a deploy
// hook is in the output only: certbot exits 0 when a hook fails.
func (c *Certbot) Run(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	env := append([]string{"REQUESTS_CA_BUNDLE=" + c.CA.DirectoryCAFile}, c.Env...)
	argv := []string{"certbot",
		"--config-dir", c.config(),
		"--work-dir", filepath.Join(c.Dir, "work"),
		"--logs-dir", filepath.Join(c.Dir, "logs"),
		"--server", c.CA.DirectoryURL,
		"--agree-tos", "--register-unsafely-without-email", "--non-interactive",
	}
	out, err := run(ctx, env, slices.Concat(argv, args)...)
	if err != nil {
		return out.stdout, out.stderr, fmt.Errorf("%w (log: %s)", err, filepath.Join(c.Dir, "logs", "letsencrypt.log"))
	}
	return out.stdout, out.stderr, nil
}

// Certonly issues the lineage name for domains through HTTP-01 in standalone
// mode. keyType is rsa or ecdsa, "" for ecdsa; more arguments may follow.
func (c *Certbot) Certonly(ctx context.Context, name, keyType string, domains []string, args ...string) (stdout, stderr string, err error) {
	if keyType == "" {
		keyType = "ecdsa"
	}
	argv := []string{"certonly", "--standalone",
		"--http-01-port", strconv.Itoa(c.CA.HTTPPort), "--http-01-address", "127.0.0.1",
		"--cert-name", name, "--key-type", keyType,
	}
	for _, domain := range domains {
		argv = append(argv, "--domain", domain)
	}
	return c.Run(ctx, append(argv, args...)...)
}

// Renew renews every lineage, due or not, as the system's timer does: not on
// a terminal. certbot runs hook through /bin/sh.
func (c *Certbot) Renew(ctx context.Context, hook string, args ...string) (stdout, stderr string, err error) {
	// Without a terminal certbot would sleep for up to eight minutes first.
	argv := []string{"renew", "--force-renewal", "--no-random-sleep-on-renew"}
	if hook != "" {
		argv = append(argv, "--deploy-hook", hook)
	}
	return c.Run(ctx, append(argv, args...)...)
}

// Live returns the live directory of a lineage.
func (c *Certbot) Live(name string) string { return filepath.Join(c.config(), "live", name) }

func (c *Certbot) config() string { return filepath.Join(c.Dir, "config") }
