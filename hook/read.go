package hook

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"

	"mailu-hook/internal/pki"
	"mailu-hook/internal/source"
)

// Offer is what a source holds: a bundle, or several to choose from.
type Offer struct{ source.Content }

// Read reads what src holds. Every failure but the end of ctx is a *Rejection.
// Nothing is written.
func Read(ctx context.Context, src source.Source) (Offer, error) {
	content, err := source.Read(ctx, src)
	return Offer{content}, unreadable(err)
}

// For parses the bundle that covers most of the names, and of several such the
// newest. Every error is a *Rejection.
func (o Offer) For(names []string) (*Bundle, error) {
	pair := o.Best(func(leaf *x509.Certificate) int { return len(names) - len(Missing(leaf, names)) })
	return Parse(pair.Source, pair.Cert, pair.Key)
}

// ReadChain reads the certificates of a file by the rules of Parse, but without a
// key: the leaf is the first that is not a CA. Every error is a *Rejection.
func ReadChain(certFile string) ([]*x509.Certificate, error) {
	data, err := source.ReadFile(certFile)
	if err != nil {
		return nil, unreadable(err)
	}
	b := &Bundle{Source: source.Files(certFile, "")}
	certs, err := b.parseCerts(data)
	if err != nil {
		return nil, err
	}
	chain, _ := pki.Order(pki.LeafOf(certs), certs)
	return chain, nil
}

// unreadable turns a failure to read a file of a source into a *Rejection.
func unreadable(err error) error {
	var failed *source.Error
	if !errors.As(err, &failed) {
		return err
	}
	var lack *source.LackError
	if errors.As(err, &lack) {
		return &Rejection{File: failed.File, Fact: lack.Fact, Remedy: lack.Remedy, cause: err}
	}
	remedy := "name where a certificate is kept: a directory or a file, or --cert FILE --key FILE"
	var outside *source.OutsideError
	var dangling *source.DanglingError
	switch {
	case errors.As(err, &outside):
		remedy = "name the directory that the link leads to with --lineage, or put the file itself here"
	case errors.As(err, &dangling):
		remedy = "mount or copy the directory that the link leads to as well: of certbot all of /etc/letsencrypt, as live/ links into archive/"
	case errors.Is(err, fs.ErrPermission):
		remedy = "run mailu-hook as root, as certbot does; root in a container needs DAC_OVERRIDE for it (in compose, cap_add: [DAC_OVERRIDE])"
	case errors.Is(err, fs.ErrNotExist):
		remedy = "check the path; 'certbot certificates' lists the lineages of this host"
	}
	return &Rejection{File: failed.File, Fact: "cannot be read: " + failed.Err.Error(), Remedy: remedy, cause: err}
}
