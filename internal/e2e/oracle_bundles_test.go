package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// candidate is a bundle for the oracle.
type candidate struct {
	name       string
	cert, key  []byte
	host       string // that it must cover; "" is the front's
	untrusted  bool   // to be installed with --allow-untrusted
	needsFront bool   // only a front's own test can admit it
}

// forger makes the candidates of one run, the same kinds in the same order
// each time.
type forger struct {
	*lab
	all    []candidate
	serial int64 // of the last certificate
}

// forge returns every candidate, and makes the lab trust their roots.
func forge(t *testing.T, l *lab) []candidate {
	f := &forger{lab: l}
	f.keys()
	f.oddKeys()
	f.wrappings()
	f.blocks()
	f.sizes()
	f.chains()
	f.leaves()
	f.damagedDER()
	seen := map[string]bool{}
	for _, c := range f.all {
		require.False(t, seen[c.name], "%s twice", c.name)
		seen[c.name] = true
	}
	return f.all
}

// someKeys are those of candidates whose oddity lies elsewhere.
func someKeys() []mint.Key {
	if soak {
		return []mint.Key{mint.P256, mint.P384, mint.RSA2048, mint.RSA4096}
	}
	return []mint.Key{mint.P256}
}

func (f *forger) add(name string, cert, key []byte) *candidate {
	f.all = append(f.all, candidate{name: name, cert: cert, key: key})
	return &f.all[len(f.all)-1]
}

func (f *forger) trust(root []byte) {
	f.t.Helper()
	data, err := os.ReadFile(f.roots)
	require.NoError(f.t, err)
	require.NoError(f.t, os.WriteFile(f.roots, append(data, root...), 0o600))
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func der(t *testing.T, data []byte) []byte {
	t.Helper()
	b, _ := pem.Decode(data)
	require.NotNil(t, b)
	return b.Bytes
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

var allKeys = []mint.Key{mint.RSA1024, mint.RSA2048, mint.RSA3072, mint.RSA4096, mint.P224, mint.P256, mint.P384, mint.P521, mint.Ed25519}

// keys: each kind of key in each encoding, labelled rightly and wrongly.
func (f *forger) keys() {
	ecParameters := []byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n")
	for _, kind := range allKeys {
		p := f.issue(mint.Leaf{Key: kind})
		forms := map[string][]byte{"PKCS#8": p.KeyPEM, "PKCS#8 and a tail in the block": block("PRIVATE KEY", join(der(f.t, p.KeyPEM), []byte{5, 0}))}
		add := func(form string, data []byte) { forms[form] = data }
		for label, old := range map[string][]byte{"RSA PRIVATE KEY": p.KeyPKCS1PEM, "EC PRIVATE KEY": p.KeySEC1PEM} {
			if old == nil {
				continue
			}
			add(label, old)
			add(label+" and a tail in the block", block(label, join(der(f.t, old), []byte{5, 0})))
			add(label+" as PRIVATE KEY", block("PRIVATE KEY", der(f.t, old)))
			add("PKCS#8 as "+label, block(label, der(f.t, p.KeyPEM)))
			add(label+" as ANY PRIVATE KEY", block("ANY PRIVATE KEY", der(f.t, old)))
			add(label+" encrypted", f.openssl(old, label == "RSA PRIVATE KEY"))
		}
		if p.KeySEC1PEM != nil {
			add("SEC1 after parameters", join(ecParameters, p.KeySEC1PEM))
			add("SEC1 before parameters", join(p.KeySEC1PEM, ecParameters))
		}
		add("PKCS#8 encrypted", f.openssl(p.KeyPEM, false))
		for _, form := range slices.Sorted(maps.Keys(forms)) {
			c := f.add(fmt.Sprintf("key %s: %s", kind, form), p.Chain, forms[form])
			c.needsFront = kind == mint.Ed25519
		}
	}
}

// openssl encrypts a key: PKCS#8, or as it was done before.
func (f *forger) openssl(key []byte, traditional bool) []byte {
	args := []string{"pkey", "-aes128", "-passout", "pass:secret"}
	if traditional {
		args = append(args, "-traditional")
	}
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = bytes.NewReader(key)
	out, err := cmd.Output()
	require.NoError(f.t, err)
	return out
}

// oddKeys: RSA of unusual make, and kinds that only OpenSSL makes.
func (f *forger) oddKeys() {
	for name, make := range map[string]func() (*rsa.PrivateKey, error){
		"2047 bits":           func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2047) },
		"2049 bits":           func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2049) },
		"2048 bits, 3 primes": multiPrime(3, 2048),
		"4096 bits, 4 primes": multiPrime(4, 4096),
		"8192 bits, 5 primes": multiPrime(5, 8192),
		"8200 bits, 9 primes": multiPrime(9, 8200),
		"exponent 3":          func() (*rsa.PrivateKey, error) { return exponent3(2048) },
		"8192 bits":           func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 8192) },
	} {
		if !soak && name == "8192 bits" {
			continue // takes half a minute to find
		}
		key, err := make()
		require.NoError(f.t, err, name)
		p := f.issue(mint.Leaf{Signer: key})
		f.add("RSA of "+name+": PKCS#8", p.Chain, p.KeyPEM)
		f.add("RSA of "+name+": PKCS#1", p.Chain, p.KeyPKCS1PEM)
	}
	for name, args := range map[string]string{
		"secp256k1":         "ec -pkeyopt ec_paramgen_curve:secp256k1",
		"brainpool":         "ec -pkeyopt ec_paramgen_curve:brainpoolP256r1",
		"explicit curve":    "ec -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit",
		"P-256, plain":      "ec -pkeyopt ec_paramgen_curve:P-256",
		"Ed448":             "ed448",
		"RSASSA-PSS":        "rsa-pss -pkeyopt rsa_keygen_bits:2048",
		"RSA, exponent 2³²": "rsa -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:4294967297",
	} {
		cert, key := f.selfSigned(name, args)
		f.add("openssl's "+name, cert, key).untrusted = true
	}
}

