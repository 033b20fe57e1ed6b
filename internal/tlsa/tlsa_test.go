package tlsa

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/dane"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/resolve"
	"mailu-hook/internal/rig"
)

// chains are two of one CA, for the same host.
func chains(t *testing.T) (live, other []*x509.Certificate, root *x509.Certificate) {
	t.Helper()
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	issue := func() []*x509.Certificate {
		pair, err := ca.Issue(mint.Leaf{})
		require.NoError(t, err)
		return []*x509.Certificate{pair.Cert, ca.Issuer}
	}
	return issue(), issue(), ca.Root
}

// published is an answer of the DNS, validated or not.
func published(secure bool, ttl time.Duration, records ...dane.Record) resolve.TLSA {
	return resolve.TLSA{Base: "mail.example.com", Owner: "_25._tcp.mail.example.com.", Records: records, Secure: secure, TTL: ttl}
}

var useless = dane.Record{Usage: 0, Selector: 0, Matching: 1, Data: make([]byte, 32)}

func TestEachHostHasOneState(t *testing.T) {
	live, other, _ := chains(t)
	leaf, stale := dane.OfLeaf(live[0]), dane.OfLeaf(other[0])
	for name, c := range map[string]struct {
		host  Host
		state State
	}{
		"a record of the leaf":           {Compare("mail.example.com", published(true, 0, stale, leaf), live, time.Now()), Match},
		"a record of another key":        {Compare("mail.example.com", published(true, 0, stale), live, time.Now()), Mismatch},
		"no record":                      {Compare("mail.example.com", published(true, 0), live, time.Now()), None},
		"no record, nobody vouches":      {Compare("mail.example.com", published(false, 0), live, time.Now()), None},
		"a record of no use":             {Compare("mail.example.com", published(true, 0, useless), live, time.Now()), Unusable},
		"a match that nobody vouches":    {Compare("mail.example.com", published(false, 0, leaf), live, time.Now()), Insecure},
		"a mismatch that nobody vouches": {Compare("mail.example.com", published(false, 0, stale), live, time.Now()), Insecure},
		"no answer":                      {Host{Name: "mail.example.com", Err: errors.New("SERVFAIL")}, Unknown},
		"no chain":                       {Compare("mail.example.com", published(true, 0, leaf), nil, time.Now()), Mismatch},
	} {
		assert.Equal(t, c.state, c.host.State(), name)
	}
}

func TestWhatAHostLacksMatchesOncePublished(t *testing.T) {
	live, other, _ := chains(t)
	for name, stale := range map[string]dane.Record{"of a leaf": dane.OfLeaf(other[0]), "of an issuer": dane.OfIssuer(other[0])} {
		h := Compare("mail.example.com", published(true, 0, stale), live, time.Now())
		require.Equal(t, Mismatch, h.State(), name)
		again := Compare("mail.example.com", published(true, 0, stale, h.Lacks), live, time.Now())
		assert.Equal(t, Match, again.State(), name)
		assert.Equal(t, "_25._tcp.mail.example.com. IN TLSA "+h.Lacks.String(), h.ZoneLine(h.Lacks))
	}
}

func TestARecordGoesWhereTheHostsRecordsAreOrWouldBe(t *testing.T) {
	live, _, _ := chains(t)
	record := dane.OfLeaf(live[0])
	alias := Compare("mail.example.com", resolve.TLSA{Base: "mx.example.net", Owner: "_dane.example.net.", Records: []dane.Record{record}}, live, time.Now())
	assert.Equal(t, "_dane.example.net. IN TLSA "+record.String(), alias.ZoneLine(record))
	unasked := Host{Name: "mail.example.com", Err: errors.New("no answer")}
	assert.Equal(t, "_25._tcp.mail.example.com. IN TLSA "+record.String(), unasked.ZoneLine(record))
}

func TestAddressesHaveNoRecords(t *testing.T) {
	assert.Equal(t, []string{"mail.example.com", "xn--mnchen-3ya.example"}, MailHosts([]string{"Mail.Example.com.", "192.0.2.1", "2001:db8::1", "", "münchen.example"}))
}

