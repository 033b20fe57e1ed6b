package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// newZoned is an issuer on a host without a front whose CA and whose own look ask
// a real authoritative server.
func newZoned(t *testing.T) (*issuer, *rig.Zone) {
	t.Helper()
	rig.Need(t, rig.NeedDNS)
	zone, err := rig.StartZone(t.Context(), t.TempDir(), rig.ZoneOptions{})
	require.NoError(t, err)
	t.Cleanup(zone.Close)
	i := newStandalone(t, rig.CAOptions{Resolver: zone.Addr}, mailName)
	i.env = append(i.env, "MAILU_HOOK_CHALLENGE=", "MAILU_HOOK_LISTEN=", "MAILU_HOOK_RESOLVER="+zone.Addr, "MAILU_HOOK_DNS_PROVIDER=rfc2136",
		"DNSUPDATE_PROPAGATION_TIMEOUT=5", "DNSUPDATE_POLLING_INTERVAL=1")
	return i, zone
}

// noAnswerLeft holds the zone to showing no answer to a challenge of a name.
func noAnswerLeft(t *testing.T, zone *rig.Zone, name string) {
	t.Helper()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, zone.Addr)
	}}
	found, err := resolver.LookupTXT(t.Context(), "_acme-challenge."+name+".")
	assert.Empty(t, found)
	var missing *net.DNSError
	assert.True(t, errors.As(err, &missing) && missing.IsNotFound, "%v", err)
}

// A wildcard and its apex are proved under one name, by two records at a time.
func TestWildcardAndApexAreValidatedByDynamicUpdate(t *testing.T) {
	i, zone := newZoned(t)
	secret := filepath.Join(i.root, "tsig.secret")
	require.NoError(t, os.WriteFile(secret, []byte(zone.TSIGSecret+"\n"), 0o600))
	common := map[string]string{"DNSUPDATE_NAMESERVER": zone.Addr, "DNSUPDATE_TSIG_KEY": zone.TSIGName, "DNSUPDATE_TSIG_ALGORITHM": zone.TSIGAlgorithm}
	config := filepath.Join(i.root, "mailu-hook.conf")
	args := []string{"renew", "--agree-tos", "--output", "json", "--hostname", "example.com", "--hostname", "*.example.com", "--force", "--min-interval", "1ms"}
	for _, way := range []struct {
		name     string
		variable string // beside the common ones
		value    string
		inFile   bool
	}{
		{"environment", "DNSUPDATE_TSIG_SECRET", zone.TSIGSecret, false},
		{"secret in a file", "DNSUPDATE_TSIG_SECRET_FILE", secret, false},
		{"configuration file", "DNSUPDATE_TSIG_SECRET", zone.TSIGSecret, true},
		{"configuration file that names a file", "DNSUPDATE_TSIG_SECRET_FILE", secret, true},
	} {
		settings := []string{way.variable + "=" + way.value}
		for key, value := range common {
			settings = append(settings, key+"="+value)
		}
		content := ""
		if way.inFile {
			content, settings = strings.Join(settings, "\n")+"\n", nil
		}
		require.NoError(t, os.WriteFile(config, []byte(content), 0o600))
		r := i.run(settings, args...)
		require.Equal(t, 0, r.code, way.name)
		assert.NotContains(t, r.stdout+r.stderr, zone.TSIGSecret, way.name)
		assert.ElementsMatch(t, []string{"example.com", "*.example.com"}, i.live("example.com").DNSNames, way.name)
		noAnswerLeft(t, zone, "example.com")
	}
	assert.NotContains(t, i.log(), "Attempting to validate w/ HTTP")
	i.clean("example.com")
}

func TestRefusedDynamicUpdateIsReportedBeforeTheCAValidates(t *testing.T) {
	i, zone := newZoned(t)
	stranger := "c3RyYW5nZXIsIHN0cmFuZ2VyLCBzdHJhbmdlciwgc3Q="
	i.env = append(i.env, "DNSUPDATE_NAMESERVER="+zone.Addr, "DNSUPDATE_TSIG_KEY="+zone.TSIGName, "DNSUPDATE_TSIG_ALGORITHM="+zone.TSIGAlgorithm)
	r := i.run([]string{"DNSUPDATE_TSIG_SECRET=" + stranger}, "renew", "--agree-tos", "--output", "json")
	assert.Equal(t, 6, r.code)
	assert.Contains(t, r.doc.Error, mailName+": publishing the challenge response")
	assert.Contains(t, r.doc.Error, "the server has another secret for the key "+zone.TSIGName)
	unknown := i.run([]string{"DNSUPDATE_TSIG_SECRET=" + zone.TSIGSecret, "DNSUPDATE_TSIG_KEY=stranger."}, "renew", "--agree-tos", "--output", "json")
	assert.Contains(t, unknown.doc.Error, "the server does not know the key stranger.")
	assert.NotContains(t, r.stdout+r.stderr, stranger)
	i.neverLetTheCALook()

	half := i.run(nil, "renew", "--agree-tos", "--output", "json", "--now")
	assert.Equal(t, 2, half.code)
	assert.Contains(t, half.doc.Error, "DNSUPDATE_TSIG_SECRET is not")
	assert.Contains(t, half.doc.Hint, "DNSUPDATE_")
	i.env = append(i.env, "DNSUPDATE_TSIG_SECRET="+zone.TSIGSecret)
	i.issues("--now")
}

