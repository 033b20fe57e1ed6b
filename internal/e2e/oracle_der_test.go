package e2e

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"strings"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// damagedDER: what is wrong below the PEM, where crypto/x509 and OpenSSL need
// not agree.
func (f *forger) damagedDER() {
	root := f.authority("oracle DER root", nil, nil, nil)
	f.trust(root.pem)
	key := f.ecKey(elliptic.P256())
	serial := func(c *x509.Certificate) { c.SerialNumber = big.NewInt(0x4142434445464748) }
	cert := der(f.t, f.leaf(root, key, serial))
	sec1, err := x509.MarshalECPrivateKey(key)
	require.NoError(f.t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(f.t, err)
	good := block("PRIVATE KEY", pkcs8)
	add := func(name string, certDER, keyPEM []byte) { f.add("DER: "+name, block("CERTIFICATE", certDER), keyPEM) }
	swap := func(data []byte, old, new string) []byte {
		require.True(f.t, bytes.Contains(data, []byte(old)), "%q", old)
		return bytes.Replace(data, []byte(old), []byte(new), 1)
	}
	add("as it should be", cert, good)
	add("tail after the certificate", join(cert, []byte{5, 0}), good)
	add("negative serial", f.resign(swap(cert, "ABCDEFGH", "\xc1BCDEFGH"), root.key), good)
	add("serial with a needless zero", f.resign(swap(cert, "ABCDEFGH", "\x00\x01CDEFGH"), root.key), good)
	add("version 1 with extensions", f.resign(swap(cert, "\xa0\x03\x02\x01\x02", "\xa0\x03\x02\x01\x00"), root.key), good)
	add("version 4", f.resign(swap(cert, "\xa0\x03\x02\x01\x02", "\xa0\x03\x02\x01\x03"), root.key), good)
	add("signature damaged", swap(cert, "ABCDEFGH", "ABCDEFGX"), good)
	add("NUL in the name", f.resign(bytes.ReplaceAll(cert, []byte("mail.example.com"), []byte("mail\x00example.com")), root.key), good)
	add("control character in the name", f.resign(bytes.ReplaceAll(cert, []byte("mail.example.com"), []byte("mail\nexample.com")), root.key), good)
	add("point not on the curve", f.resign(swap(cert, string(point(key)), string(point(key)[:64])+"\x00"), root.key), good)
	add("signature algorithms differ", swap(cert, "\x2a\x86\x48\xce\x3d\x04\x03\x02", "\x2a\x86\x48\xce\x3d\x04\x03\x03"), good)

	other := string(point(f.ecKey(elliptic.P256())))
	for name, keyPEM := range map[string][]byte{
		"SEC1 with another public key":    block("EC PRIVATE KEY", swap(sec1, string(point(key)), other)),
		"PKCS#8 with another public key":  block("PRIVATE KEY", swap(pkcs8, string(point(key)), other)),
		"SEC1 with no point":              block("EC PRIVATE KEY", swap(sec1, string(point(key)), strings.Repeat("\x04", 65))),
		"SEC1 of another version":         block("EC PRIVATE KEY", swap(sec1, "\x02\x01\x01", "\x02\x01\x02")),
		"SEC1 of another curve":           block("EC PRIVATE KEY", swap(sec1, "\x2a\x86\x48\xce\x3d\x03\x01\x07", "\x2a\x86\x48\xce\x3d\x03\x01\x01")),
		"PKCS#8 of another version":       block("PRIVATE KEY", swap(pkcs8, "\x02\x01\x00", "\x02\x01\x01")),
		"PKCS#8 of an unknown version":    block("PRIVATE KEY", swap(pkcs8, "\x02\x01\x00", "\x02\x01\x07")),
		"PKCS#8 of another inner version": block("PRIVATE KEY", swap(pkcs8, "\x02\x01\x01", "\x02\x01\x03")),
	} {
		add(name, cert, keyPEM)
	}
	f.damagedRSA()
}

// damagedRSA: a PKCS#1 key says everything twice.
func (f *forger) damagedRSA() {
	p := f.issue(mint.Leaf{Key: mint.RSA2048})
	good := p.Key.(*rsa.PrivateKey)
	type pkcs1 struct {
		Version          int
		N                *big.Int
		E                int
		D, P, Q, X, Y, I *big.Int
	}
	for name, damage := range map[string]func(*pkcs1){
		"nothing":             func(*pkcs1) {},
		"first CRT exponent":  func(k *pkcs1) { k.X = new(big.Int).Add(k.X, big.NewInt(2)) },
		"second CRT exponent": func(k *pkcs1) { k.Y = big.NewInt(3) },
		"CRT coefficient":     func(k *pkcs1) { k.I = new(big.Int).Add(k.I, big.NewInt(1)) },
		"CRT all zero":        func(k *pkcs1) { k.X, k.Y, k.I = new(big.Int), new(big.Int), new(big.Int) },
		"primes exchanged":    func(k *pkcs1) { k.P, k.Q = k.Q, k.P },
		"private exponent":    func(k *pkcs1) { k.D = new(big.Int).Add(k.D, big.NewInt(2)) },
		"larger exponent": func(k *pkcs1) {
			k.D = new(big.Int).Add(k.D, new(big.Int).Mul(new(big.Int).Sub(k.P, big.NewInt(1)), new(big.Int).Sub(k.Q, big.NewInt(1))))
		},
		"public exponent": func(k *pkcs1) { k.E = 3 },
		"negative prime":  func(k *pkcs1) { k.P = new(big.Int).Neg(k.P) },
		"version":         func(k *pkcs1) { k.Version = 1 },
	} {
		k := pkcs1{0, good.N, good.E, good.D, good.Primes[0], good.Primes[1], good.Precomputed.Dp, good.Precomputed.Dq, good.Precomputed.Qinv}
		damage(&k)
		raw, err := asn1.Marshal(k)
		require.NoError(f.t, err)
		f.add("RSA key damaged: "+name, p.Chain, block("RSA PRIVATE KEY", raw))
	}
}

func point(key *ecdsa.PrivateKey) []byte {
	public, _ := key.PublicKey.Bytes() // fails for curves that we do not use
	return public
}

// resign signs a certificate anew whose content was changed.
func (f *forger) resign(raw []byte, signer crypto.Signer) []byte {
	var cert struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	_, err := asn1.Unmarshal(raw, &cert)
	require.NoError(f.t, err)
	sum := sha256.Sum256(cert.TBS.FullBytes)
	signature, err := signer.Sign(rand.Reader, sum[:], crypto.SHA256)
	require.NoError(f.t, err)
	cert.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	signed, err := asn1.Marshal(cert)
	require.NoError(f.t, err)
	return signed
}
