package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
)

// leaves are the certificates that the ports of a front show.
type leaves map[int]*x509.Certificate

func digest(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// same reports whether every port of a shows in b what it showed in a.
func same(a, b leaves) error {
	if len(a) == 0 || len(a) != len(b) {
		return fmt.Errorf("%d ports answered, now %d do", len(a), len(b))
	}
	for port, leaf := range a {
		if b[port] == nil || !leaf.Equal(b[port]) {
			return fmt.Errorf("port %d shows another one", port)
		}
	}
	return nil
}

// renewed reports whether the ports that answered before all show the newest
// certificate of the lineage, which none of them did.
func (d *demo) renewed(before leaves) error {
	live := d.certbot.Live(host)
	pair, err := tls.LoadX509KeyPair(filepath.Join(live, "fullchain.pem"), filepath.Join(live, "privkey.pem"))
	if err != nil {
		return err
	}
	want := leaves{}
	for port, leaf := range before {
		if leaf.Equal(pair.Leaf) {
			return fmt.Errorf("port %d showed it already", port)
		}
		want[port] = pair.Leaf
	}
	return same(want, d.shown)
}

// installed reports whether the files that the front reads are a matching pair
// of the certificate that all of shown is.
func (d *demo) installed(shown leaves) error {
	certs := filepath.Join(d.front.Root, "certs")
	pair, err := tls.LoadX509KeyPair(filepath.Join(certs, "cert.pem"), filepath.Join(certs, "key.pem"))
	if err != nil {
		return err
	}
	want := leaves{}
	for port := range shown {
		want[port] = pair.Leaf
	}
	return same(want, shown)
}

// healthy asks the engine, and runs the health check once more: the engine's
// last word may be from before the deploy.
func (d *demo) healthy(ctx context.Context) error {
	health, err := d.front.Health(ctx)
	if err == nil && health != "healthy" {
		err = errors.New("it is " + health)
	}
	return errors.Join(err, d.front.CheckHealth(ctx))
}
