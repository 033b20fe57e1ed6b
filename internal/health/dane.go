package health

// DANE is how the TLSA records of a hostname compare with what the front
// serves. Whoever looks them up fills Front.DANE.
type DANE struct {
	Host    string
	Verdict DANEVerdict
	Reason  string // of a verdict that is not Match
}

// DANEVerdict is the outcome of the comparison.
type DANEVerdict string

// The verdicts. Insecure and unusable records bind nobody (RFC 7672, sections
// 2.1.1 and 2.2).
const (
	DANEMatch     DANEVerdict = "match"
	DANEMismatch  DANEVerdict = "mismatch"
	DANEInsecure  DANEVerdict = "insecure"
	DANEUnusable  DANEVerdict = "unusable" // published in a form that no sender uses
	DANEUnchecked DANEVerdict = "unchecked"
)

func (j *judgement) dane(f *Front) {
	for _, d := range f.DANE {
		switch d.Verdict {
		case DANEMismatch:
			j.find(Critical, TLSAMismatch, "publish the records that mailu-hook tlsa prints", "no TLSA record of %s matches what port 25 shows, so that mail servers with DANE do not deliver: %s", d.Host, d.Reason)
		case DANEUnchecked:
			j.find(Unknown, TLSAUnseen, "a validating resolver is needed: --resolver", "the TLSA records of %s could not be checked: %s", d.Host, d.Reason)
		}
	}
}
