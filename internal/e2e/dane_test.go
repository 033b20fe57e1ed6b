package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/dane"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// daneLab is a front whose hosts have TLSA records: in example.com, which is
// signed; in example.org, which is not; and in example.net, which was signed and
// then forged.
type daneLab struct {
	*lab
	serving            *mint.Pair
	signed, plain, bad *rig.Zone
	resolver           *rig.Resolver
}

const forged = "_25._tcp.mail 1 IN TLSA 3 1 1 AAAA000000000000000000000000000000000000000000000000000000000000"

func newDANELab(t *testing.T) *daneLab {
	t.Helper()
	rig.Need(t, rig.NeedDNS)
	l, old := startServing(t, rig.FrontOptions{})
	d := &daneLab{lab: l, serving: old}
	d.signed = d.zone(rig.ZoneOptions{Name: "example.com", Signed: true, Records: []string{"mail 1 IN A 127.0.0.1", "imap 1 IN A 127.0.0.1", "alias 1 IN CNAME imap", "bare 1 IN A 127.0.0.1"}})
	d.plain = d.zone(rig.ZoneOptions{Name: "example.org", Records: []string{"mail 1 IN A 127.0.0.1"}})
	d.bad = d.zone(rig.ZoneOptions{Name: "example.net", Signed: true, Records: []string{"mail 1 IN A 127.0.0.1", forged}})
	var err error
	d.resolver, err = rig.StartResolver(t.Context(), t.TempDir(), d.signed, d.plain, d.bad)
	require.NoError(t, err)
	t.Cleanup(d.resolver.Close)
	require.NoError(t, d.bad.Tamper(t.Context(), "AAAA00", "BBBB00"))
	l.env = append(l.env, "MAILU_HOOK_DANE=auto", "MAILU_HOOK_RESOLVER="+d.resolver.Addr)
	return d
}

func (d *daneLab) zone(o rig.ZoneOptions) *rig.Zone {
	d.t.Helper()
	zone, err := rig.StartZone(d.t.Context(), d.t.TempDir(), o)
	require.NoError(d.t, err)
	d.t.Cleanup(zone.Close)
	return zone
}

// issueForAll issues a leaf with a new key for every host of the lab.
func (d *daneLab) issueForAll() *mint.Pair {
	d.t.Helper()
	return d.issue(mint.Leaf{NotBefore: time.Now().Add(-time.Minute), Names: []string{
		"mail.example.com", "imap.example.com", "alias.example.com", "bare.example.com", "mail.example.org", "mail.example.net",
	}})
}

// publish replaces the TLSA records of a host, and returns when the resolver
// shows the last of them.
func (d *daneLab) publish(zone *rig.Zone, host string, records ...string) {
	d.t.Helper()
	var lines []string
	for _, r := range records {
		lines = append(lines, fmt.Sprintf("_25._tcp.%s 1 IN TLSA %s", host, r))
	}
	require.NoError(d.t, zone.Replace(d.t.Context(), lines...))
	_, data, _ := strings.Cut(records[len(records)-1], " 1 1 ")
	require.NoError(d.t, d.resolver.WaitFor(d.t.Context(), "_25._tcp."+host+"."+zone.Name, "TLSA", data))
}

func leafRecord(p *mint.Pair) string { return dane.OfLeaf(p.Cert).String() }

func TestARenewalWithANewKeyIsHeldBackUntilItsRecordIsPublishedAndKnown(t *testing.T) {
	d := newDANELab(t)
	d.publish(d.signed, "mail", leafRecord(d.serving))
	renewed := d.issueForAll()
	live := d.lineage(renewed, "mail.example.com")
	before := snapshot(t, d.certs())
	r := d.hook(live)
	assert.Equal(t, 3, r.code)
	assert.Equal(t, "rejected", r.doc.Outcome)
	assert.Contains(t, r.doc.Error, "held back: the TLSA records of mail.example.com do not match it")
	assert.Contains(t, r.doc.Hint, "_25._tcp.mail.example.com. IN TLSA "+leafRecord(renewed))
	require.Len(t, r.doc.DANE, 1)
	assert.Equal(t, "mismatch", r.doc.DANE[0].State)
	d.serves(d.serving)
	after := snapshot(t, d.certs())
	for _, name := range []string{"cert.pem", "key.pem"} {
		assert.Equal(t, before[filepath.Join(d.certs(), name)], after[filepath.Join(d.certs(), name)])
	}
	assert.Equal(t, 3, d.run(nil, "sync", "--output", "json").code, "as long as nothing is published")

	d.publish(d.signed, "mail", leafRecord(d.serving), leafRecord(renewed))
	r = d.run(nil, "sync", "--output", "json")
	assert.Equal(t, 3, r.code)
	assert.Contains(t, r.doc.Error, "resolvers may cache the old ones until")
	d.serves(d.serving)
	require.Eventually(t, func() bool { return d.run(nil, "sync", "--output", "json").code == 0 }, 20*time.Second, 300*time.Millisecond)
	d.serves(renewed)
	d.healthyAndReloadable()
	r = d.run(nil, "sync", "--output", "json")
	assert.Equal(t, 0, r.code)
	assert.Equal(t, "unchanged", r.doc.Outcome)
	assert.Empty(t, r.doc.DANE, "nobody is asked when there is nothing to do")
}

