package tlsa

import (
	"crypto/x509"
	"slices"
	"time"

	"mailu-hook/internal/dane"
)

// Pins reports whether a validated record 3 1 1 of the leaf's key is published
// for one of the hosts: then a renewal should keep the key.
func Pins(hosts []Host, leaf *x509.Certificate) bool {
	return slices.ContainsFunc(hosts, func(h Host) bool { return h.Err == nil && h.Secure && h.Holds(dane.OfLeaf(leaf)) })
}

// RollOver is how far the DNS is on the way from the live key to a prepared one.
type RollOver struct {
	// Bound: senders know the server by its records, or nobody can rule it out.
	Bound bool
	// Seen: every host that has records publishes one of the prepared key beside
	// one that the live chain matches.
	Seen bool
	// TTL is the longest of those records.
	TTL time.Duration
}

// Progress compares the hosts, as they were compared with the live chain, with
// the record of the prepared key.
func Progress(hosts []Host, next dane.Record) RollOver {
	r := RollOver{Seen: true}
	for _, h := range hosts {
		switch {
		case h.Err != nil:
			r.Bound, r.Seen = true, false
		case h.Secure && h.Verdict != dane.None:
			r.Bound, r.TTL = true, max(r.TTL, h.TTL)
			r.Seen = r.Seen && h.Verdict == dane.Match && h.Holds(next)
		}
	}
	return r
}

// Published reports whether senders can find the record of the prepared key
// wherever they look for one.
func (r RollOver) Published() bool { return r.Bound && r.Seen }

// Until is when the prepared key may take over, if its record has been published
// since then: after two TTLs no resolver remembers the older set alone (RFC
// 7671, section 8.1).
func (r RollOver) Until(since time.Time) time.Time { return since.Add(2 * r.TTL) }

// Done reports whether the prepared key may take over now: nothing pins the
// server, or everybody can know the record. A zero since means that it is not
// published.
func (r RollOver) Done(since, now time.Time) bool {
	return !r.Bound || !since.IsZero() && !now.Before(r.Until(since))
}
