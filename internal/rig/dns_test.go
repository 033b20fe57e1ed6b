package rig

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// startDNS starts a zone and a resolver that knows it.
func startDNS(t *testing.T, o ZoneOptions) (*Zone, *Resolver) {
	t.Helper()
	Need(t, NeedDNS)
	zone, err := StartZone(t.Context(), t.TempDir(), o)
	require.NoError(t, err)
	t.Cleanup(zone.Close)
	resolver, err := StartResolver(t.Context(), t.TempDir(), zone)
	require.NoError(t, err)
	t.Cleanup(resolver.Close)
	return zone, resolver
}

func dig(t *testing.T, addr string, args ...string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	out, err := run(t.Context(), nil, append([]string{"kdig", "@" + host, "-p", port, "+adflag", "+timeout=2", "+retry=0"}, args...)...)
	require.NoError(t, err)
	return out.stdout
}

func TestASignedZoneIsValidatedAndFollowsChanges(t *testing.T) {
	t.Parallel()
	zone, resolver := startDNS(t, ZoneOptions{Signed: true, Records: []string{"mail 1 IN A 127.0.0.1"}})
	out := dig(t, resolver.Addr, "mail.example.com", "A")
	assert.Contains(t, out, "127.0.0.1")
	assert.Regexp(t, `Flags: [a-z ]*\bad\b`, out)

	require.NoError(t, zone.Replace(t.Context(), "mail 1 IN A 127.0.0.2", "mail 1 IN A 127.0.0.3", "_25._tcp.mail 1 IN TLSA 3 1 1 00"))
	out = dig(t, zone.Addr, "mail.example.com", "A")
	assert.NotContains(t, out, "127.0.0.1\n")
	assert.Contains(t, out, "127.0.0.2")
	assert.Contains(t, out, "127.0.0.3")
	out = dig(t, resolver.Addr, "_25._tcp.mail.example.com", "TLSA")
	assert.Contains(t, out, "3 1 1 00")
	assert.Regexp(t, `Flags: [a-z ]*\bad\b`, out)

	require.NoError(t, zone.Remove(t.Context(), "mail", "A"))
	assert.Contains(t, dig(t, zone.Addr, "mail.example.com", "A"), "ANSWER: 0")
}

func TestAnUnsignedZoneIsNotValidated(t *testing.T) {
	t.Parallel()
	_, resolver := startDNS(t, ZoneOptions{Name: "example.org", Records: []string{"mail 1 IN A 127.0.0.1"}})
	out := dig(t, resolver.Addr, "mail.example.org", "A")
	assert.Contains(t, out, "127.0.0.1")
	assert.NotRegexp(t, `Flags: [a-z ]*\bad\b`, out)
}

func TestAForgedRecordIsRefusedByTheResolver(t *testing.T) {
	t.Parallel()
	zone, resolver := startDNS(t, ZoneOptions{Signed: true, Records: []string{"mail 1 IN A 127.0.0.9"}})
	require.NoError(t, zone.Tamper(t.Context(), "127.0.0.9", "127.0.0.8"))
	assert.Contains(t, dig(t, zone.Addr, "mail.example.com", "A"), "127.0.0.8")
	assert.Contains(t, dig(t, resolver.Addr, "mail.example.com", "A"), "SERVFAIL")
}

func TestTheKeyOfAZoneMayUpdateTXTAndNothingElse(t *testing.T) {
	t.Parallel()
	Need(t, "knsupdate")
	zone, _ := startDNS(t, ZoneOptions{Signed: true})
	require.NoError(t, update(t, zone, "_acme-challenge 1 TXT token"))
	assert.Contains(t, dig(t, zone.Addr, "_acme-challenge.example.com", "TXT"), `"token"`)
	require.Error(t, update(t, zone, "mail 1 A 127.0.0.1"))
	zone.TSIGSecret = randomSecret()
	require.Error(t, update(t, zone, "_acme-challenge 1 TXT other"))
}

func update(t *testing.T, zone *Zone, record string) error {
	t.Helper()
	host, port, err := net.SplitHostPort(zone.Addr)
	require.NoError(t, err)
	script := filepath.Join(t.TempDir(), "update")
	require.NoError(t, os.WriteFile(script, []byte(strings.Join([]string{
		"server " + host + " " + port, "zone " + zone.Name + ".", "origin " + zone.Name + ".",
		"key " + zone.TSIGAlgorithm + ":" + zone.TSIGName + " " + zone.TSIGSecret, "add " + record, "send", "",
	}, "\n")), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = run(ctx, nil, "knsupdate", script)
	return err
}
