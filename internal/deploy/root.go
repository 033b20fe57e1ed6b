package deploy

import (
	"crypto/x509"

	"mailu-hook/hook"
)

// AppendRoot says whether a chain is sent with its root, which only a TLSA record
// of the root needs. The zero value sends none.
type AppendRoot struct {
	Auto bool              // the trusted one that the chain leads to
	Root *x509.Certificate // this one
}

// withRoot is the bundle with its root appended, if the options ask for that.
func (t *Target) withRoot(b *hook.Bundle) (*hook.Bundle, error) {
	root := t.o.AppendRoot.Root
	if t.o.AppendRoot.Auto {
		root = t.rules().Root(b.Chain)
	}
	if root == nil { // none is wanted, the chain holds it, or the rules will say what is wrong
		return b, nil
	}
	return b.Append(root)
}
