package hook

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
	"mailu-hook/internal/source"
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
		"certificate is not PEM":    {[]byte("hello"), pair.KeyPEM, cert, "no PEM block", "fullchain.pem"},
		"key is not PEM":            {pair.Chain, []byte("secret"), key, "no PEM block", "privkey.pem"},
		"truncated certificate":     {cut(pair.LeafPEM), pair.KeyPEM, cert, "1 of its 1 PEM blocks cannot be decoded", "damaged"},
		"truncated chain":           {joined(pair.LeafPEM, cut(pair.IssuerPEM)), pair.KeyPEM, cert, "1 of its 2 PEM blocks", "damaged"},
		"damaged base64":            {spoil(pair.Chain), pair.KeyPEM, cert, "1 of its 2 PEM blocks", "damaged"},
		"truncated key":             {pair.Chain, cut(pair.KeyPEM), key, "1 of its 1 PEM blocks", "privkey.pem"},
		"truncated DER":             {half, pair.KeyPEM, cert, "certificate 1 cannot be parsed", "damaged"},
		"key of nonsense":           {pair.Chain, badKey, key, "cannot be parsed", "damaged"},
		"encrypted, traditional":    {pair.Chain, oldStyle, key, "encrypted", "openssl pkey"},
		"encrypted, PKCS#8":         {pair.Chain, newStyle, key, "encrypted", "openssl pkey"},
		"two keys":                  {pair.Chain, joined(pair.KeyPEM, other.KeyPEM), key, "more than one private key", "keep only the key"},
		"the same key twice":        {pair.Chain, joined(pair.KeyPEM, pair.KeySEC1PEM), key, "more than one private key", "keep only the key"},
		"parameters without a key":  {pair.Chain, ecParameters, key, "no private key", "privkey.pem"},
		"request as certificate":    {request, pair.KeyPEM, cert, `"CERTIFICATE REQUEST"`, "the CA returned"},
		"files swapped":             {pair.KeyPEM, pair.Chain, cert, "the two files are swapped: this one holds the private key, and privkey.pem the certificate", "--cert and"},
		"two keys, no certificate":  {pair.KeyPEM, pair.KeyPEM, cert, "a private key and no certificate", "fullchain.pem"},
		"two chains, no key":        {pair.Chain, pair.Chain, key, "there is no private key in it", "privkey.pem"},
		"key of another leaf":       {pair.Chain, other.KeyPEM, key, "does not belong to the certificate in fullchain.pem", "same lineage"},
		"key of another kind":       {pair.Chain, rsa.KeyPEM, key, "does not belong", "same renewal"},
		"more than any chain needs": {joined(pair.LeafPEM, bytes.Repeat(pair.IssuerPEM, 50)), pair.KeyPEM, cert, "more than 50 certificates", "fullchain.pem"},
		"a key without end":         {pair.Chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: make([]byte, 17<<10)}), key, "a private key of 17408 bytes", "RSA of 2048"},
		"whole, but not RFC 5280":   {notPrintable(t, pair), pair.KeyPEM, cert, "certificate 1 is not valid: ", "issue it again"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(testSource, c.cert, c.key)
			assertRejected(t, err, c.file, c.fact, c.remedy)
		})
	}
}

// notPrintable is the leaf with an '@' in a PrintableString, which crypto/x509
// does not parse. Its signature does not matter here.
func notPrintable(t *testing.T, pair *mint.Pair) []byte {
	t.Helper()
	der := bytes.Replace(pair.Cert.Raw, []byte("mint intermediate"), []byte("mint@intermediate"), 1)
	require.NotEqual(t, pair.Cert.Raw, der)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestOtherFormatsAreNamedWithTheCommandThatConvertsThem(t *testing.T) {
	pair := issue(t, mint.Leaf{})
	dir := t.TempDir()
	openssl := func(args ...string) []byte {
		out, err := exec.Command("openssl", args...).Output()
		require.NoError(t, err)
		return out
	}
	chain, key := filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem")
	writeFile(t, chain, pair.Chain, 0o600)
	writeFile(t, key, pair.KeyPEM, 0o600)
	utf16 := []byte{0xff, 0xfe}
	for _, c := range pair.Chain {
		utf16 = append(utf16, c, 0)
	}
	for name, c := range map[string]struct {
		data         []byte
		fact, remedy string
	}{
		"PKCS#12":            {openssl("pkcs12", "-export", "-in", chain, "-inkey", key, "-passout", "pass:secret"), "PKCS#12 (.pfx or .p12)", "openssl pkcs12 -in fullchain.pem -nodes -out fullchain.pem.pem"},
		"PKCS#7 in DER":      {openssl("crl2pkcs7", "-nocrl", "-certfile", chain, "-outform", "DER"), "PKCS#7 (.p7b) in DER", "openssl pkcs7 -inform DER -print_certs -in fullchain.pem"},
		"PKCS#7 in PEM":      {openssl("crl2pkcs7", "-nocrl", "-certfile", chain), `"PKCS7", not a certificate`, "openssl pkcs7 -print_certs -in fullchain.pem"},
		"DER":                {pair.Cert.Raw, "a certificate in DER", "openssl x509 -inform DER -in fullchain.pem"},
		"key in DER":         {openssl("pkey", "-in", key, "-outform", "DER"), "a private key in DER", "openssl pkey -inform DER -in fullchain.pem"},
		"UTF-16":             {utf16, "UTF-16 text", "iconv -f UTF-16"},
		"UTF-16, no mark":    {utf16[2:], "UTF-16 text", "iconv -f UTF-16"},
		"a Java keystore":    {[]byte("\xfe\xed\xfe\xed\x00\x00\x00\x02"), "a Java keystore", "keytool"},
		"no line break":      {joined(bytes.TrimSpace(pair.LeafPEM), pair.IssuerPEM), "the line break between two PEM blocks is missing", "sed -i"},
		"trusted by OpenSSL": {openssl("x509", "-in", chain, "-trustout"), `"TRUSTED CERTIFICATE"`, "openssl x509 -in fullchain.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(testSource, c.data, pair.KeyPEM)
			assertRejected(t, err, "fullchain.pem", c.fact, c.remedy)
		})
	}
	_, err := Parse(testSource, pair.Chain, openssl("pkey", "-in", key, "-outform", "DER"))
	assertRejected(t, err, "privkey.pem", "a private key in DER", "openssl pkey -inform DER -in privkey.pem")
}

