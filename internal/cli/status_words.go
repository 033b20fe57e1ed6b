package cli

import (
	"crypto/x509"
	"fmt"

	"mailu-hook/hook"
	"mailu-hook/internal/health"
	"mailu-hook/internal/say"
)

// coverage is how many of the front's names a leaf covers.
func coverage(leaf *x509.Certificate, names []string) string {
	missing := hook.Missing(leaf, names)
	switch {
	case len(names) == 0:
		return "?"
	case len(missing) == 0:
		return "all"
	}
	return fmt.Sprintf("%d of %d", len(names)-len(missing), len(names))
}

// chainWord is what clients can make of a chain.
func chainWord(l health.Look, chain []*x509.Certificate) string {
	complete, _ := health.Complete(chain)
	switch {
	case l.Roots == nil:
		return "unknown"
	case health.Trusted(chain, l.Roots, l.At):
		return "complete"
	case len(chain) == 1 && !complete:
		return "leaf_only"
	}
	return "untrusted"
}

func issuer(leaf *x509.Certificate) string {
	name := leaf.Issuer.CommonName
	if name == "" {
		name = leaf.Issuer.String()
	}
	name = say.Plain(name)
	if runes := []rune(name); len(runes) > 24 {
		name = string(runes[:23]) + "…"
	}
	return name
}
