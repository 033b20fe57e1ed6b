package health

import (
	"slices"

	"mailu-hook/internal/tlsa"
)

// dane judges what senders that check DANE make of what port 25 serves. Insecure
// and unusable records bind nobody (RFC 7672, sections 2.1.1 and 2.2).
//
// Most resolvers cannot validate, and most servers publish nothing. So that nothing
// can be found out counts only where DANE is used, or required.
func (j *judgement) dane(f *Front) {
	used := j.o.RequireDANE || f.Memory.Published || slices.ContainsFunc(f.DANE, func(h tlsa.Host) bool {
		return h.State() != tlsa.Unknown && h.State() != tlsa.None
	})
	for _, h := range f.DANE {
		switch h.State() {
		case tlsa.Mismatch:
			j.find(Critical, TLSAMismatch, "publish in addition: "+h.ZoneLine(h.Lacks), "no TLSA record of %s matches what port 25 serves, so mail servers that check DANE do not deliver", h.Name)
		case tlsa.Unknown:
			if !used {
				continue
			}
			j.find(Unknown, TLSAUnseen, "use a validating resolver: --resolver ADDR; or skip the check: --dane off", "the TLSA records of %s could not be checked: %v", h.Name, h.Err)
		}
	}
}