// The remedies are to be pasted.
func TestTheRemedyForAMissingLineBreakFixesTheFile(t *testing.T) {
	pair := issue(t, mint.Leaf{})
	src := source.Files(filepath.Join(t.TempDir(), "c.pem"), "privkey.pem")
	joinedUp := joined(bytes.TrimSpace(pair.LeafPEM), pair.IssuerPEM)
	writeFile(t, src.CertFile, joinedUp, 0o600)
	_, err := Parse(src, joinedUp, pair.KeyPEM)
	_, command, _ := strings.Cut(rejection(t, err).Remedy, "convert it: ")
	require.NoError(t, exec.Command("sh", "-c", command).Run())
	data, err := os.ReadFile(src.CertFile)
	require.NoError(t, err)
	_, err = Parse(src, data, pair.KeyPEM)
	require.NoError(t, err)
}

// What clients put right themselves is put right before it is installed.
func TestTheCanonicalChainIsInstalledWithAWarning(t *testing.T) {
	pair, other := issue(t, mint.Leaf{}), issue(t, mint.Leaf{Names: []string{"www.example.com"}})
	stranger := newCA(t, mint.CAOptions{Name: "stranger"})
	for name, c := range map[string]struct {
		cert, key []byte
		want      [][]byte
		warning   string
	}{
		"leaf last":              {joined(pair.IssuerPEM, pair.LeafPEM), pair.KeyPEM, [][]byte{pair.LeafPEM, pair.IssuerPEM}, "in the wrong order"},
		"root in the middle":     {joined(pair.LeafPEM, pair.RootPEM, pair.IssuerPEM), pair.KeyPEM, [][]byte{pair.LeafPEM, pair.IssuerPEM, pair.RootPEM}, "in the wrong order"},
		"leaf twice":             {joined(pair.LeafPEM, pair.Chain), pair.KeyPEM, [][]byte{pair.LeafPEM, pair.IssuerPEM}, "more than once"},
		"an unrelated CA":        {joined(pair.Chain, stranger.RootPEM), pair.KeyPEM, [][]byte{pair.LeafPEM, pair.IssuerPEM}, `left out: "CN=stranger root"`},
		"an unrelated leaf":      {joined(other.LeafPEM, pair.Chain), pair.KeyPEM, [][]byte{pair.LeafPEM, pair.IssuerPEM}, `left out: "CN=www.example.com"`},
		"key and chain together": {joined(pair.KeyPEM, pair.Chain), joined(pair.KeyPEM, pair.Chain), [][]byte{pair.LeafPEM, pair.IssuerPEM}, ""},
		"as HAProxy has it":      {joined(pair.Chain, pair.KeyPEM), pair.KeyPEM, [][]byte{pair.LeafPEM, pair.IssuerPEM}, ""},
		"as it should be":        {pair.Chain, pair.KeyPEM, [][]byte{pair.LeafPEM, pair.IssuerPEM}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := Parse(testSource, c.cert, c.key)
			require.NoError(t, err)
			require.NoError(t, trusted(t).Check(b))
			assert.Equal(t, string(joined(c.want...)), string(b.certPEM))
			assert.Equal(t, string(pair.KeyPEM), string(b.keyPEM))
			if c.warning == "" {
				assert.Empty(t, b.Warnings)
				return
			}
			require.Len(t, b.Warnings, 1)
			assert.Contains(t, b.Warnings[0], c.warning)
			assert.Equal(t, b.Warnings, install(t, t.TempDir(), b).Warnings, "a deploy passes it on")
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