func TestWhatTheDNSSaysDecidesWhetherARenewalIsHeldBack(t *testing.T) {
	d := newDANELab(t)
	stale := leafRecord(d.issueForAll())
	for _, c := range []struct {
		name    string
		prepare func(renewed *mint.Pair)
		args    []string // besides those of the hook
		state   string   // of the last host
		held    string   // in the error; "": installed
		says    string   // in the hint, or in a warning
	}{
		{name: "a record of the new key", prepare: func(renewed *mint.Pair) { d.publish(d.signed, "mail", stale, leafRecord(renewed)) }, state: "match"},
		{name: "a record of the issuer", prepare: func(*mint.Pair) { d.publish(d.signed, "mail", dane.OfIssuer(d.ca.Issuer).String()) }, state: "match"},
		{name: "a record of the root, which is not sent", prepare: func(*mint.Pair) { d.publish(d.signed, "mail", dane.OfIssuer(d.ca.Root).String()) },
			state: "mismatch", held: "mail.example.com do not match", says: "_25._tcp.mail.example.com. IN TLSA 2 1 1 "},
		{name: "a record of the root, which is sent", args: []string{"--append-root", "auto"}, state: "match"},
		{name: "no record", args: []string{"--hostname", "bare.example.com"}, state: "none"},
		{name: "no usable record", prepare: func(*mint.Pair) { d.publish(d.signed, "mail", "1 1 1 "+stale[6:]) }, state: "unusable", says: "no TLSA record of mail.example.com is usable"},
		{name: "an unsigned zone", prepare: func(*mint.Pair) { d.publish(d.plain, "mail", stale) }, args: []string{"--hostname", "mail.example.org"},
			state: "insecure", says: "did not validate those of mail.example.org (they do not match)"},
		{name: "an unsigned zone, required", args: []string{"--hostname", "mail.example.org", "--dane", "require"}, state: "insecure", held: "did not validate those of mail.example.org", says: "--dane off"},
		{name: "a bogus signature", args: []string{"--hostname", "mail.example.net"}, state: "unknown", says: "SERVFAIL"},
		{name: "a bogus signature, required", args: []string{"--hostname", "mail.example.net", "--dane", "require"}, state: "unknown", held: "SERVFAIL", says: "--resolver"},
		{name: "an alias", prepare: func(*mint.Pair) { d.publish(d.signed, "imap", stale) }, args: []string{"--hostname", "alias.example.com"},
			state: "mismatch", held: "alias.example.com do not match", says: "_25._tcp.imap.example.com. IN TLSA 3 1 1 "},
		{name: "two hosts, of which one does not match", prepare: func(renewed *mint.Pair) { d.publish(d.signed, "mail", leafRecord(renewed)) }, args: []string{"--hostname", "mail.example.com,imap.example.com"},
			state: "mismatch", held: "TLSA records of imap.example.com do not match", says: "_25._tcp.imap.example.com. IN TLSA 3 1 1 "},
		{name: "shortly before expiry", args: []string{"--hostname", "imap.example.com", "--dane-grace", "2200h"}, state: "mismatch", says: "installed anyway, because the current certificate expires at"},
		{name: "nobody is asked", args: []string{"--hostname", "imap.example.com", "--dane", "off"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			renewed := d.issueForAll()
			if c.prepare != nil {
				c.prepare(renewed)
			}
			live := d.lineage(renewed, "mail.example.com")
			r := d.run([]string{"RENEWED_LINEAGE=" + live}, append([]string{"--output", "json"}, c.args...)...)
			if c.state == "" {
				assert.Empty(t, r.doc.DANE)
			} else {
				require.NotEmpty(t, r.doc.DANE)
				assert.Equal(t, c.state, r.doc.DANE[len(r.doc.DANE)-1].State)
			}
			if c.held != "" {
				assert.Equal(t, 3, r.code)
				assert.Contains(t, r.doc.Error, c.held)
				assert.Contains(t, r.doc.Hint, c.says)
			} else {
				require.Equal(t, 0, r.code)
				r.doc.Warnings = slices.DeleteFunc(r.doc.Warnings, func(w string) bool {
					return strings.HasPrefix(w, "its key, which the front can read, also speaks for ")
				})
				assert.Equal(t, c.says != "", len(r.doc.Warnings) > 0, "%q", r.doc.Warnings)
				assert.Contains(t, strings.Join(r.doc.Warnings, "\n"), c.says)
				d.serving = renewed
			}
			d.serves(d.serving)
		})
	}
}

