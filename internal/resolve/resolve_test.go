package resolve

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/dane"
	"mailu-hook/internal/rig"
)

const digest = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

// startZone starts a zone of its own server.
func startZone(t *testing.T, o rig.ZoneOptions) *rig.Zone {
	t.Helper()
	rig.Need(t, rig.NeedDNS)
	zone, err := rig.StartZone(t.Context(), t.TempDir(), o)
	require.NoError(t, err)
	t.Cleanup(zone.Close)
	return zone
}

// startResolver starts Unbound, and returns a Resolver that asks it.
func startResolver(t *testing.T, zones ...*rig.Zone) *Resolver {
	t.Helper()
	unbound, err := rig.StartResolver(t.Context(), t.TempDir(), zones...)
	require.NoError(t, err)
	t.Cleanup(unbound.Close)
	r, err := New(unbound.Addr, false)
	require.NoError(t, err)
	return r
}

func texts(found TLSA) []string {
	var list []string
	for _, r := range found.Records {
		list = append(list, r.String())
	}
	return list
}

func TestRecordsComeWithTheirNameSecurityAndTTL(t *testing.T) {
	t.Parallel()
	a, b := "3 1 1 "+digest, "2 1 1 "+digest
	signed := startZone(t, rig.ZoneOptions{Signed: true, Records: []string{
		"mail 60 IN A 127.0.0.1", "_25._tcp.mail 300 IN TLSA " + a, "_25._tcp.mail 300 IN TLSA " + b,
		"bare 60 IN A 127.0.0.1", "six 60 IN AAAA ::1", "_25._tcp.six 60 IN TLSA " + a,
		"alias 60 IN CNAME mail", "_25._tcp.alias 60 IN TLSA 3 1 1 00",
		"alias2 60 IN CNAME bare", "_25._tcp.alias2 60 IN TLSA " + a,
		"shared 60 IN A 127.0.0.1", "_25._tcp.shared 20 IN CNAME _dane", "_dane 300 IN TLSA " + a,
		"away 60 IN CNAME mail.example.org.", "_25._tcp.away 60 IN TLSA " + a,
		"loop 60 IN CNAME loop2", "loop2 60 IN CNAME loop",
	}})
	unsigned := startZone(t, rig.ZoneOptions{Name: "example.org", Records: []string{
		"mail 60 IN A 127.0.0.1", "_25._tcp.mail 60 IN TLSA " + b, "bare 60 IN A 127.0.0.1", "island 60 IN A 127.0.0.1",
		"home 60 IN CNAME mail.example.com.", "_25._tcp.home 60 IN TLSA " + b,
	}})
	island := startZone(t, rig.ZoneOptions{Name: "_tcp.island.example.org", Signed: true, Records: []string{"_25 60 IN TLSA " + b}})
	r := startResolver(t, signed, unsigned, island)
	for name, want := range map[string]TLSA{
		"mail.example.com":    {Base: "mail.example.com", Secure: true, TTL: 300 * time.Second},
		"MAIL.example.com":    {Base: "MAIL.example.com", Secure: true, TTL: 300 * time.Second},
		"six.example.com":     {Base: "six.example.com", Secure: true, TTL: 60 * time.Second},
		"bare.example.com":    {Base: "bare.example.com", Secure: true},
		"nowhere.example.com": {Base: "nowhere.example.com", Secure: true},
		"alias.example.com":   {Base: "mail.example.com", Secure: true, TTL: 300 * time.Second},
		"alias2.example.com":  {Base: "alias2.example.com", Secure: true, TTL: 60 * time.Second},
		"shared.example.com":  {Base: "shared.example.com", Secure: true, TTL: 20 * time.Second},
		"away.example.com":    {Base: "away.example.com", Secure: true, TTL: 60 * time.Second}, // the alias is validated, what it leads to is not
		"mail.example.org":    {Base: "mail.example.org", TTL: 60 * time.Second},
		"bare.example.org":    {Base: "bare.example.org"},
		"home.example.org":    {Base: "home.example.org", TTL: 60 * time.Second},   // the other way round: an unsigned alias leads nowhere
		"island.example.org":  {Base: "island.example.org", TTL: 60 * time.Second}, // the records are validated, the address is not
	} {
		t.Run(name, func(t *testing.T) {
			found, err := r.TLSA(t.Context(), name)
			require.NoError(t, err)
			switch {
			case want.TTL == 0:
				assert.Empty(t, found.Records)
			case want.Base == "mail.example.com", want.Base == "MAIL.example.com":
				assert.ElementsMatch(t, []string{a, b}, texts(found))
			case strings.HasSuffix(want.Base, ".org"):
				assert.Equal(t, []string{b}, texts(found))
			default:
				assert.Equal(t, []string{a}, texts(found))
			}
			assert.Equal(t, want.Base, found.Base)
			assert.Equal(t, want.Secure, found.Secure)
			owner := dane.Owner(strings.ToLower(want.Base))
			if name == "shared.example.com" {
				owner = "_dane.example.com."
			}
			assert.Equal(t, owner, found.Owner)
			assert.True(t, found.TTL <= want.TTL && found.TTL > want.TTL-20*time.Second, "TTL %s", found.TTL)
		})
	}
	_, err := r.TLSA(t.Context(), "loop.example.com")
	require.Error(t, err, "a sender would not get an address either")
}