func (f *forger) selfSigned(name, args string) (cert, key []byte) {
	file := f.t.TempDir() + "/key.pem"
	argv := []string{"req", "-x509", "-nodes", "-days", "9", "-subj", "/CN=mail.example.com", "-addext", "subjectAltName=DNS:mail.example.com",
		"-addext", "basicConstraints=critical,CA:FALSE", "-keyout", file, "-newkey"}
	cert, err := exec.Command("openssl", append(argv, strings.Fields(args)...)...).Output()
	require.NoError(f.t, err, name)
	key, err = os.ReadFile(file)
	require.NoError(f.t, err)
	return cert, key
}

// multiPrime makes RSA keys of more than two primes, which nobody should, but
// which OpenSSL offers. Large ones of many primes are quick to find.
func multiPrime(primes, bits int) func() (*rsa.PrivateKey, error) {
	return func() (*rsa.PrivateKey, error) {
		return rsa.GenerateMultiPrimeKey(rand.Reader, primes, bits) //lint:ignore SA1019 to be judged, not used
	}
}

// exponent3 makes an RSA key as some hardware did.
func exponent3(bits int) (*rsa.PrivateKey, error) {
	one, three := big.NewInt(1), big.NewInt(3)
	for {
		p, err := rand.Prime(rand.Reader, bits/2)
		if err != nil {
			return nil, err
		}
		q, err := rand.Prime(rand.Reader, bits/2)
		if err != nil {
			return nil, err
		}
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		d := new(big.Int).ModInverse(three, phi)
		if n := new(big.Int).Mul(p, q); d != nil && n.BitLen() == bits {
			key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: 3}, D: d, Primes: []*big.Int{p, q}}
			key.Precompute()
			return key, key.Validate()
		}
	}
}

var (
	beginLine = regexp.MustCompile(`(?m)^-----BEGIN`)
	lineEnd   = regexp.MustCompile(`\n`)
	bodyLine  = regexp.MustCompile(`(?m)^([A-Za-z0-9+/=]{1,64})\n`)
	inBody    = regexp.MustCompile(`([A-Za-z0-9+/]{20})\n`)
)