func TestInvisibleTXTRecordIsReportedBeforeTheCAValidates(t *testing.T) {
	i, zone := newZoned(t)
	other, err := rig.StartZone(t.Context(), t.TempDir(), rig.ZoneOptions{})
	require.NoError(t, err)
	t.Cleanup(other.Close)
	key := func(z *rig.Zone) []string {
		return []string{"DNSUPDATE_NAMESERVER=" + z.Addr, "DNSUPDATE_TSIG_KEY=" + z.TSIGName, "DNSUPDATE_TSIG_SECRET=" + z.TSIGSecret, "DNSUPDATE_PROPAGATION_TIMEOUT=2"}
	}
	r := i.run(key(other), "renew", "--agree-tos", "--output", "json")
	assert.Equal(t, 6, r.code)
	assert.Contains(t, r.doc.Error, "waiting for the TXT record to appear")
	assert.Contains(t, r.doc.Hint, "--no-self-check")
	noAnswerLeft(t, other, mailName)
	i.neverLetTheCALook()
	i.env = append(i.env, key(zone)...)
	i.issues()
}

func TestExecProviderAnswersDNSChallenges(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{}, mailName)
	script := filepath.Join(i.root, "dns.sh")
	calls := filepath.Join(i.root, "calls")
	require.NoError(t, os.WriteFile(script, fmt.Appendf(nil, `#!/bin/sh
set -eu
echo "$1 $2" >>%[2]s
case $1 in
present) curl --silent --fail --data "{\"host\":\"$2\",\"value\":\"$3\"}" %[1]s/set-txt ;;
cleanup) curl --silent --fail --data "{\"host\":\"$2\"}" %[1]s/clear-txt ;;
esac
`, i.acme.DNSManagement(), calls), 0o700))
	i.env = append(i.env, "MAILU_HOOK_LISTEN=", "EXEC_PATH="+script, "EXEC_POLLING_INTERVAL=1", "EXEC_PROPAGATION_TIMEOUT=10")
	i.issues("--challenge", "dns", "--dns-provider", "exec", "--hostname", "*.example.com")
	assert.Equal(t, []string{"*.example.com"}, i.live("example.com").DNSNames)
	called, err := os.ReadFile(calls)
	require.NoError(t, err)
	assert.Equal(t, "present _acme-challenge.example.com.\ncleanup _acme-challenge.example.com.\n", string(called))

	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\necho 'no such zone' >&2; exit 3\n"), 0o700))
	r := i.renew("--challenge", "dns", "--dns-provider", "exec", "--hostname", "*.example.com", "--force", "--min-interval", "1ms")
	assert.Equal(t, 6, r.code)
	assert.Contains(t, r.doc.Error, "exit status 3")
	assert.Contains(t, r.doc.Hint, "in the variables of exec (EXEC_…)")
	loud := i.renew("--challenge", "dns", "--dns-provider", "exec", "--hostname", "*.example.com", "--force", "--min-interval", "1ms", "--now", "--log-level", "debug")
	assert.Contains(t, loud.stderr, "no such zone", "as the hint says")
}

func TestWildcardFromDNSIsServedByTheFrontWithoutAnOverride(t *testing.T) {
	rig.Need(t, rig.NeedDNS)
	zone, err := rig.StartZone(t.Context(), t.TempDir(), rig.ZoneOptions{})
	require.NoError(t, err)
	t.Cleanup(zone.Close)
	i, _ := startRenewing(t, rig.CAOptions{Resolver: zone.Addr}, rig.FrontOptions{})
	i.env = append(i.env, "MAILU_HOOK_RESOLVER="+zone.Addr, "DNSUPDATE_POLLING_INTERVAL=1",
		"DNSUPDATE_NAMESERVER="+zone.Addr, "DNSUPDATE_TSIG_KEY="+zone.TSIGName, "DNSUPDATE_TSIG_SECRET="+zone.TSIGSecret)
	i.issues("--dns-provider", "rfc2136", "--hostname", "*.example.com")
	assert.Equal(t, []string{"*.example.com"}, i.live("example.com").DNSNames)
	i.servesLineage("example.com")
	i.healthyAndReloadable()
	i.nothingLeft()
	assert.Equal(t, "unchanged", i.sync().doc.Outcome, "sync takes it for the mail server's")
	i.servesLineage("example.com")
}
