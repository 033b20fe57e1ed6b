package acme

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

func TestNamesThatNoCAIssuesForAreFoundBeforeACAIsAsked(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 63)
	for name, c := range map[string]struct {
		names   []string
		method  Method
		profile string
		private bool
		want    string // in the error, "" for none
	}{
		"a host":                       {names: []string{"mail.example.com"}},
		"an A-label":                   {names: []string{"xn--mil-qla.example.com"}},
		"the longest":                  {names: []string{long + "." + long + "." + long + "." + strings.Repeat("a", 61)}},
		"too long":                     {names: []string{long + "." + long + "." + long + "." + long}, want: "longer"},
		"a long label":                 {names: []string{long + "a.example.com"}, want: "not a valid host name"},
		"none":                         {want: "no name to order"},
		"empty":                        {names: []string{""}, want: "not a valid host name"},
		"an empty label":               {names: []string{"mail..example.com"}, want: "not a valid host name"},
		"an underscore":                {names: []string{"my_host.example.com"}, want: "not a valid host name"},
		"a hyphen first":               {names: []string{"-a.example.com"}, want: "not a valid host name"},
		"a path":                       {names: []string{"../../etc"}, want: "not a valid host name"},
		"a port":                       {names: []string{"mail.example.com:443"}, want: "not a valid host name"},
		"controls":                     {names: []string{"mail\x1b.example.com"}, want: "not a valid host name"},
		"not ASCII":                    {names: []string{"mäil.example.com"}, want: "not a valid host name"},
		"no dot":                       {names: []string{"mail"}, want: "no dot"},
		"no dot, a CA of one's own":    {names: []string{"mail"}, private: true},
		"a top-level domain":           {names: []string{"com"}, want: "no dot"},
		"a wildcard":                   {names: []string{"*.example.com"}, method: DNS},
		"a wildcard by http":           {names: []string{"mail.example.com", "*.example.com"}, method: Front, want: "needs dns-01"},
		"a wildcard by tls-alpn":       {names: []string{"*.example.com"}, method: TLSALPN, want: "needs dns-01"},
		"covered by a wildcard":        {names: []string{"mail.example.com", "*.example.com", "example.com"}, method: DNS, want: `"mail.example.com" is redundant`},
		"below a wildcard":             {names: []string{"a.mail.example.com", "*.example.com", "example.com"}, method: DNS},
		"two wildcards":                {names: []string{"*.*.example.com"}, method: DNS, want: "not a valid host name"},
		"an address":                   {names: []string{"192.0.2.1"}, want: "with a profile"},
		"an address under a profile":   {names: []string{"192.0.2.1", "2001:db8::1"}, profile: "shortlived"},
		"an address by DNS":            {names: []string{"192.0.2.1"}, method: DNS, profile: "shortlived", want: "cannot be validated with dns-01"},
		"an address and one's own CA":  {names: []string{"192.0.2.1"}, private: true},
		"an address with a zone":       {names: []string{"fe80::1%eth0"}, profile: "shortlived", want: "valid on one link only"},
		"the second one of two":        {names: []string{"mail.example.com", "mail"}, want: `"mail": not a public name`},
		"a private registry's suffix":  {names: []string{"me.github.io"}},
		"that registry's suffix alone": {names: []string{"github.io"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := CheckNames(c.names, c.method, c.profile, c.private)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
			assert.NotEmpty(t, say.HintOf(err))
			assert.NotContains(t, err.Error(), "\x1b")
		})
	}
}

func TestNamesAreMadeCanonical(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ given, want []string }{
		"case, blanks, the root's dot": {[]string{" Mail.Example.COM. "}, []string{"mail.example.com"}},
		"umlauts":                      {[]string{"MÄIL.example.com"}, []string{"xn--mil-qla.example.com"}},
		"wildcards":                    {[]string{"*.Example.com", "*.BÜCHER.example"}, []string{"*.example.com", "*.xn--bcher-kva.example"}},
		"twice":                        {[]string{"b.example", "a.example", "B.example"}, []string{"b.example", "a.example"}},
		"long forms of addresses":      {[]string{"2001:DB8:0:0:0:0:0:1", "2001:db8::1", "::ffff:192.0.2.1", "192.0.2.1"}, []string{"2001:db8::1", "192.0.2.1"}},
		"none":                         {nil, nil},
	} {
		assert.Equal(t, c.want, CanonicalNames(c.given), name)
	}
	assert.Equal(t, "example.com", Request{Names: []string{"*.example.com"}}.LineageName())
}

