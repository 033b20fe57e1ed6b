package acme

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"

	"mailu-hook/internal/pki"
)

// KeyType names a kind of private key.
type KeyType string

// The key types that public CAs certify and mail clients support.
const (
	EC256   KeyType = "ec256"
	EC384   KeyType = "ec384"
	RSA2048 KeyType = "rsa2048"
	RSA4096 KeyType = "rsa4096"
)

// KeyTypes are all of them, the default first.
var KeyTypes = []KeyType{EC256, EC384, RSA2048, RSA4096}

// newKey generates a private key.
func newKey(kind KeyType) (crypto.Signer, error) {
	switch kind {
	case EC256, "":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case EC384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return nil, fmt.Errorf("unknown key type: %q", string(kind))
}

// keyTypeOf returns the type of a public key, "" if it is not one of KeyTypes.
func keyTypeOf(public crypto.PublicKey) KeyType {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return EC256
		case elliptic.P384():
			return EC384
		}
	case *rsa.PublicKey:
		switch key.N.BitLen() {
		case 2048:
			return RSA2048
		case 4096:
			return RSA4096
		}
	}
	return ""
}

func decodeKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pki.PrivateKey {
		return nil, errors.New("not a private key in PEM")
	}
	key, err := pki.ParseKey(block)
	if err != nil {
		return nil, errors.New("not a private key in PKCS#8") // the cause may quote the key
	}
	return key, nil
}

// newCSR returns a request for names, signed with key. The common name stays empty:
// it cannot hold more than 64 bytes, and clients ignore it (RFC 9525, section 2).
func newCSR(key crypto.Signer, names []string) ([]byte, error) {
	request := &x509.CertificateRequest{}
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil {
			request.IPAddresses = append(request.IPAddresses, ip.AsSlice())
		} else {
			request.DNSNames = append(request.DNSNames, name)
		}
	}
	return x509.CreateCertificateRequest(rand.Reader, request, key)
}