func TestABogusSignatureIsNotTheAbsenceOfARecord(t *testing.T) {
	t.Parallel()
	zone := startZone(t, rig.ZoneOptions{Signed: true, Records: []string{"mail 1 IN A 127.0.0.1", "_25._tcp.mail 1 IN TLSA 3 1 1 " + digest}})
	r := startResolver(t, zone)
	require.NoError(t, zone.Tamper(t.Context(), strings.ToUpper(digest), strings.Repeat("F", 64)))
	_, err := r.TLSA(t.Context(), "mail.example.com")
	require.ErrorContains(t, err, "SERVFAIL")
	assert.ErrorContains(t, err, "TLSA of _25._tcp.mail.example.com")
}

func TestAnAnswerTooLargeForUDPComesByTCP(t *testing.T) {
	t.Parallel()
	records := []string{"mail 60 IN A 127.0.0.1"}
	for i := range 60 {
		records = append(records, fmt.Sprintf("_25._tcp.mail 60 IN TLSA 3 1 1 %064x", i))
	}
	r := startResolver(t, startZone(t, rig.ZoneOptions{Signed: true, Records: records}))
	found, err := r.TLSA(t.Context(), "mail.example.com")
	require.NoError(t, err)
	assert.Len(t, found.Records, 60)
	assert.True(t, found.Secure)
}

func TestARecordIsThereOrNotOrCannotBeAskedFor(t *testing.T) {
	t.Parallel()
	r := startResolver(t, startZone(t, rig.ZoneOptions{Records: []string{
		"mail 60 IN A 127.0.0.1", "mail 60 IN A 127.0.0.2", "alias 60 IN CNAME mail", "text 60 IN TXT none",
	}}))
	for name, want := range map[string]int{"mail": 2, "alias": 2, "text": 0, "nowhere": 0} {
		a, err := r.ask(t.Context(), name+".example.com", dns.TypeA)
		require.NoError(t, err)
		assert.Len(t, a.records, want, name)
	}
	_, err := r.ask(t.Context(), "mail.example.net", dns.TypeA)
	require.ErrorContains(t, err, "REFUSED")
}

// silent is the address of a server that takes questions and answers none.
func silent(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().String()
}

func TestASilentServerIsAskedTwiceAndNotWaitedForLong(t *testing.T) {
	t.Parallel()
	r, err := New(silent(t), false)
	require.NoError(t, err)
	began := time.Now()
	_, err = r.TLSA(t.Context(), "mail.example.com")
	require.ErrorContains(t, err, "does not answer")
	assert.Less(t, time.Since(began), rounds*patience+patience/2)

	ctx, cancel := context.WithTimeoutCause(t.Context(), patience/4, context.DeadlineExceeded)
	defer cancel()
	began = time.Now()
	_, err = r.ask(ctx, "mail.example.com", dns.TypeA)
	require.Error(t, err)
	assert.Less(t, time.Since(began), patience)
}

