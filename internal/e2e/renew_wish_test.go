package e2e

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

func TestHundredNamesGoIntoOneCertificateThatTheFrontServes(t *testing.T) {
	names := []string{mailName}
	for n := 1; n < 100; n++ {
		names = append(names, fmt.Sprintf("mail-%d.example.org", n))
	}
	i, _ := startRenewing(t, rig.CAOptions{}, rig.FrontOptions{Env: map[string]string{"HOSTNAMES": strings.Join(names, ",")}})
	requests := i.asked(func() { i.issues() })
	assert.Equal(t, 1, count(requests, newOrder))
	assert.ElementsMatch(t, names, i.live(mailName).DNSNames)
	i.servesLineage(mailName)
	i.healthyAndReloadable()
	i.nothingLeft()
}

func TestFrontServesEveryTypeOfKey(t *testing.T) {
	i, _ := startRenewing(t, rig.CAOptions{}, rig.FrontOptions{})
	served := func() *x509.Certificate {
		i.servesLineage(mailName)
		leaves, err := i.front.Leaves(t.Context(), 993)
		require.NoError(t, err)
		return leaves[993]
	}
	for _, kind := range []struct {
		name string
		bits int
	}{{"ec384", 384}, {"rsa2048", 2048}, {"rsa4096", 4096}} { // ec256 is what all other tests serve
		i.issues("--key-type", kind.name, "--reuse-key") // one of another type is not kept
		switch key := served().PublicKey.(type) {
		case *ecdsa.PublicKey:
			assert.Equal(t, kind.bits, key.Params().BitSize)
			assert.Contains(t, kind.name, "ec")
		case *rsa.PublicKey:
			assert.Equal(t, kind.bits, key.N.BitLen())
			assert.Contains(t, kind.name, "rsa")
		}
	}
	i.healthyAndReloadable()
}

func TestEachRenewalHasANewKeyUnlessReuseIsAsked(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{}, mailName)
	first := i.issues()
	second := i.issues("--force", "--min-interval", "1ms")
	assert.NotEqual(t, first.RawSubjectPublicKeyInfo, second.RawSubjectPublicKeyInfo)
	third := i.issues("--force", "--min-interval", "1ms", "--reuse-key")
	assert.Equal(t, second.RawSubjectPublicKeyInfo, third.RawSubjectPublicKeyInfo)
	i.clean(mailName)
}

func TestPreferredChainIsUsedIfTheCAOffersSeveral(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{Env: []string{"PEBBLE_ALTERNATE_ROOTS=2"}}, mailName)
	var roots []byte
	var names []string
	for n := range 3 {
		data, err := i.acme.Root(t.Context(), n)
		require.NoError(t, err)
		block, _ := pem.Decode(data)
		root, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		roots, names = append(roots, data...), append(names, root.Subject.CommonName)
	}
	trusted := filepath.Join(i.root, "three.pem")
	require.NoError(t, os.WriteFile(trusted, roots, 0o600))
	i.env = append(i.env, "MAILU_HOOK_ROOTS="+trusted)
	top := func() string {
		data, err := os.ReadFile(filepath.Join(i.state, "live", mailName, "fullchain.pem"))
		require.NoError(t, err)
		var last *pem.Block
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			last = block
		}
		above, err := x509.ParseCertificate(last.Bytes)
		require.NoError(t, err)
		return above.Issuer.CommonName
	}
	i.issues()
	assert.Equal(t, names[0], top())
	for _, name := range names[1:] {
		i.issues("--force", "--min-interval", "1ms", "--preferred-chain", name)
		assert.Equal(t, name, top())
	}
	i.issues("--force", "--min-interval", "1ms", "--preferred-chain", "ISRG Root X9")
	assert.Equal(t, names[0], top(), "what is not offered is not insisted on")
}

func TestDryRunOrdersAndValidatesButKeepsAndInstallsNothing(t *testing.T) {
	i, old := startRenewing(t, rig.CAOptions{}, rig.FrontOptions{})
	tree := snapshot(t, i.certs())
	var r result
	requests := i.asked(func() { r = i.renew("--dry-run") })
	require.Equal(t, 0, r.code)
	assert.Equal(t, "would_install", r.doc.Outcome)
	assert.Equal(t, 1, count(requests, newOrder))
	assert.Contains(t, i.log(), "Issued certificate serial")
	assert.Equal(t, tree, snapshot(t, i.certs()))
	i.serves(old)
	i.nothingLeft()
	for _, name := range []string{"live", "archive", "renewal"} {
		assert.NoDirExists(t, filepath.Join(i.state, name))
	}
	elsewhere := loopback()
	i.lead(elsewhere, mailName)
	failed := i.renew("--dry-run", "--no-self-check")
	assert.Equal(t, 6, failed.code)
	i.lead(i.address, mailName)
	i.issues() // a failed dry run delays nothing
	i.servesLineage(mailName)
}

func TestDryRunOnAnEmptyFrontSaysWhyItCannot(t *testing.T) {
	i := newIssuer(t, rig.CAOptions{})
	i.startPublished(rig.FrontOptions{})
	require.Eventually(t, func() bool { return i.listens(25) }, 30*time.Second, 100*time.Millisecond)
	r := i.renew("--dry-run")
	assert.Equal(t, 6, r.code)
	assert.Contains(t, r.doc.Error, "a dry run installs no placeholder")
	assert.NoFileExists(t, filepath.Join(i.certs(), "cert.pem"))
	i.nothingLeft()
}

func TestPrivateCAWithoutRootsSaysHowToTrustIt(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{}, mailName)
	roots, err := i.acme.Roots(t.Context())
	require.NoError(t, err)
	i.env = append(i.env, "MAILU_HOOK_ROOTS=")
	r := i.renew()
	assert.Equal(t, 3, r.code)
	assert.Contains(t, r.doc.Hint, "name its root with --roots FILE too")
	i.env = append(i.env, "MAILU_HOOK_ROOTS="+roots)
	again := i.renew()
	assert.Equal(t, 0, again.code)
	assert.Equal(t, "installed", again.doc.Outcome, "without another order")
	assert.False(t, again.renewal(t).Issued)
}

func TestNamesThatNoCAIssuesForAreFoundBeforeACAIsAsked(t *testing.T) {
	i := newStandalone(t, rig.CAOptions{}, mailName)
	for name, tc := range map[string]struct {
		args      []string
		why, hint string
	}{
		"covered by a wildcard": {[]string{"--challenge", "dns", "--dns-provider", "exec", "--hostname", "*.example.com", "--hostname", mailName}, "is redundant", "--hostname"},
		"wildcard without DNS":  {[]string{"--hostname", "*.example.com"}, "a wildcard needs dns-01", "--challenge dns --dns-provider NAME"},
		"no host name":          {[]string{"--hostname", "mail_.example.com"}, "not a valid host name", "HOSTNAMES in mailu.env"},
		"no dot":                {[]string{"--hostname", "mail", "--ca-file", ""}, "it has no dot", "HOSTNAMES in mailu.env"},
		"address":               {[]string{"--hostname", "192.0.2.1", "--ca-file", ""}, "only with a profile", "--profile shortlived"},
	} {
		i.sub(name, func(t *testing.T) {
			var r result
			assert.Empty(t, i.asked(func() { r = i.renew(tc.args...) }))
			assert.Equal(t, 2, r.code)
			assert.Contains(t, r.doc.Error, tc.why)
			assert.Contains(t, r.doc.Hint, tc.hint)
		})
	}
}
