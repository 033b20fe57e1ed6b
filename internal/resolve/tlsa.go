package resolve

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/miekg/dns"

	"mailu-hook/internal/dane"
)

// TLSA is what the DNS says of the TLSA records for port 25 of a host.
type TLSA struct {
	// Base is the host whose records these are: the one asked for, or the one
	// that its alias leads to (RFC 7671, section 7).
	Base    string
	Owner   string        // name of the records themselves, which may be an alias of Base's as well
	Records []dane.Record // empty: there are none
	Secure  bool          // validated by a resolver that we trust: only then do they count
	TTL     time.Duration // how long a sender may keep using them
}

// TLSA looks up the records that a sender delivering to host would find. An error
// means that there was no answer; a sender would then defer the mail (RFC 7672,
// section 2.1.1).
//
// The address is looked up at the same time, for two reasons. If host is an alias
// and the whole chain of aliases is validated, a sender looks first at the target,
// then at host (RFC 7671, section 7; RFC 7672, section 2.2.3). And if the address
// is not validated, it does not look for TLSA records at all, unless host itself
// is validated and only the target of its alias is not (section 2.2.2).
func (r *Resolver) TLSA(ctx context.Context, host string) (TLSA, error) {
	type found struct {
		TLSA
		err error
	}
	here := make(chan found, 1)
	go func() {
		t, err := r.tlsa(ctx, host)
		here <- found{t, err}
	}()
	address, err := r.ask(ctx, host, dns.TypeA)
	if err != nil {
		<-here
		return TLSA{}, err
	}
	secure := address.secure
	if alias := dns.CanonicalName(host) != dns.Fqdn(address.name); alias && secure {
		there, err := r.tlsa(ctx, address.name)
		if err != nil || len(there.Records) > 0 && there.Secure {
			<-here
			return there, err
		}
	} else if alias {
		itself, err := r.ask(ctx, host, dns.TypeCNAME)
		if err != nil {
			<-here
			return TLSA{}, err
		}
		secure = itself.secure
	}
	f := <-here
	f.Secure = f.Secure && secure
	return f.TLSA, f.err
}

func (r *Resolver) tlsa(ctx context.Context, host string) (TLSA, error) {
	a, err := r.ask(ctx, dane.Owner(host), dns.TypeTLSA)
	if err != nil {
		return TLSA{}, err
	}
	t := TLSA{Base: host, Owner: a.name + ".", Secure: a.secure, TTL: a.ttl}
	for _, record := range a.records {
		if tlsa, ok := record.(*dns.TLSA); ok {
			data, _ := hex.DecodeString(tlsa.Certificate) // written by the library; what is not hex matches nothing
			t.Records = append(t.Records, dane.Record{Usage: tlsa.Usage, Selector: tlsa.Selector, Matching: tlsa.MatchingType, Data: data})
		}
	}
	return t, nil
}
