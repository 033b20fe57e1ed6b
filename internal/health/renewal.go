package health

import "time"

// Renewal is when the next certificate is to be expected, and who gets it.
type Renewal struct {
	From    time.Time
	By      string // the timer
	Lineage string
}

// Renewal tells when the newest lineage will be renewed, as far as that is
// known: false for one that is not certbot's, or that nothing runs certbot for.
//
// certbot renews when a third of the lifetime is left, or half of one shorter
// than ten days (certbot/_internal/renewal.py, since version 4; before that with
// 30 days left, which of 90 is the same).
func (f *Front) Renewal(s Schedule) (Renewal, bool) {
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
	return Renewal{leaf.NotAfter.Add(-ahead), s.Certbot.By, l.Path}, true
}
