package hook

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

func joined(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// ecParameters is what openssl ecparam -genkey writes before a P-256 key.
var ecParameters = []byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n")

func TestAcceptedBundlesLoadInATLSServer(t *testing.T) {
	p256 := issue(t, mint.Leaf{Key: mint.P256})
	rsa := issue(t, mint.Leaf{Key: mint.RSA2048})
	crlf := func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) }
	bom := []byte("\xef\xbb\xbf")
	text := []byte("subject=CN = mail.example.com\n")
	for name, c := range map[string]struct {
		pair      *mint.Pair
		cert, key []byte // nil: the pair's own
	}{
		"P-256 as PKCS#8":        {pair: p256},
		"P-256 as SEC1":          {pair: p256, key: p256.KeySEC1PEM},
		"SEC1 after parameters":  {pair: p256, key: joined(ecParameters, p256.KeySEC1PEM)},
		"SEC1 before parameters": {pair: p256, key: joined(p256.KeySEC1PEM, ecParameters)},
		"P-384":                  {pair: issue(t, mint.Leaf{Key: mint.P384})},
		"RSA-2048 as PKCS#8":     {pair: rsa},
		"RSA-2048 as PKCS#1":     {pair: rsa, key: rsa.KeyPKCS1PEM},
		"RSA-3072":               {pair: issue(t, mint.Leaf{Key: mint.RSA3072})},
		"RSA-4096":               {pair: issue(t, mint.Leaf{Key: mint.RSA4096})},
		"Ed25519":                {pair: issue(t, mint.Leaf{Key: mint.Ed25519})},
		"CRLF":                   {p256, crlf(p256.Chain), crlf(p256.KeyPEM)},
		"byte order mark":        {p256, joined(bom, p256.Chain), joined(bom, p256.KeyPEM)},
		"text around the blocks": {p256, joined(text, p256.LeafPEM, text, p256.IssuerPEM, text), joined(text, p256.KeyPEM, text)},
		"empty lines between":    {pair: p256, cert: joined(p256.LeafPEM, []byte("\n\n"), p256.IssuerPEM)},
		"no final newline":       {p256, bytes.TrimSpace(p256.Chain), bytes.TrimSpace(p256.KeyPEM)},
	} {
		t.Run(name, func(t *testing.T) {
			if c.cert == nil {
				c.cert = c.pair.Chain
			}
			if c.key == nil {
				c.key = c.pair.KeyPEM
			}
			b, err := Parse(testSource, c.cert, c.key)
			require.NoError(t, err)
			require.NoError(t, trusted(t).Check(b))
			assert.Equal(t, c.pair.SHA256(), b.Fingerprint())

			loaded, err := tls.X509KeyPair(b.certPEM, b.keyPEM)
			require.NoError(t, err)
			assert.Equal(t, b.Fingerprint(), pki.Fingerprint(loaded.Leaf))
			assert.Len(t, loaded.Certificate, len(b.Chain))
			assert.Equal(t, c.pair.Chain, b.certPEM, "what is installed is the blocks alone")
			assert.NotContains(t, string(b.keyPEM), "PARAMETERS")
			assert.NotContains(t, string(b.keyPEM), "\r")
		})
	}
}