func TestTheNextServerIsAskedWhenOneIsSilentOrFails(t *testing.T) {
	t.Parallel()
	r := startResolver(t, startZone(t, rig.ZoneOptions{Signed: true, Records: []string{"mail 60 IN A 127.0.0.1"}}))
	stranger := startResolver(t, startZone(t, rig.ZoneOptions{Name: "example.net"}))
	r.servers = append([]string{silent(t), stranger.servers[0]}, r.servers...)
	a, err := r.ask(t.Context(), "mail.example.com", dns.TypeA)
	require.NoError(t, err)
	require.Len(t, a.records, 1)
	assert.Contains(t, a.records[0].String(), "127.0.0.1")
}

func TestTheAnswerToAnotherQuestionIsNone(t *testing.T) {
	t.Parallel()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, asked *dns.Msg) {
		reply := new(dns.Msg).SetReply(asked)
		reply.Question[0].Name = "other.example.com."
		_ = w.WriteMsg(reply)
	})}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
	r, err := New(conn.LocalAddr().String(), false)
	require.NoError(t, err)
	_, err = r.TLSA(t.Context(), "mail.example.com")
	require.ErrorContains(t, err, "answers another question")
}

func TestTheADBitIsBelievedFromLoopbackOrWhenTold(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "127.0.0.53:53": true, "::1": true, "[::1]:5353": true, "[::ffff:127.0.0.1]:53": true,
		"127.0.0.11": false, "192.0.2.1": false, "10.0.0.1:53": false, "2001:db8::1": false, "[fe80::1]:53": false,
	} {
		r, err := New(addr, false)
		require.NoError(t, err)
		assert.Equal(t, want, r.believes(r.servers[0]), addr)
		told, err := New(addr, true)
		require.NoError(t, err)
		assert.True(t, told.believes(told.servers[0]), addr)
	}
	for _, addr := range []string{"localhost", "127.0.0.1:", "127.0.0.1:x", "1.2.3", "\xff"} {
		_, err := New(addr, false)
		assert.Error(t, err, "%q", addr)
	}
}

func TestServersAndTrustComeFromResolvConf(t *testing.T) {
	for content, want := range map[string]Resolver{
		"":                       {servers: []string{"127.0.0.1:53"}},
		"search example.com\n#x": {servers: []string{"127.0.0.1:53"}},
		"nameserver 192.0.2.1\nnameserver ::1\nnameserver x\noptions ndots:2": {servers: []string{"192.0.2.1:53", "[::1]:53"}},
		"nameserver\t192.0.2.1\noptions edns0 trust-ad":                       {servers: []string{"192.0.2.1:53"}, trustAD: true},
		"#nameserver 192.0.2.1\noptions":                                      {servers: []string{"127.0.0.1:53"}},
		"nameserver fe80::1%eth0":                                             {servers: []string{"[fe80::1%eth0]:53"}},
	} {
		name := filepath.Join(t.TempDir(), "resolv.conf")
		require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
		r, err := fromConf(name, false)
		require.NoError(t, err)
		assert.Equal(t, &want, r, "%q", content)
	}
	r, err := fromConf(filepath.Join(t.TempDir(), "missing"), true)
	require.NoError(t, err)
	assert.Equal(t, &Resolver{servers: []string{"127.0.0.1:53"}, trustAD: true}, r)
}

func TestAddressesAreThoseOfBothKinds(t *testing.T) {
	t.Parallel()
	zone := startZone(t, rig.ZoneOptions{Records: []string{
		"mail 60 IN A 192.0.2.2", "mail 60 IN A 192.0.2.1", "mail 60 IN AAAA 2001:db8::1", "alias 60 IN CNAME mail", "text 60 IN TXT nothing",
	}})
	r := startResolver(t, zone)
	all := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")}
	for name, want := range map[string][]netip.Addr{"mail.example.com": all, "alias.example.com": all, "text.example.com": nil, "nowhere.example.com": nil} {
		found, err := r.Addresses(t.Context(), name)
		require.NoError(t, err, name)
		assert.Equal(t, want, found, name)
	}
	broken, err := New(silent(t), false)
	require.NoError(t, err)
	_, err = broken.Addresses(t.Context(), "mail.example.com")
	assert.ErrorContains(t, err, "does not answer")
}
