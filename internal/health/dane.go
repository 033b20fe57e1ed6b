package health

import "mailu-hook/internal/tlsa"

// dane judges what senders that check DANE make of what port 25 shows. Insecure
// and unusable records bind nobody (RFC 7672, sections 2.1.1 and 2.2).
func (j *judgement) dane(f *Front) {
	for _, h := range f.DANE {
		switch h.State() {
		case tlsa.Mismatch:
			j.find(Critical, TLSAMismatch, "publish the records that mailu-hook tlsa prints", "no TLSA record of %s matches what port 25 shows, so that mail servers with DANE do not deliver: publish %s", h.Name, h.ZoneLine(h.Lacks))
		case tlsa.Unknown:
			j.find(Unknown, TLSAUnseen, "a validating resolver is needed: --resolver", "the TLSA records of %s could not be checked: %v", h.Name, h.Err)
		}
	}
}