func TestOneHostThatDoesNotMatchHoldsEverythingBack(t *testing.T) {
	live, other, _ := chains(t)
	host := func(name string, secure bool, ttl time.Duration, records ...dane.Record) Host {
		return Compare(name, resolve.TLSA{Base: name, Owner: dane.Owner(name), Records: records, Secure: secure, TTL: ttl}, live, time.Now())
	}
	match := host("mail.example.com", true, time.Hour, dane.OfLeaf(live[0]))
	mismatch := host("mx.example.com", true, time.Minute, dane.OfLeaf(other[0]))
	insecure := host("in.example.com", false, 2*time.Hour, dane.OfLeaf(other[0]))
	silent := Host{Name: "no.example.com", Err: errors.New("asking: no answer")}
	lacking := "mx.example.com. IN TLSA " + dane.OfLeaf(live[0]).String()
	for name, c := range map[string]struct {
		mode             Mode
		hosts            []Host
		objection, doubt string
		warning          string
		ttl              time.Duration
	}{
		"all match":                 {mode: Auto, hosts: []Host{match}, ttl: time.Hour},
		"nobody uses DANE":          {mode: Require, hosts: []Host{host("mail.example.com", true, 0)}},
		"one does not match":        {mode: Auto, hosts: []Host{match, mismatch}, objection: "the TLSA records of mx.example.com do not match it", ttl: time.Hour},
		"one was not validated":     {mode: Auto, hosts: []Host{match, insecure}, doubt: "did not validate those of in.example.com (they do not match)", ttl: time.Hour},
		"one was not, and required": {mode: Require, hosts: []Host{insecure}, objection: "did not validate those of in.example.com", doubt: "in.example.com"},
		"one gave no answer":        {mode: Auto, hosts: []Host{silent}, doubt: "the TLSA records of no.example.com could not be checked: asking: no answer"},
		"required, and one differs": {mode: Require, hosts: []Host{silent, mismatch}, objection: "mx.example.com do not match", doubt: "no.example.com", ttl: time.Minute},
		"one is of no use":          {mode: Require, hosts: []Host{host("mail.example.com", true, 0, useless)}, warning: "no TLSA record of mail.example.com is usable"},
	} {
		t.Run(name, func(t *testing.T) {
			ruling := c.mode.Rule(c.hosts)
			assert.Equal(t, c.ttl, ruling.TTL)
			assert.Equal(t, c.ttl > 0 || c.warning != "", ruling.Published)
			if c.objection == "" {
				assert.Nil(t, ruling.Objection)
			} else {
				require.NotNil(t, ruling.Objection)
				assert.Contains(t, ruling.Objection.Fact, c.objection)
			}
			if c.doubt == "" {
				assert.Nil(t, ruling.Doubt)
			} else {
				require.NotNil(t, ruling.Doubt)
				assert.Contains(t, ruling.Doubt.Fact, c.doubt)
				assert.Contains(t, ruling.Doubt.Remedy, "--trust-ad")
			}
			if c.warning == "" {
				assert.Empty(t, ruling.Warnings)
			} else {
				require.Len(t, ruling.Warnings, 1)
				assert.Contains(t, ruling.Warnings[0], c.warning)
			}
		})
	}
	assert.Contains(t, Auto.Rule([]Host{mismatch}).Objection.Remedy, lacking, "it says what to publish")
}

func TestModesAreWordsAndTheDefaultIsAuto(t *testing.T) {
	for _, mode := range Modes {
		got, err := ParseMode(string(mode))
		require.NoError(t, err)
		assert.Equal(t, mode, got)
	}
	got, err := ParseMode("")
	require.NoError(t, err)
	assert.Equal(t, Auto, got)
	_, err = ParseMode("on")
	require.EqualError(t, err, `"on" is not one of auto, require, off`)
	assert.Nil(t, Guard(Off, nil, []string{"mail.example.com"}, nil), "nobody is asked")
}

func TestAPreparedKeyTakesOverTwoTTLsAfterItsRecordIsEverywhere(t *testing.T) {
	live, other, _ := chains(t)
	next, leaf := dane.OfLeaf(other[0]), dane.OfLeaf(live[0])
	host := func(secure bool, ttl time.Duration, records ...dane.Record) Host {
		return Compare("mail.example.com", published(secure, ttl, records...), live, time.Now())
	}
	silent := Host{Err: errors.New("no answer")}
	for name, c := range map[string]struct {
		hosts []Host
		want  RollOver
	}{
		"nothing is published":         {[]Host{host(true, time.Hour)}, RollOver{Seen: true}},
		"nothing that is validated":    {[]Host{host(false, time.Hour, leaf)}, RollOver{Seen: true}},
		"only the live key":            {[]Host{host(true, time.Hour, leaf)}, RollOver{Bound: true, TTL: time.Hour}},
		"only the next key":            {[]Host{host(true, time.Hour, next)}, RollOver{Bound: true, TTL: time.Hour}},
		"both":                         {[]Host{host(true, time.Hour, leaf, next)}, RollOver{Bound: true, Seen: true, TTL: time.Hour}},
		"both, and a host without":     {[]Host{host(true, time.Hour, leaf, next), host(true, 0)}, RollOver{Bound: true, Seen: true, TTL: time.Hour}},
		"both, and one with only one":  {[]Host{host(true, time.Hour, leaf, next), host(true, 3*time.Hour, leaf)}, RollOver{Bound: true, TTL: 3 * time.Hour}},
		"both, and one without answer": {[]Host{host(true, time.Hour, leaf, next), silent}, RollOver{Bound: true, TTL: time.Hour}},
		"no answer from anybody":       {[]Host{silent}, RollOver{Bound: true}},
	} {
		assert.Equal(t, c.want, Progress(c.hosts, next), name)
	}
	now := time.Now()
	both := RollOver{Bound: true, Seen: true, TTL: time.Hour}
	assert.True(t, both.Published())
	assert.False(t, RollOver{Seen: true}.Published(), "nothing to be seen")
	assert.False(t, both.Done(time.Time{}, now), "not published yet")
	assert.False(t, both.Done(now.Add(-2*time.Hour+time.Second), now))
	assert.True(t, both.Done(now.Add(-2*time.Hour), now))
	assert.True(t, RollOver{}.Done(time.Time{}, now), "nobody is bound by anything")
	assert.Equal(t, now.Add(2*time.Hour), both.Until(now))
}

