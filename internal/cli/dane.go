package cli

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/hook"
	"mailu-hook/internal/dane"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/resolve"
)

func daneFlags(fs *pflag.FlagSet) {
	fs.String("dane", "auto", "`MODE`: auto holds back what the validated TLSA records of a host do not match; require also what cannot be checked; off asks nobody")
	fs.Duration("dane-grace", 72*time.Hour, "`TIME` before the end of the installed certificate from which nothing is held back")
	resolverFlags(fs)
}

func resolverFlags(fs *pflag.FlagSet) {
	fs.String("resolver", "", "`ADDR` of the DNS resolver to ask (default: those in /etc/resolv.conf)")
	fs.Bool("trust-ad", false, "believe a resolver that is not on loopback that an answer was validated")
}

const daneLimit = 3 * time.Second // the DNS's share of the time

// published is what the DNS says of one host, held against a chain.
type published struct {
	host string
	resolve.TLSA
	verdict dane.Verdict
	by      dane.Record // that matches
	err     error       // why it could not be asked
}

// lookUp asks for the TLSA records of all hosts at the same time, and judges
// them against chain, unless that is empty.
func lookUp(ctx context.Context, r *resolve.Resolver, hosts []string, chain []*x509.Certificate) []published {
	ctx, cancel := context.WithTimeoutCause(ctx, daneLimit, fmt.Errorf("no answer within %s", daneLimit))
	defer cancel()
	all := make([]published, len(hosts))
	var asking sync.WaitGroup
	for i, host := range hosts {
		asking.Go(func() {
			p := published{host: host}
			if p.TLSA, p.err = r.TLSA(ctx, host); p.err == nil {
				p.verdict, p.by = dane.Judge(p.Records, chain, p.names(), time.Now())
			}
			all[i] = p
		})
	}
	asking.Wait()
	return all
}

// names are those under which a sender looks for the server.
func (p *published) names() []string { return []string{p.host, p.Base} }

// state is the word for it in the output.
func (p *published) state() string {
	switch {
	case p.err != nil:
		return "unknown"
	case p.verdict == dane.None:
		return "none"
	case !p.Secure:
		return "insecure"
	case p.verdict == dane.Unusable:
		return "unusable"
	case p.verdict == dane.Match:
		return "match"
	}
	return "mismatch"
}

// lacks is the record that a host needs for chain, as a zone file has it.
func (p *published) lacks(chain []*x509.Certificate) string {
	return p.zoneLine(dane.ToPublish(p.Records, chain, p.names(), time.Now()))
}

// zoneLine is a record where the host's are, or would be.
func (p *published) zoneLine(r dane.Record) string {
	return fmt.Sprintf("%s IN TLSA %s", firstNonEmpty(p.Owner, dane.Owner(p.host)), r)
}

// mailHosts are the names that can have TLSA records, as the DNS has them.
func mailHosts(hostnames []string) []string {
	var hosts []string
	for _, name := range hostnames {
		name = mailu.CanonicalName(name)
		if _, err := netip.ParseAddr(name); err != nil && name != "" {
			hosts = append(hosts, name)
		}
	}
	return hosts
}

// resolver is the one that the flags name.
func (c *call) resolver() (*resolve.Resolver, error) {
	trust, _ := c.fs.GetBool("trust-ad")
	r, err := resolve.New(c.text("resolver"), trust)
	if err != nil && c.text("resolver") != "" {
		err = usageError("--resolver: %v", err)
	}
	return r, err
}

// guard is what --dane asks for: it holds a deploy back as long as servers that
// follow DANE would not deliver to what the front is to serve.
func (d *deployment) guard() (hook.Guard, error) {
	mode := d.c.text("dane")
	switch mode {
	case "off":
		return nil, nil
	case "auto", "require":
	default:
		return nil, usageError("--dane: %q is none of auto, off, require", mode)
	}
	resolver, err := d.c.resolver()
	if err != nil {
		return nil, err
	}
	hosts := mailHosts(d.target.facts.Hostnames)
	return func(ctx context.Context, b *hook.Bundle) hook.Ruling {
		d.dane = lookUp(ctx, resolver, hosts, b.Chain)
		ruling := rule(d.dane, b)
		if mode == "require" && ruling.Objection == nil {
			ruling.Objection = ruling.Doubt
		}
		return ruling
	}, nil
}

// rule turns what the DNS says of each host into one ruling: a host that does not
// match holds all back, as one certificate serves all.
func rule(all []published, b *hook.Bundle) hook.Ruling {
	var ruling hook.Ruling
	var wrong, records, unknown []string
	for _, p := range all {
		switch p.state() {
		case "mismatch":
			wrong, records = append(wrong, p.host), append(records, p.lacks(b.Chain))
		case "unusable":
			ruling.Warnings = append(ruling.Warnings, fmt.Sprintf("no TLSA record of %s is usable: 'mailu-hook tlsa' prints some that are", p.host))
		case "unknown":
			unknown = append(unknown, p.err.Error())
		case "insecure":
			unknown = append(unknown, fmt.Sprintf("the resolver did not validate those of %s (%s)", p.host, p.unvalidated()))
		}
		if p.Secure {
			ruling.TTL = max(ruling.TTL, p.TTL)
		}
	}
	if wrong != nil {
		ruling.Objection = &hook.Rejection{
			Fact:   fmt.Sprintf("the TLSA records of %s do not match it, and servers that follow DANE would no longer deliver", quoteList(wrong)),
			Remedy: "publish, beside what is there: " + strings.Join(records, "; "),
		}
	}
	if unknown != nil {
		ruling.Doubt = &hook.Rejection{
			Fact:   "its TLSA records could not be checked: " + strings.Join(unknown, "; "),
			Remedy: "name a resolver that validates, and is on this host or trusted: --resolver ADDR --trust-ad; or decide it yourself: --dane off",
		}
	}
	return ruling
}

// unvalidated says what an answer that nobody vouches for would have meant.
func (p *published) unvalidated() string {
	switch p.verdict {
	case dane.Match:
		return "they match"
	case dane.Mismatch:
		return "they do not match"
	}
	return "they are unusable"
}

// daneDoc is a host's part in the JSON.
type daneDoc struct {
	Host    string   `json:"host"`
	State   string   `json:"state"`
	Owner   string   `json:"owner"`
	Records []string `json:"records"`
	Matches string   `json:"matches"`
	TTL     int64    `json:"ttl_seconds"`
	Error   string   `json:"error"`
}

func daneDocs(all []published) []daneDoc {
	var docs []daneDoc
	for _, p := range all {
		doc := daneDoc{Host: p.host, State: p.state(), Owner: p.Owner, Records: []string{}, TTL: int64(p.TTL / time.Second)}
		for _, r := range p.Records {
			doc.Records = append(doc.Records, r.String())
		}
		if p.err != nil {
			doc.Error = p.err.Error()
		} else if p.verdict == dane.Match {
			doc.Matches = p.by.String()
		}
		docs = append(docs, doc)
	}
	return docs
}
