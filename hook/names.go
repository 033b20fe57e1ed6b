package hook

import (
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"

	"mailu-hook/internal/mailu"
)

// Missing returns those of names that the leaf does not cover, in the same order. A
// name is trimmed, lower-cased and converted to its A-label form (RFC 5891) before
// it is compared with the DNS names of the leaf; a wildcard matches exactly one
// whole leftmost label (RFC 9525, section 6.3). The DNS names themselves are taken as
// they are: most clients refuse one with a trailing dot or a space. The common name
// does not count (RFC 9525, section 2).
func Missing(leaf *x509.Certificate, names []string) []string {
	var missing []string
	for _, name := range names {
		if !covers(leaf, name) {
			missing = append(missing, name)
		}
	}
	return missing
}

func covers(leaf *x509.Certificate, name string) bool {
	name = mailu.CanonicalName(name)
	if ip, err := netip.ParseAddr(name); err == nil {
		for _, san := range leaf.IPAddresses {
			if got, ok := netip.AddrFromSlice(san); ok && got.Unmap() == ip.Unmap() {
				return true
			}
		}
		return false
	}
	for _, san := range leaf.DNSNames {
		if matchName(strings.ToLower(san), name) {
			return true
		}
	}
	return false
}

func matchName(pattern, name string) bool {
	if pattern == name {
		return name != ""
	}
	suffix, wildcard := strings.CutPrefix(pattern, "*.")
	label, rest, dotted := strings.Cut(name, ".")
	return wildcard && dotted && label != "" && label != "*" && suffix == rest && strings.Contains(suffix, ".")
}

// Beyond returns the DNS names of the leaf that stand for more than these names:
// others, and wildcards.
func Beyond(leaf *x509.Certificate, names []string) []string {
	var beyond []string
	for _, san := range leaf.DNSNames {
		known := slices.ContainsFunc(names, func(name string) bool { return mailu.CanonicalName(name) == mailu.CanonicalName(san) })
		if !known && !slices.Contains(beyond, san) {
			beyond = append(beyond, san)
		}
	}
	return beyond
}
