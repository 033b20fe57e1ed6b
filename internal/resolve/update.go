package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"

	"mailu-hook/internal/say"
)

// Updater changes TXT records by dynamic updates (RFC 2136) at the primary server
// of their zone, signed by a shared key (TSIG, RFC 8945) if it has one.
type Updater struct {
	Server    string // host, or host:port
	Key       string // name of the shared key; "" signs nothing
	Algorithm string // hmac-sha256, …
	Secret    string // base64
}

const (
	updateLimit = 10 * time.Second // one exchange
	fudge       = 300              // seconds by which clocks may differ (RFC 8945, section 10)
)

// Add adds a record; alone makes it the only TXT record of that name.
func (u Updater) Add(ctx context.Context, name, value string, ttl time.Duration, alone bool) error {
	return u.change(ctx, name, func(m *dns.Msg) {
		record := txt(name, value, ttl)
		if alone {
			m.RemoveRRset(record)
		}
		m.Insert(record)
	})
}

// Remove removes a record. That there is none is no error.
func (u Updater) Remove(ctx context.Context, name, value string) error {
	return u.change(ctx, name, func(m *dns.Msg) { m.Remove(txt(name, value, 0)) })
}

func txt(name, value string, ttl time.Duration) []dns.RR {
	header := dns.RR_Header{Name: dns.Fqdn(name), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(ttl / time.Second)}
	return []dns.RR{&dns.TXT{Hdr: header, Txt: []string{value}}}
}

func (u Updater) change(ctx context.Context, name string, fill func(*dns.Msg)) error {
	server := u.Server
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(strings.Trim(server, "[]"), "53")
	}
	zone, err := zoneAt(ctx, server, name)
	if err != nil {
		return fmt.Errorf("finding the zone of %s: %w", say.Plain(name), err)
	}
	m := new(dns.Msg).SetUpdate(zone)
	fill(m)
	client := dns.Client{Net: "tcp", Timeout: updateLimit}
	if u.Key != "" {
		key := strings.ToLower(dns.Fqdn(u.Key))
		client.TsigSecret = map[string]string{key: u.Secret}
		m.SetTsig(key, strings.ToLower(dns.Fqdn(u.Algorithm)), fudge, time.Now().Unix())
	}
	reply, _, err := client.ExchangeContext(ctx, m, server)
	refused := ""
	if reply != nil {
		refused = u.refused(reply)
	}
	switch {
	case refused != "":
		return fmt.Errorf("updating %s at %s: %s", say.Plain(zone), server, refused)
	case err != nil:
		return fmt.Errorf("updating %s at %s: %s", say.Plain(zone), server, say.Plain(err.Error()))
	case reply.Rcode != dns.RcodeSuccess:
		return fmt.Errorf("updating %s at %s: the server says %s", say.Plain(zone), server, dns.RcodeToString[reply.Rcode])
	}
	return nil
}

// zoneAt asks an authoritative server in which of its zones a name is: its answer,
// even that there is no such name, comes with the SOA record (RFC 2308, section
// 3).
func zoneAt(ctx context.Context, server, name string) (string, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.TypeSOA)
	m.RecursionDesired = false
	client := dns.Client{Net: "tcp", Timeout: updateLimit}
	reply, _, err := client.ExchangeContext(ctx, m, server)
	if err != nil {
		return "", fmt.Errorf("asking %s: %s", server, say.Plain(err.Error()))
	}
	for _, record := range append(reply.Answer, reply.Ns...) {
		if soa, ok := record.(*dns.SOA); ok {
			return soa.Hdr.Name, nil
		}
	}
	if reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		return "", fmt.Errorf("%s says %s", server, dns.RcodeToString[reply.Rcode])
	}
	return "", errors.New(server + " has no zone for it")
}

// refused is why a server did not accept the signature (RFC 8945, section 5.2), "" if
// it does not say that. Its reply is then not signed.
func (u Updater) refused(reply *dns.Msg) string {
	t := reply.IsTsig()
	if t == nil || t.Error == 0 {
		return ""
	}
	code, key := dns.RcodeToString[int(t.Error)], say.Plain(u.Key)
	switch int(t.Error) {
	case dns.RcodeBadKey:
		return fmt.Sprintf("the server does not know the key %s with %s (%s)", key, say.Plain(u.Algorithm), code)
	case dns.RcodeBadSig:
		return fmt.Sprintf("the server has another secret for the key %s (%s)", key, code)
	case dns.RcodeBadTime:
		return fmt.Sprintf("the clocks of this host and of the server differ (%s)", code)
	}
	return fmt.Sprintf("the server refused the signature (%s)", code)
}