func TestParseRejectsWithFileFactAndRemedy(t *testing.T) {
	pair, other := issue(t, mint.Leaf{}), issue(t, mint.Leaf{})
	rsa := issue(t, mint.Leaf{Key: mint.RSA2048})
	block, _ := pem.Decode(pair.LeafPEM)
	half := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes[:len(block.Bytes)/2]})
	badKey := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{0x30, 0x00}})
	oldStyle := pem.EncodeToMemory(&pem.Block{
		Type:    "RSA PRIVATE KEY",
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00112233445566778899AABBCCDDEEFF"},
		Bytes:   []byte("ciphertext"),
	})
	newStyle := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("ciphertext")})
	request := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("request")})
	cut := func(b []byte) []byte { return b[:len(b)*2/3] }
	spoil := func(b []byte) []byte { return bytes.Replace(b, []byte("\nM"), []byte("\n*"), 1) }
	const cert, key = "fullchain.pem", "privkey.pem"
	for name, c := range map[string]struct {
		cert, key          []byte
		file, fact, remedy string
	}{
		"empty certificate":         {nil, pair.KeyPEM, cert, "empty", "fullchain.pem"},
		"empty key":                 {pair.Chain, nil, key, "empty", "privkey.pem"},
		"certificate is not PEM":    {block.Bytes, pair.KeyPEM, cert, "no PEM block", "fullchain.pem"},
		"key is not PEM":            {pair.Chain, []byte("secret"), key, "no PEM block", "privkey.pem"},
		"truncated certificate":     {cut(pair.LeafPEM), pair.KeyPEM, cert, "1 of its 1 PEM blocks cannot be decoded", "damaged"},
		"truncated chain":           {joined(pair.LeafPEM, cut(pair.IssuerPEM)), pair.KeyPEM, cert, "1 of its 2 PEM blocks", "damaged"},
		"damaged base64":            {spoil(pair.Chain), pair.KeyPEM, cert, "1 of its 2 PEM blocks", "damaged"},
		"truncated key":             {pair.Chain, cut(pair.KeyPEM), key, "1 of its 1 PEM blocks", "privkey.pem"},
		"truncated DER":             {half, pair.KeyPEM, cert, "certificate 1 cannot be parsed", "damaged"},
		"key of nonsense":           {pair.Chain, badKey, key, "cannot be parsed", "damaged"},
		"encrypted, traditional":    {pair.Chain, oldStyle, key, "encrypted", "openssl pkey"},
		"encrypted, PKCS#8":         {pair.Chain, newStyle, key, "encrypted", "openssl pkey"},
		"two keys":                  {pair.Chain, joined(pair.KeyPEM, other.KeyPEM), key, "more than one private key", "keep the one"},
		"the same key twice":        {pair.Chain, joined(pair.KeyPEM, pair.KeySEC1PEM), key, "more than one private key", "keep the one"},
		"parameters without a key":  {pair.Chain, ecParameters, key, "no private key", "privkey.pem"},
		"key in the certificate":    {joined(pair.Chain, pair.KeyPEM), pair.KeyPEM, cert, "block 3 is a private key", "fullchain.pem"},
		"certificate in the key":    {pair.Chain, joined(pair.KeyPEM, pair.LeafPEM), key, `"CERTIFICATE" is not a private key`, "privkey.pem"},
		"request as certificate":    {request, pair.KeyPEM, cert, `"CERTIFICATE REQUEST"`, "fullchain.pem"},
		"files exchanged":           {pair.KeyPEM, pair.Chain, cert, "block 1 is a private key", "fullchain.pem"},
		"key of another leaf":       {pair.Chain, other.KeyPEM, key, "does not belong to the leaf in fullchain.pem", "same lineage"},
		"key of another kind":       {pair.Chain, rsa.KeyPEM, key, "does not belong", "same renewal"},
		"leaf is not first":         {joined(pair.IssuerPEM, pair.LeafPEM), pair.KeyPEM, cert, "the leaf is certificate 2", "leaf first"},
		"more than any chain needs": {joined(pair.LeafPEM, bytes.Repeat(pair.IssuerPEM, 11)), pair.KeyPEM, cert, "12 certificates", "nothing else"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(testSource, c.cert, c.key)
			assertRejected(t, err, c.file, c.fact, c.remedy)
		})
	}
}

func TestKeysThatMailClientsCannotUseAreRejected(t *testing.T) {
	for kind, fact := range map[mint.Key]string{
		mint.P521:    "ECDSA-P-521 key: not accepted",
		mint.P224:    "ECDSA-P-224 key: not accepted",
		mint.RSA1024: "RSA-1024 key: not accepted",
	} {
		t.Run(string(kind), func(t *testing.T) {
			pair := issue(t, mint.Leaf{Key: kind})
			_, err := Parse(testSource, pair.Chain, pair.KeyPEM)
			assertRejected(t, err, "privkey.pem", fact, "P-256")
		})
	}
}

func TestRejectionKnowsTheLeafThatCouldBeRead(t *testing.T) {
	pair, other := issue(t, mint.Leaf{}), issue(t, mint.Leaf{})
	_, err := Parse(testSource, pair.Chain, other.KeyPEM)
	assert.Equal(t, pair.Cert, rejection(t, err).Leaf)
	_, err = Parse(testSource, nil, pair.KeyPEM)
	assert.Nil(t, rejection(t, err).Leaf)
}

func TestRejectionHoldsNoByteOfTheKey(t *testing.T) {
	pair, other := issue(t, mint.Leaf{}), issue(t, mint.Leaf{})
	secret := strings.Split(string(pair.KeyPEM), "\n")[1][8:40]
	for _, key := range [][]byte{joined(pair.KeyPEM, other.KeyPEM), pair.KeyPEM[:100], bytes.ReplaceAll(pair.KeyPEM, []byte("PRIVATE"), []byte("RSA PRIVATE"))} {
		_, err := Parse(testSource, pair.Chain, key)
		assert.NotContains(t, err.Error(), secret)
		assert.NotContains(t, err.Error(), "-----")
	}
	b := parsed(t, pair)
	assert.NotContains(t, b.Fingerprint(), secret)
}

func rejection(t *testing.T, err error) *Rejection {
	t.Helper()
	var r *Rejection
	require.ErrorAs(t, err, &r)
	return r
}

func assertRejected(t *testing.T, err error, file, fact, remedy string) {
	t.Helper()
	r := rejection(t, err)
	assert.Equal(t, file, r.File)
	assert.Contains(t, r.Fact, fact)
	assert.Contains(t, say.HintOf(err), remedy)
	assert.Equal(t, file+": "+r.Fact, err.Error())
	assert.NotContains(t, err.Error(), "\n")
}
