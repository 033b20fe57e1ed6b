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
	switch {
	case err != nil:
		return fmt.Errorf("updating %s at %s: %s", say.Plain(zone), server, say.Plain(err.Error()))
	case reply.Rcode != dns.RcodeSuccess:
		return fmt.Errorf("updating %s at %s: the server says %s%s", say.Plain(zone), server, dns.RcodeToString[reply.Rcode], tsigError(reply))
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

// tsigError is why a server did not accept the signature, if it says so.
func tsigError(reply *dns.Msg) string {
	if t := reply.IsTsig(); t != nil && t.Error != 0 {
		return fmt.Sprintf(" (%s)", dns.RcodeToString[int(t.Error)])
	}
	return ""
}
