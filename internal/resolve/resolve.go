// Package resolve is a small stub resolver: it asks the system's name servers or
// a given one, and passes on whether the answer was validated.
//
// It validates nothing itself. A validating resolver sets the AD bit in its
// answer (RFC 4035, section 3.2.3; RFC 6840, section 5.8), but so could anybody on
// the network between it and us. So the bit is trusted only from a loopback
// address, or where the administrator vouches for that network: with --trust-ad,
// or with "options trust-ad" in resolv.conf, as in glibc.
//
// "There is no such record" is an answer. An error means that there was none:
// nobody replied in time, or the resolver failed, as it does for records with
// bogus signatures.
package resolve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"

	"mailu-hook/internal/say"
)

// Resolver asks name servers. Its methods may be called from several
// goroutines.
type Resolver struct {
	servers []string // host:port, in the order in which they are asked
	trustAD bool     // whatever the address
}

const (
	resolvConf = "/etc/resolv.conf"
	rounds     = 2               // of asking every server
	patience   = 1 * time.Second // for one server
	udpSize    = 1232            // bytes that are not fragmented (DNS flag day 2020)
	maxAliases = 16
)

// New is a resolver that asks the server at addr, an address with or without a
// port, or those of /etc/resolv.conf if addr is "".
func New(addr string, trustAD bool) (*Resolver, error) {
	if addr == "" {
		return fromConf(resolvConf, trustAD)
	}
	if ip, err := netip.ParseAddr(strings.Trim(addr, "[]")); err == nil {
		addr = net.JoinHostPort(ip.String(), "53")
	}
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, fmt.Errorf("%s is not the address of a resolver, such as 127.0.0.1 or [::1]:5353", say.Foreign(addr))
	}
	return &Resolver{servers: []string{addr}, trustAD: trustAD}, nil
}

// fromConf reads a resolv.conf(5). As with glibc, a file that is missing or
// names no server means the one on this host.
func fromConf(name string, trustAD bool) (*Resolver, error) {
	r := &Resolver{trustAD: trustAD}
	f, err := os.Open(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("finding the resolver: %w", err)
	}
	if err == nil {
		defer f.Close()
		if err := r.read(bufio.NewScanner(f)); err != nil {
			return nil, fmt.Errorf("finding the resolver: reading %s: %w", name, err)
		}
	}
	if len(r.servers) == 0 {
		r.servers = []string{"127.0.0.1:53"}
	}
	return r, nil
}

func (r *Resolver) read(lines *bufio.Scanner) error {
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) < 2:
		case fields[0] == "nameserver":
			if ip, err := netip.ParseAddr(fields[1]); err == nil {
				r.servers = append(r.servers, net.JoinHostPort(ip.String(), "53"))
			}
		case fields[0] == "options":
			for _, option := range fields[1:] {
				r.trustAD = r.trustAD || option == "trust-ad"
			}
		}
	}
	return lines.Err()
}

// answer is what the DNS says of the records of one type at a name.
type answer struct {
	name    string // that has them: the one asked for, or what its aliases (CNAME) lead to
	records []dns.RR
	secure  bool          // validated, all the way from the name that was asked for
	ttl     time.Duration // shortest of the records and the aliases
}

// ask asks each server in turn until one has an answer; that there is no such
// record is an answer.
func (r *Resolver) ask(ctx context.Context, name string, kind uint16) (answer, error) {
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(name), kind)
	question.SetEdns0(udpSize, true) // DO: without it some resolvers set no AD
	var failed error
	for range rounds {
		silent := false
		for _, server := range r.servers {
			if ctx.Err() != nil {
				break
			}
			reply, err := exchange(ctx, question, server)
			if err == nil {
				a := read(question, reply)
				a.secure = reply.AuthenticatedData && r.believes(server)
				return a, nil
			}
			failed = err
			var refused *failure
			silent = silent || !errors.As(err, &refused)
		}
		if !silent { // asking again would not change their minds
			break
		}
	}
	if failed == nil {
		failed = context.Cause(ctx)
	}
	return answer{}, wrap(name, kind, failed)
}

func wrap(name string, kind uint16, err error) error {
	return fmt.Errorf("asking for %s of %s: %w", dns.TypeToString[kind], say.Plain(strings.TrimSuffix(name, ".")), err)
}

// failure is a reply without a usable answer.
type failure struct{ text string }

func (f *failure) Error() string { return f.text }

// exchange asks one server, by UDP, and by TCP if the answer does not fit.
func exchange(ctx context.Context, question *dns.Msg, server string) (*dns.Msg, error) {
	var reply *dns.Msg
	for _, network := range []string{"udp", "tcp"} {
		client := dns.Client{Net: network, Timeout: patience}
		var err error
		question.Id = dns.Id()
		reply, _, err = client.ExchangeContext(ctx, question, server)
		if err != nil {
			var slow net.Error
			if errors.As(err, &slow) && slow.Timeout() {
				return nil, fmt.Errorf("%s does not answer", server)
			}
			return nil, fmt.Errorf("%s: %s", server, say.Plain(err.Error()))
		}
		if !reply.Truncated {
			break
		}
	}
	switch {
	case len(reply.Question) != 1 || !strings.EqualFold(reply.Question[0].Name, question.Question[0].Name) || reply.Question[0].Qtype != question.Question[0].Qtype:
		return nil, &failure{server + " answers another question"}
	case reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError:
		return nil, &failure{fmt.Sprintf("%s says %s%s", server, dns.RcodeToString[reply.Rcode], reason(reply))}
	}
	return reply, nil
}

// reason is how a server explains its failure, if it does (RFC 8914).
func reason(reply *dns.Msg) string {
	opt := reply.IsEdns0()
	if opt == nil {
		return ""
	}
	for _, option := range opt.Option {
		if why, ok := option.(*dns.EDNS0_EDE); ok {
			return fmt.Sprintf(" (%s)", say.Plain(strings.TrimSpace(dns.ExtendedErrorCodeToString[why.InfoCode]+" "+why.ExtraText)))
		}
	}
	return ""
}

// read follows the aliases in a reply to the records that were asked for.
func read(question, reply *dns.Msg) answer {
	asked := question.Question[0]
	name, shortest := asked.Name, uint32(1<<31)
	note := func(h *dns.RR_Header) { shortest = min(shortest, h.Ttl) }
	for range maxAliases {
		next := ""
		for _, record := range reply.Answer {
			if alias, ok := record.(*dns.CNAME); ok && asked.Qtype != dns.TypeCNAME && strings.EqualFold(alias.Hdr.Name, name) {
				next = alias.Target
				note(&alias.Hdr)
			}
		}
		if next == "" {
			break
		}
		name = next
	}
	a := answer{name: strings.ToLower(strings.TrimSuffix(name, "."))}
	for _, record := range reply.Answer {
		if h := record.Header(); h.Rrtype == asked.Qtype && strings.EqualFold(h.Name, name) {
			a.records = append(a.records, record)
			note(h)
		}
	}
	if shortest < 1<<31 {
		a.ttl = time.Duration(shortest) * time.Second
	}
	return a
}

// dockersOwn is where Docker's own resolver answers in a container. It validates
// nothing, and asks others over the network.
var dockersOwn = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// believes reports whether the AD bit of a server is trusted.
func (r *Resolver) believes(server string) bool {
	addr, err := netip.ParseAddrPort(server)
	return r.trustAD || err == nil && addr.Addr().Unmap().IsLoopback() && addr.Addr().Unmap() != dockersOwn
}