func TestTheOrderOfNamesDoesNotMatter(t *testing.T) {
	t.Parallel()
	r := Request{Names: []string{"a", "b"}}
	assert.True(t, r.sameNames([]string{"b", "a"}))
	assert.False(t, r.sameNames([]string{"a"}))
	assert.False(t, r.sameNames([]string{"a", "b", "c"}))
	assert.False(t, r.sameNames(nil))
}

func TestACSRHoldsExactlyTheNames(t *testing.T) {
	t.Parallel()
	for _, kind := range KeyTypes {
		key, err := newKey(kind)
		require.NoError(t, err)
		names := CanonicalNames([]string{"mail.example.com", "*.example.com", "192.0.2.1", "2001:db8::1"})
		der, err := newCSR(key, names)
		require.NoError(t, err)
		csr, err := x509.ParseCertificateRequest(der)
		require.NoError(t, err)
		require.NoError(t, csr.CheckSignature())
		assert.Equal(t, kind, keyTypeOf(csr.PublicKey))
		assert.Equal(t, names[:2], csr.DNSNames)
		require.Len(t, csr.IPAddresses, 2)
		assert.True(t, csr.IPAddresses[0].Equal(net.ParseIP("192.0.2.1")))
		assert.Empty(t, csr.Subject.CommonName)
		assert.Empty(t, missing(&x509.Certificate{DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses}, names), "else each run would throw away what it obtained")
	}
	assert.Equal(t, []string{"b.example"}, missing(issue(t, mint.Leaf{Names: []string{"a.example", "*.example"}}).Cert, []string{"a.example", "b.example"}),
		"a wildcard does not stand for a name that was asked for")
}

func TestKeysSurviveARoundTrip(t *testing.T) {
	t.Parallel()
	for _, kind := range KeyTypes {
		key, err := newKey(kind)
		require.NoError(t, err)
		data, err := pki.EncodeKey(key)
		require.NoError(t, err)
		got, err := decodeKey(data)
		require.NoError(t, err)
		assert.Equal(t, key, got)
		assert.True(t, pki.Owns(got.Public(), issue(t, mint.Leaf{Signer: key}).Cert))
		assert.False(t, pki.Owns(got.Public(), issue(t, mint.Leaf{}).Cert))
	}
	_, err := newKey("ec512")
	require.ErrorContains(t, err, "ec512")
	_, strange, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	assert.Empty(t, keyTypeOf(strange.Public()))
	assert.Empty(t, keyTypeOf(issue(t, mint.Leaf{Key: mint.P521}).Cert.PublicKey))
	assert.Empty(t, keyTypeOf(issue(t, mint.Leaf{Key: mint.RSA3072}).Cert.PublicKey))
}

func TestADamagedKeyIsRefusedWithoutQuotingIt(t *testing.T) {
	t.Parallel()
	pair := issue(t, mint.Leaf{})
	block, _ := pem.Decode(pair.KeyPEM)
	for name, data := range map[string][]byte{
		"nothing":       nil,
		"no PEM":        []byte("secret"),
		"a certificate": pair.LeafPEM,
		"another form":  pair.KeySEC1PEM,
		"half of it":    pem.EncodeToMemory(&pem.Block{Type: pki.PrivateKey, Bytes: block.Bytes[:len(block.Bytes)/2]}),
		"text in it":    pem.EncodeToMemory(&pem.Block{Type: pki.PrivateKey, Bytes: []byte("secret")}),
	} {
		key, err := decodeKey(data)
		require.Error(t, err, name)
		assert.Nil(t, key, name)
		assert.NotContains(t, err.Error(), "secret", name)
	}
}
