package health

import (
	"mailu-hook/internal/pki"
	"time"
)

// Renewal is when the next certificate is expected, and who gets it.
type Renewal struct {
	From    time.Time
	By      string // who: certbot, or mailu-hook renew
	Timer   string // what runs that
	Lineage string
	Ran     time.Time // when renew last looked at the lineage; zero: not known

	Failures int    // in a row
	Failure  string // the last
}

// Renewal returns when the next certificate is expected, if that is known: what is
// planned, or else what certbot will do with the newest lineage. It is false for
// a lineage that is not certbot's, or if nothing runs certbot.
func (f *Front) Renewal(s Schedule) (Renewal, bool) {
	if f.Planned != nil {
		return *f.Planned, true
	}
	l := f.Newest()
	if l == nil || !l.Certbot || s.Certbot.By == "" {
		return Renewal{}, false
	}
	return Renewal{From: pki.RenewAt(l.Chain[0]), By: "certbot", Timer: s.Certbot.By, Lineage: l.Path}, true
}
