package health

import "time"

// Renewal is when the next certificate is to be expected, and who gets it.
type Renewal struct {
	From    time.Time
	By      string // who: certbot, or mailu-hook renew
	Timer   string // what runs that
	Lineage string

	Failures int    // in a row
	Failure  string // the last
}

// Renewal tells when the next certificate is to be expected, as far as that is
// known: what is planned, or else what certbot will do with the newest lineage.
// It is false for one that is not certbot's, or that nothing runs certbot for.
//
// certbot renews when a third of the lifetime is left, or half of one shorter
// than ten days (certbot/_internal/renewal.py, since version 4; before that with
// 30 days left, which of 90 is the same).
func (f *Front) Renewal(s Schedule) (Renewal, bool) {
	if f.Planned != nil {
		return *f.Planned, true
	}
	l := f.Newest()
	if l == nil || !l.Certbot || s.Certbot.By == "" {
		return Renewal{}, false
	}
	const short = 10 * 24 * time.Hour
	leaf := l.Chain[0]
	ahead := Lifetime(leaf) / 3
	if Lifetime(leaf) < short {
		ahead = Lifetime(leaf) / 2
	}
	return Renewal{From: leaf.NotAfter.Add(-ahead), By: "certbot", Timer: s.Certbot.By, Lineage: l.Path}, true
}