func TestOnlyAValidatedRecordOfTheLeafPinsItsKey(t *testing.T) {
	live, other, _ := chains(t)
	pins := func(secure bool, r dane.Record) bool {
		return Pins([]Host{{Err: errors.New("no answer")}, Compare("mail.example.com", published(secure, 0, r), live, time.Now())}, live[0])
	}
	assert.True(t, pins(true, dane.OfLeaf(live[0])))
	assert.False(t, pins(false, dane.OfLeaf(live[0])))
	assert.False(t, pins(true, dane.OfLeaf(other[0])))
	assert.False(t, pins(true, dane.OfIssuer(live[1])), "it stays true whatever the key")
}

func TestTheZoneSaysWhatToPublishAndCommentsOnTheRest(t *testing.T) {
	live, other, root := chains(t)
	leaf := dane.OfLeaf(live[0])
	hosts := []Host{
		Compare("mail.example.com", published(true, time.Minute, leaf), live, time.Now()),
		{Name: "mx.example.com", Err: errors.New("no answer")},
	}
	got := Zone("/certs/cert.pem", Lines(hosts, live, root), Docs(hosts))
	issuer := dane.OfIssuer(live[1]).String()
	assert.Equal(t, `; mail.example.com: the key of /certs/cert.pem
_25._tcp.mail.example.com. IN TLSA `+leaf.String()+`
; mail.example.com: the key of CN=mint intermediate, which is sent
_25._tcp.mail.example.com. IN TLSA `+issuer+`
; mail.example.com: the root CN=mint root is not sent, so its record cannot match (RFC 7671,
; section 5.2.2); mailu-hook install --append-root auto sends it
; _25._tcp.mail.example.com. IN TLSA `+dane.OfIssuer(root).String()+`
; mx.example.com: the key of /certs/cert.pem
_25._tcp.mx.example.com. IN TLSA `+leaf.String()+`
; mx.example.com: the key of CN=mint intermediate, which is sent
_25._tcp.mx.example.com. IN TLSA `+issuer+`
; mx.example.com: the root CN=mint root is not sent, so its record cannot match (RFC 7671,
; section 5.2.2); mailu-hook install --append-root auto sends it
; _25._tcp.mx.example.com. IN TLSA `+dane.OfIssuer(root).String()+`
; mail.example.com: match (`+leaf.String()+`, TTL 1m0s)
; mx.example.com: unknown
`, got)

	next := dane.OfLeaf(other[0])
	assert.Equal(t, `; mail.example.com: the prepared key
_25._tcp.mail.example.com. IN TLSA `+next.String()+`
; mail.example.com: not published (`+leaf.String()+`)
`, Zone("", NextLines(hosts[:1], next), Publishes(hosts[:1], next)))
	assert.Equal(t, State("published"), Publishes(hosts, leaf)[0].State)
	assert.Equal(t, Unknown, Publishes(hosts, leaf)[1].State)
}

func TestLookUpComparesEachHostAndSaysWhichGaveNoAnswer(t *testing.T) {
	rig.Need(t, rig.NeedDNS)
	t.Parallel()
	live, other, _ := chains(t)
	zone, err := rig.StartZone(t.Context(), t.TempDir(), rig.ZoneOptions{Signed: true, Records: []string{
		"mail 60 IN A 127.0.0.1", "_25._tcp.mail 60 IN TLSA " + dane.OfLeaf(live[0]).String(),
		"mx 60 IN A 127.0.0.1", "_25._tcp.mx 60 IN TLSA " + dane.OfLeaf(other[0]).String(), "bare 60 IN A 127.0.0.1",
	}})
	require.NoError(t, err)
	t.Cleanup(zone.Close)
	unbound, err := rig.StartResolver(t.Context(), t.TempDir(), zone)
	require.NoError(t, err)
	t.Cleanup(unbound.Close)
	r, err := resolve.New(unbound.Addr, false)
	require.NoError(t, err)
	hosts := LookUp(t.Context(), r, []string{"mail.example.com", "mx.example.com", "bare.example.com", "mail.example.net"}, live)
	var states []State
	for _, h := range hosts {
		states = append(states, h.State())
	}
	assert.Equal(t, []State{Match, Mismatch, None, Unknown}, states)
	assert.Equal(t, "mx.example.com", hosts[1].Name)
	require.Error(t, hosts[3].Err)
}