func replaced(what *regexp.Regexp, with string) func([]byte) []byte {
	return func(data []byte) []byte { return what.ReplaceAll(data, []byte(with)) }
}

func around(before, after string) func([]byte) []byte {
	return func(data []byte) []byte { return join([]byte(before), data, []byte(after)) }
}

func constant(content string) func([]byte) []byte {
	return func([]byte) []byte { return []byte(content) }
}

// wrapped are the things that editors, mail programs, copy and paste and bad
// disks do to a PEM file.
var wrapped = map[string]func([]byte) []byte{
	"CRLF":                        replaced(lineEnd, "\r\n"),
	"CR":                          replaced(lineEnd, "\r"),
	"byte order mark":             around("\xef\xbb\xbf", ""),
	"two byte order marks":        around("\xef\xbb\xbf\xef\xbb\xbf", ""),
	"UTF-16":                      func(data []byte) []byte { return utf16le(string(data)) },
	"no final newline":            bytes.TrimSpace,
	"empty lines between":         replaced(beginLine, "\n\n-----BEGIN"),
	"empty lines everywhere":      replaced(lineEnd, "\n\n"),
	"text before":                 around("subject=CN = mail.example.com\nissuer=CN = R11\n", ""),
	"text between":                replaced(beginLine, "Bag Attributes\n    localKeyID: 01\n-----BEGIN"),
	"text after":                  around("", "and so on\n"),
	"text after the last dash":    func(data []byte) []byte { return join(bytes.TrimSpace(data), []byte(" # end")) },
	"garbage after":               around("", "\x00\x01\xfe\xff\x00\n\x80"),
	"garbage before":              around("\x00\x01\xfe\xff\x00\n\x80\n", ""),
	"text that begins a block":    around("this is a -----BEGIN CERTIFICATE----- line\n", ""),
	"a block that only begins":    around("", "-----BEGIN CERTIFICATE-----\n"),
	"a block that only ends":      around("", "-----END CERTIFICATE-----\n"),
	"an empty block":              around("", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"),
	"spaces before each line":     replaced(regexp.MustCompile(`(?m)^`), "  "),
	"spaces after each line":      replaced(lineEnd, "  \n"),
	"tabs after each line":        replaced(lineEnd, "\t\n"),
	"quoted with >":               replaced(regexp.MustCompile(`(?m)^`), "> "),
	"lines of 128":                replaced(regexp.MustCompile(`([A-Za-z0-9+/]{64})\n([A-Za-z0-9+/=]+)\n`), "$1$2\n"),
	"lines of 32":                 replaced(regexp.MustCompile(`([A-Za-z0-9+/]{32})`), "$1\n"),
	"body in one line":            replaced(regexp.MustCompile(`([A-Za-z0-9+/]{64})\n`), "$1"),
	"headers in each block":       replaced(regexp.MustCompile(`(-----BEGIN [A-Z0-9 ]+-----\n)`), "${1}X-Made-By: hand\n\n"),
	"a header without empty line": replaced(regexp.MustCompile(`(-----BEGIN [A-Z0-9 ]+-----\n)`), "${1}X-Made-By: hand\n"),
	"truncated base64":            func(data []byte) []byte { return data[:2*len(data)/3] },
	"truncated first line":        func(data []byte) []byte { return data[:20] },
	"last line lost":              func(data []byte) []byte { return data[:bytes.LastIndexByte(bytes.TrimSpace(data), '\n')] },
	"first line lost":             func(data []byte) []byte { return data[bytes.IndexByte(data, '\n')+1:] },
	"first body line lost":        func(data []byte) []byte { return bodyLine.ReplaceAll(data[:100], nil) },
	"body damaged":                replaced(inBody, "$1!\n"),
	"padding added":               replaced(inBody, "$1=\n"),
	"NUL in the body":             replaced(inBody, "$1\x00\n"),
	"other END":                   replaced(regexp.MustCompile(`-----END [A-Z ]+-----`), "-----END SOMETHING-----"),
	"a dash lost":                 replaced(regexp.MustCompile(`-----BEGIN`), "----BEGIN"),
	"lower-case label": func(data []byte) []byte {
		return regexp.MustCompile(`-----BEGIN [A-Z0-9 ]+-----`).ReplaceAllFunc(data, bytes.ToLower)
	},
	"twice": func(data []byte) []byte { return join(data, data) },
	"empty": constant(""),
	"white": constant(" \n\t\r\n"),
	"HTML":  constant("<!DOCTYPE html><title>404 Not Found</title>\n"),
	"DER":   func(data []byte) []byte { b, _ := pem.Decode(data); return b.Bytes },
}

func utf16le(text string) []byte {
	out := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(text)) {
		out = append(out, byte(u), byte(u>>8))
	}
	return out
}

