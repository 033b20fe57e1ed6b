package hook

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

// Claim is a certificate that is served or wants to be, and where it is from.
type Claim struct {
	Leaf   *x509.Certificate
	Source string // a lineage; "" if it is not known, or two files
	Gone   bool   // the source does not exist any more
}

// Contest is a candidate that wants to take the place of what is installed.
type Contest struct {
	Installed      *Claim // nil: there is nothing that a server could use
	Candidate      Claim
	Names          []string // HOSTNAMES, the main one first
	Pinned         string   // the only source that may take over unasked; "": any
	ByHand         bool     // someone asked for the candidate
	RolledBackFrom []string // leaves that are not to be installed again unasked
	Now            time.Time
}

// Decide reports whether the candidate takes over, and if not, why. The hook,
// sync, renew and status all go by it:
//
//   - someone who asks by hand always wins; a leaf that was rolled back from is
//     not installed again unasked;
//   - nothing, a placeholder or an expired certificate is always replaced;
//   - a pinned source, and what the source of the installed certificate now holds,
//     takes over whatever its dates, as a CA may round them (ZeroSSL, Sectigo: to
//     00:00 of the day) and a key may have been compromised;
//   - but never a certificate that covers fewer of the names than the installed
//     one, as long as that is valid;
//   - of other sources only a newer certificate takes over, and only once the
//     installed one is due for renewal, or its source is gone or not known; or one
//     that covers more of the names.
func (c Contest) Decide() (takes bool, reason string) {
	leaf, old := c.Candidate.Leaf, c.Installed
	switch {
	case c.ByHand:
		return true, ""
	case slices.Contains(c.RolledBackFrom, pki.Fingerprint(leaf)):
		return false, "it was rolled back from; to install it anyway: mailu-hook install"
	case c.Pinned != "" && c.Candidate.Source != c.Pinned:
		return false, "MAILU_HOOK_LINEAGE names another source, " + c.Pinned
	case old == nil || IsPlaceholder(old.Leaf) || c.Now.After(old.Leaf.NotAfter):
		return true, ""
	case old.Leaf.Equal(leaf):
		return true, ""
	}
	lost := Missing(leaf, c.Names)
	lost = slices.DeleteFunc(lost, func(name string) bool { return len(Missing(old.Leaf, []string{name})) > 0 })
	gained := slices.DeleteFunc(Missing(old.Leaf, c.Names), func(name string) bool { return len(Missing(leaf, []string{name})) > 0 })
	switch {
	case len(lost) > 0:
		return false, fmt.Sprintf("it does not cover %s, which the installed certificate covers until %s", say.Names(lost), say.Day(old.Leaf.NotAfter))
	case len(gained) > 0, c.Pinned != "", c.Candidate.Source != "" && c.Candidate.Source == old.Source:
		return true, ""
	case !leaf.NotBefore.After(old.Leaf.NotBefore):
		return false, fmt.Sprintf("not newer than what is installed (issued on %s, installed one on %s)", say.Time(leaf.NotBefore), say.Time(old.Leaf.NotBefore))
	case old.Source != "" && !old.Gone && c.Now.Before(pki.RenewAt(old.Leaf)):
		return false, fmt.Sprintf("the installed certificate is from %s and not due for renewal until %s", old.Source, say.Day(pki.RenewAt(old.Leaf)))
	}
	return true, ""
}
