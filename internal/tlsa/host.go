// Package tlsa is the policy that mailu-hook follows for DANE: it compares what
// the DNS publishes for each host of a mail server with the chain that the
// server sends or is about to send, and decides what follows from that: whether
// a certificate may be installed ([Rule]), whether a key must stay ([Pins]), and
// when a prepared key may take over ([RollOver]).
//
// Package dane says what a sender makes of a set of records, package resolve
// asks for them. Nothing here changes anything, and only [LookUp] asks anybody.
package tlsa

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"mailu-hook/internal/dane"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/resolve"
)

// Host is what the DNS publishes for port 25 of one host, compared with a
// chain.
type Host struct {
	Name string
	resolve.TLSA
	Verdict dane.Verdict // regardless of whether the records were validated
	By      dane.Record  // the record that matches
	Lacks   dane.Record  // the record to add so that the chain matches; set only for a Mismatch
	Err     error        // why the records could not be looked up
}

// State is what a host's records mean to a sender that checks DANE, in one word
// that the output uses.
type State string

// The states.
const (
	Match    State = "match"
	Mismatch State = "mismatch" // the sender does not deliver
	None     State = "none"     // nothing is published
	Unusable State = "unusable" // no record that a mail server can use
	Insecure State = "insecure" // not validated, or not by a resolver we trust: binds nobody, or we cannot know
	Unknown  State = "unknown"  // the DNS could not be asked
)

// State sums the host up.
func (h *Host) State() State {
	switch {
	case h.Err != nil:
		return Unknown
	case h.Verdict == dane.None:
		return None
	case !h.Secure:
		return Insecure
	case h.Verdict == dane.Unusable:
		return Unusable
	case h.Verdict == dane.Match:
		return Match
	}
	return Mismatch
}

// Compare makes a Host of an answer of the DNS. The chain, leaf first, may be
// empty: then only whether there are usable records counts.
func Compare(name string, found resolve.TLSA, chain []*x509.Certificate, now time.Time) Host {
	h := Host{Name: name, TLSA: found}
	names := []string{name, found.Base} // under which a sender looks for the server
	h.Verdict, h.By = dane.Judge(found.Records, chain, names, now)
	if h.Verdict == dane.Mismatch && len(chain) > 0 {
		h.Lacks = dane.ToPublish(found.Records, chain, names, now)
	}
	return h
}

// Holds reports whether a record is published for the host.
func (h *Host) Holds(r dane.Record) bool { return slices.ContainsFunc(h.Records, r.Equal) }

// ZoneLine is a record as a line of a zone file, under the name that the host's
// records have or would have.
func (h *Host) ZoneLine(r dane.Record) string {
	return fmt.Sprintf("%s IN TLSA %s", cmp.Or(h.Owner, dane.Owner(h.Name)), r)
}

// Unvalidated says what records that nobody vouches for would have meant.
func (h *Host) Unvalidated() string {
	switch h.Verdict {
	case dane.Match:
		return "they match"
	case dane.Mismatch:
		return "they do not match"
	}
	return "they are unusable"
}

// MailHosts are those of hostnames that can have TLSA records, as the DNS
// spells them: addresses have none.
func MailHosts(hostnames []string) []string {
	var hosts []string
	for _, name := range hostnames {
		name = mailu.CanonicalName(name)
		if _, err := netip.ParseAddr(name); err != nil && name != "" {
			hosts = append(hosts, name)
		}
	}
	return hosts
}

// lookUpLimit is how long the DNS may take for all hosts together.
const lookUpLimit = 3 * time.Second

// LookUp asks for the records of all hosts at once, and compares them with the
// chain. It returns within three seconds; a host without an answer has an Err.
func LookUp(ctx context.Context, r *resolve.Resolver, hosts []string, chain []*x509.Certificate) []Host {
	ctx, cancel := context.WithTimeoutCause(ctx, lookUpLimit, fmt.Errorf("no answer within %s", lookUpLimit))
	defer cancel()
	all := make([]Host, len(hosts))
	var asking sync.WaitGroup
	for i, name := range hosts {
		asking.Go(func() {
			found, err := r.TLSA(ctx, name)
			if err != nil {
				all[i] = Host{Name: name, Err: err}
				return
			}
			all[i] = Compare(name, found, chain, time.Now())
		})
	}
	asking.Wait()
	return all
}
