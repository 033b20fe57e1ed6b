package e2e

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/dane"
	"mailu-hook/internal/rig"
)

// liveLeaf is the leaf of a lineage in the state directory.
func (i *issuer) liveLeaf(name string) *x509.Certificate {
	i.t.Helper()
	data, err := os.ReadFile(filepath.Join(i.state, "live", name, "cert.pem"))
	require.NoError(i.t, err)
	block, _ := pem.Decode(data)
	require.NotNil(i.t, block)
	leaf, err := x509.ParseCertificate(block.Bytes)
	require.NoError(i.t, err)
	return leaf
}

// The whole life of a key under DANE: it stays while its record is published, the
// next one is prepared, published, seen for two TTLs, and only then certified; at
// no moment does the front serve a key that senders would refuse.
func TestKeyRollsOverUnderDANEWithoutAGap(t *testing.T) {
	rig.Need(t, rig.NeedDNS)
	i := newIssuer(t, rig.CAOptions{})
	i.startPublished(rig.FrontOptions{})
	require.Eventually(t, func() bool { return i.listens(25) }, 30*time.Second, 100*time.Millisecond)
	zone, err := rig.StartZone(t.Context(), t.TempDir(), rig.ZoneOptions{Signed: true, Records: []string{"mail 1 IN A " + i.address}})
	require.NoError(t, err)
	t.Cleanup(zone.Close)
	resolver, err := rig.StartResolver(t.Context(), t.TempDir(), zone)
	require.NoError(t, err)
	t.Cleanup(resolver.Close)
	i.env = append(i.env, "MAILU_HOOK_DANE=auto", "MAILU_HOOK_RESOLVER="+resolver.Addr)
	publish := func(records ...string) {
		var lines []string
		for _, r := range records {
			lines = append(lines, "_25._tcp.mail 1 IN TLSA "+r)
		}
		require.NoError(t, zone.Replace(t.Context(), lines...))
		time.Sleep(2100 * time.Millisecond) // the resolver's memory
	}
	again := []string{"--force", "--min-interval", "1s"}

	require.Equal(t, 0, i.renew().code)
	first := i.liveLeaf("mail.example.com")
	require.Equal(t, 0, i.renew(again...).code)
	second := i.liveLeaf("mail.example.com")
	require.NotEqual(t, first.RawSubjectPublicKeyInfo, second.RawSubjectPublicKeyInfo, "nothing is published, so each certificate has a key of its own")

	publish(dane.OfLeaf(second).String())
	r := i.renew(again...)
	require.Equal(t, 0, r.code)
	assert.Contains(t, strings.Join(r.doc.Warnings, "\n"), "the key is kept because a TLSA record 3 1 1 for it is published")
	third := i.liveLeaf("mail.example.com")
	require.Equal(t, second.RawSubjectPublicKeyInfo, third.RawSubjectPublicKeyInfo)
	require.NotEqual(t, second.SerialNumber, third.SerialNumber)

	r = i.renew(append(again, "--next-key")...)
	require.Equal(t, 0, r.code)
	assert.Contains(t, strings.Join(r.doc.Warnings, "\n"), "the prepared key waits until its TLSA record is published")
	require.Equal(t, second.RawSubjectPublicKeyInfo, i.liveLeaf("mail.example.com").RawSubjectPublicKeyInfo)
	out := i.run(nil, "tlsa", "--next", "--output", "json", "--state-dir", i.state)
	var next struct{ Records []struct{ Record string } }
	require.NoError(t, json.Unmarshal([]byte(out.stdout), &next))
	require.Len(t, next.Records, 1)

	publish(dane.OfLeaf(second).String(), next.Records[0].Record)
	require.Eventually(t, func() bool { // the resolver remembers, in whole seconds
		r = i.renew()
		assert.Equal(t, "unchanged", r.doc.Outcome)
		return strings.Contains(strings.Join(r.doc.Warnings, "\n"), "has been published for two TTLs")
	}, 20*time.Second, 300*time.Millisecond)
	time.Sleep(2100 * time.Millisecond) // two TTLs
	require.Equal(t, 0, i.renew(again...).code)
	last := i.liveLeaf("mail.example.com")
	assert.Equal(t, next.Records[0].Record, dane.OfLeaf(last).String())
	i.servesLineage("mail.example.com")
	assert.NoFileExists(t, filepath.Join(i.state, "renewal", "mail.example.com", "next.pem"))
	i.healthyAndReloadable()
}
