package mint

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
)

// Key is a kind of private key. The zero value means P256.
type Key string

// The kinds of keys. RSA1024 and P224 exist to be refused.
const (
	RSA1024 Key = "rsa1024"
	RSA2048 Key = "rsa2048"
	RSA3072 Key = "rsa3072"
	RSA4096 Key = "rsa4096"
	P224    Key = "p224"
	P256    Key = "p256"
	P384    Key = "p384"
	P521    Key = "p521"
	Ed25519 Key = "ed25519"
)

var rsaKeys = map[Key]func() (*rsa.PrivateKey, error){
	RSA1024: rsaOnce(1024),
	RSA2048: rsaOnce(2048),
	RSA3072: rsaOnce(3072),
	RSA4096: rsaOnce(4096),
}

func rsaOnce(bits int) func() (*rsa.PrivateKey, error) {
	return sync.OnceValues(func() (*rsa.PrivateKey, error) {
		return rsa.GenerateKey(rand.Reader, bits)
	})
}

var curves = map[Key]elliptic.Curve{
	P224: elliptic.P224(),
	"":   elliptic.P256(),
	P256: elliptic.P256(),
	P384: elliptic.P384(),
	P521: elliptic.P521(),
}

func (k Key) generate() (crypto.Signer, error) {
	var key crypto.Signer
	var err error
	if curve, ok := curves[k]; ok {
		key, err = ecdsa.GenerateKey(curve, rand.Reader)
	} else if generate, ok := rsaKeys[k]; ok {
		key, err = generate()
	} else if k == Ed25519 {
		_, key, err = ed25519.GenerateKey(rand.Reader)
	} else {
		err = errors.New("unknown kind of key")
	}
	if err != nil {
		return nil, fmt.Errorf("making a key %q: %w", string(k), err)
	}
	return key, nil
}

// keyPEM encodes a private key as PKCS#8, SEC1 (EC keys only) and PKCS#1 (RSA keys
// only).
func keyPEM(key crypto.Signer) (pkcs8, sec1, pkcs1 []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("encoding a key: %w", err)
	}
	pkcs8 = encode("PRIVATE KEY", der)
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("encoding a key: %w", err)
		}
		sec1 = encode("EC PRIVATE KEY", der)
	case *rsa.PrivateKey:
		pkcs1 = encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	}
	return pkcs8, sec1, pkcs1, nil
}

func certPEM(c *x509.Certificate) []byte { return encode("CERTIFICATE", c.Raw) }

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