func TestASilentResolverCostsThreeSecondsAndAWarning(t *testing.T) {
	d := newDANELab(t)
	d.publish(d.signed, "mail", leafRecord(d.serving))
	require.NoError(t, d.resolver.Pause())
	renewed := d.issueForAll()
	live := d.lineage(renewed, "mail.example.com")
	r := d.run([]string{"RENEWED_LINEAGE=" + live}, "--output", "json", "--hostname", "mail.example.com,imap.example.com,bare.example.com", "--dane", "require")
	assert.Equal(t, 3, r.code)
	assert.Contains(t, r.doc.Error, "does not answer")
	assert.Less(t, r.doc.Durations["guard"], int64(3300))
	d.serves(d.serving)

	r = d.run([]string{"RENEWED_LINEAGE=" + live}, "--output", "json")
	assert.Equal(t, 3, r.code, "what is held back stays so while nobody can be asked")
	require.NoError(t, os.Remove(d.ledger()))
	r = d.run([]string{"RENEWED_LINEAGE=" + live}, "--output", "json")
	require.Equal(t, 0, r.code)
	assert.Contains(t, strings.Join(r.doc.Warnings, "\n"), "does not answer")
	assert.Less(t, r.doc.Durations["guard"], int64(3300))
	d.serves(renewed)
}

// What we call a match, a sender does too: OpenSSL's DANE is that of Postfix and
// Exim. nginx sends an appended root, and dovecot loads it.
func TestASenderFollowsTheRecordsToPort25(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{})
	renewed := l.issue(mint.Leaf{})
	live := l.lineage(renewed, "mail.example.com")
	root := dane.OfIssuer(l.ca.Root).String()
	require.Equal(t, 0, l.hook(live).code)
	assert.True(t, l.delivers(leafRecord(renewed)))
	assert.True(t, l.delivers(dane.OfIssuer(l.ca.Issuer).String()))
	assert.False(t, l.delivers(root), "a root that is not sent")

	for _, append := range []string{"auto", l.roots} {
		l.env = slices.Concat(l.env, []string{"MAILU_HOOK_APPEND_ROOT=" + append})
		r := l.run(nil, "sync", "--output", "json")
		require.Equal(t, 0, r.code)
		l.serves(renewed)
		assert.True(t, l.delivers(root))
		assert.False(t, l.delivers(leafRecord(l.issue(mint.Leaf{}))))
	}
	assert.Equal(t, "unchanged", l.run(nil, "sync", "--output", "json").doc.Outcome)
	l.healthyAndReloadable()
}

// delivers reports whether a sender that follows DANE would deliver to the front,
// were this the published record.
func (l *lab) delivers(record string) bool {
	l.t.Helper()
	ip, err := l.front.IP(l.t.Context())
	require.NoError(l.t, err)
	cmd := exec.CommandContext(l.t.Context(), "openssl", "s_client", "-starttls", "smtp", "-connect", net.JoinHostPort(ip, "25"), "-brief",
		"-verify_return_error", "-dane_ee_no_namechecks", "-dane_tlsa_domain", "mail.example.com", "-dane_tlsa_rrdata", record)
	out, err := cmd.CombinedOutput()
	require.Regexp(l.t, "CONNECTION ESTABLISHED|verify error", string(out), "it got as far as the certificate")
	return err == nil
}
