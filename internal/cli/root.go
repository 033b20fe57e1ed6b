package cli

import (
	"crypto/x509"
	"os"

	"mailu-hook/hook"
	"mailu-hook/internal/pki"
)

// withRoot is the bundle with its root appended, if --append-root asks for it.
func (d *deployment) withRoot(b *hook.Bundle, rules hook.Rules) (*hook.Bundle, error) {
	name := d.c.text("append-root")
	if name == "" {
		return b, nil
	}
	root := rules.Root(b.Chain)
	if name != "auto" {
		var err error
		if root, err = readRoot(name); err != nil {
			return nil, err
		}
	}
	if root == nil { // the chain holds it, or the rules will say what is wrong
		return b, nil
	}
	return b.Append(root)
}

func readRoot(name string) (*x509.Certificate, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, usageError("--append-root: %v", err)
	}
	chain, err := pki.ParseChain(data)
	if err != nil {
		return nil, usageError("--append-root: %s: %v", name, err)
	}
	if len(chain) > 1 {
		return nil, usageError("--append-root: %s holds more than the one root", name)
	}
	return chain[0], nil
}