// wrappings: each of them on the certificate, on the key, and on both.
func (f *forger) wrappings() {
	for _, kind := range someKeys() {
		for _, name := range slices.Sorted(maps.Keys(wrapped)) {
			p, wrap := f.issue(mint.Leaf{Key: kind}), wrapped[name]
			key := p.KeyPEM
			if p.KeyPKCS1PEM != nil {
				key = p.KeyPKCS1PEM
			}
			f.add(fmt.Sprintf("%s: certificate of %s", name, kind), wrap(p.Chain), key)
			f.add(fmt.Sprintf("%s: key of %s", name, kind), p.Chain, wrap(key))
			f.add(fmt.Sprintf("%s: pair of %s", name, kind), wrap(p.Chain), wrap(key))
		}
	}
}

// blocks: others than those that belong there, and others' names for those.
func (f *forger) blocks() {
	other := f.issue(mint.Leaf{})
	for _, kind := range someKeys() {
		p := f.issue(mint.Leaf{Key: kind})
		public, err := x509.MarshalPKIXPublicKey(p.Key.Public())
		require.NoError(f.t, err)
		extras := map[string][]byte{
			"EC PARAMETERS": block("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}), "DH PARAMETERS": block("DH PARAMETERS", []byte{48, 6, 2, 1, 23, 2, 1, 5}),
			"PUBLIC KEY": block("PUBLIC KEY", public), "X509 CRL": block("X509 CRL", []byte{48, 0}), "another certificate": other.LeafPEM, "another key": other.KeyPEM, "the key": p.KeyPEM, "the leaf": p.LeafPEM,
		}
		for _, name := range slices.Sorted(maps.Keys(extras)) {
			f.add(fmt.Sprintf("%s before the certificate of %s", name, kind), join(extras[name], p.Chain), p.KeyPEM)
			f.add(fmt.Sprintf("%s after the certificate of %s", name, kind), join(p.Chain, extras[name]), p.KeyPEM)
			f.add(fmt.Sprintf("%s before the key of %s", name, kind), p.Chain, join(extras[name], p.KeyPEM))
			f.add(fmt.Sprintf("%s after the key of %s", name, kind), p.Chain, join(p.KeyPEM, extras[name]))
		}
		for _, label := range []string{"X509 CERTIFICATE", "TRUSTED CERTIFICATE", "CERTIFICATE REQUEST", "PKCS7", "certificate", "CERTIFICATE "} {
			f.add(fmt.Sprintf("certificate of %s as %q", kind, label), join(block(label, p.Cert.Raw), p.IssuerPEM), p.KeyPEM)
			f.add(fmt.Sprintf("intermediate of %s as %q", kind, label), join(p.LeafPEM, block(label, f.ca.Issuer.Raw)), p.KeyPEM)
		}
		f.add(fmt.Sprintf("key of another pair, %s", kind), p.Chain, other.KeyPEM)
	}
}

func (f *forger) sizes() {
	for name, size := range map[string]int{"64 KiB": 64 << 10, "1 MiB": 1 << 20, "2 MiB": 2 << 20, "10 MB": 10e6} {
		p := f.issue(mint.Leaf{})
		padded := func(data []byte) []byte { return join(bytes.Repeat([]byte("padding\n"), (size-len(data))/8), data) }
		f.add("certificate of "+name, padded(p.Chain), p.KeyPEM)
		f.add("key of "+name, p.Chain, padded(p.KeyPEM))
		f.add("pair of "+name, padded(p.Chain), padded(p.KeyPEM))
	}
}
