package mint

import (
	"bytes"
	"crypto/x509"
)

// Odd is a pair whose leaf crypto/x509 refuses to parse and OpenSSL serves: its
// organization is a PrintableString with an @ in it. The signature does not fit, which
// no server looks at.
func (ca *CA) Odd(l Leaf) (*Pair, error) {
	edit := l.Edit
	l.Edit = func(t *x509.Certificate) {
		if edit != nil {
			edit(t)
		}
		t.Subject.Organization = []string{"mail AT example"}
	}
	pair, err := ca.Issue(l)
	if err != nil {
		return nil, err
	}
	der := bytes.Replace(pair.Cert.Raw, []byte("mail AT example"), []byte("mail @@ example"), 1)
	pair.Cert = &x509.Certificate{Raw: der}
	pair.LeafPEM = certPEM(pair.Cert)
	pair.Chain = append(bytes.Clone(pair.LeafPEM), pair.IssuerPEM...)
	return pair, nil
}
