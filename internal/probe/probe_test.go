package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mailu"
)

func TestImplicitTLSPortShowsItsLeaf(t *testing.T) {
	pair := newPair(t)
	for _, protocol := range []string{"imaps", "https"} {
		e := askAt(t, patient, protocol, listen(t, handshaking(serverConfig(t, pair))))
		require.NoError(t, e.Err)
		assert.Equal(t, pair.SHA256(), e.Leaf)
	}
}

func TestBrokenTLSIsAnErrorWithItsReason(t *testing.T) {
	alert := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errors.New("no") }}
	for name, c := range map[string]struct {
		handle func(net.Conn)
		want   string
	}{
		"alert":        {handshaking(alert), `TLS handshake: "remote error: tls: internal error"`},
		"early close":  {func(net.Conn) {}, "TLS handshake: "},
		"garbage":      {func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.0 400 Bad Request\r\n\r\n"); hang(conn) }, "TLS handshake: \"tls: first record does not look like a TLS handshake"},
		"short record": {func(conn net.Conn) { _, _ = io.WriteString(conn, "\x16\x03\x03\x40\x00abc") }, "TLS handshake: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.ErrorContains(t, askAt(t, patient, "imaps", listen(t, c.handle)).Err, c.want)
			starttls := listen(t, speaking(t, plain["imap"], c.handle))
			assert.Error(t, askAt(t, patient, "imap", starttls).Err)
		})
	}
}

func TestStalledTLSIsBoundedByTheDeadline(t *testing.T) {
	for protocol, handle := range map[string]func(net.Conn){"imaps": hang, "imap": speaking(t, plain["imap"], hang)} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			assert.ErrorIs(t, askAt(t, 200*time.Millisecond, protocol, listen(t, handle)).Err, context.DeadlineExceeded)
			within(t, 2*time.Second, began, "a stalled handshake")
		})
	}
}

// The header is from proxy-protocol.txt, section 2.2: signature, version 2 and
// command LOCAL, family and transport unspecified, no address.
func TestProxyHeaderComesFirstWhereThePortExpectsOne(t *testing.T) {
	header := []byte{0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A, 0x20, 0x00, 0x00, 0x00}
	pair := newPair(t)
	serveTLS := handshaking(serverConfig(t, pair))
	for protocol, next := range map[string]func(net.Conn){"imaps": serveTLS, "smtp": speaking(t, plain["smtp"], serveTLS), "sieve": speaking(t, plain["sieve"], serveTLS)} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			target := targetAt(map[string]string{protocol: listen(t, func(conn net.Conn) {
				got := make([]byte, len(header))
				if _, err := io.ReadFull(conn, got); err == nil && bytes.Equal(header, got) {
					next(conn)
				}
			})})
			short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			assert.False(t, target.Look(short)[0].Answers(), "the server must insist")
			target.Ports[0].Proxy = true
			e := target.Look(t.Context())[0]
			require.NoError(t, e.Err)
			assert.Equal(t, pair.SHA256(), e.Leaf)
		})
	}
}

func TestServerNameIsTheFirstHostname(t *testing.T) {
	config := serverConfig(t, newPair(t))
	for want, hostnames := range map[string][]string{"mail.example.com": {"mail.example.com", "smtp.example.com"}, "": nil} {
		seen := make(chan string, 1)
		target := targetAt(map[string]string{"imaps": listen(t, handshaking(&tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			seen <- hello.ServerName
			return config, nil
		}}))})
		target.ServerName = New(mailu.Facts{Hostnames: hostnames}).ServerName
		require.NoError(t, target.Look(t.Context())[0].Err)
		assert.Equal(t, want, <-seen)
	}
}

func TestHangingPortsDelayNoOtherAndLookIsBounded(t *testing.T) {
	t.Parallel()
	pair := newPair(t)
	target := targetAt(map[string]string{
		"https": listen(t, handshaking(serverConfig(t, pair))),
		"imaps": listen(t, hang),
		"smtp":  listen(t, hang),
		"imap":  listen(t, speaking(t, plain["imap"], hang)),
		"pop3":  refusing(t),
		"sieve": listen(t, speaking(t, plain["sieve"], handshaking(serverConfig(t, pair)))),
	})
	began := time.Now()
	for _, e := range target.Look(t.Context()) {
		switch e.Protocol {
		case "https", "sieve":
			assert.Equal(t, pair.SHA256(), e.Leaf)
		case "pop3":
			assert.EqualError(t, e.Err, "connection refused at "+target.Published[110][0])
		default:
			assert.EqualError(t, e.Err, "connected, but no answer within 3s", "port %d", e.Number)
		}
	}
	within(t, askLimit+time.Second, began, "looking at hanging ports")
}

func TestAddressesAreTriedInOrderUntilOneAnswersOrRefuses(t *testing.T) {
	pair := newPair(t)
	good := listen(t, handshaking(serverConfig(t, pair)))
	const unreachable = "255.255.255.255" // the kernel connects to no broadcast address
	for name, c := range map[string]struct {
		hosts, published []string
		want             string
	}{
		"container unreachable": {[]string{unreachable}, []string{good}, ""},
		"first published":       {nil, []string{good, refusing(t)}, ""},
		"refusal is an answer":  {nil, []string{refusing(t), good}, "connection refused at 127.0.0.1:"},
		"none":                  {nil, nil, "no address to ask"},
	} {
		t.Run(name, func(t *testing.T) {
			target := targetAt(map[string]string{"imaps": good})
			target.Hosts, target.Published = c.hosts, map[int][]string{993: c.published}
			e := target.Look(t.Context())[0]
			if c.want != "" {
				assert.ErrorContains(t, e.Err, c.want)
				return
			}
			require.NoError(t, e.Err)
			assert.Equal(t, pair.SHA256(), e.Leaf)
		})
	}
}

func TestAwaitAsksEachPortUntilItChanges(t *testing.T) {
	before, after := newPair(t), newPair(t)
	var current atomic.Pointer[tls.Config]
	current.Store(serverConfig(t, before))
	var asked atomic.Int32
	target := targetAt(map[string]string{
		"imaps": listen(t, handshaking(&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.Load(), nil }})),
		"https": listen(t, func(conn net.Conn) {
			asked.Add(1)
			handshaking(serverConfig(t, after))(conn)
		}),
		"pop3": refusing(t),
	})
	swapped := serverConfig(t, after)
	var seen atomic.Int32
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	answers := target.Await(ctx, func(e mailu.Endpoint) bool {
		if e.Leaf == before.SHA256() && seen.Add(1) == 3 {
			current.Store(swapped)
		}
		return e.Leaf == after.SHA256() || e.Protocol == "pop3"
	})
	require.NoError(t, ctx.Err(), "it must return once all are done")
	for _, e := range answers {
		if e.Protocol != "pop3" {
			assert.Equal(t, after.SHA256(), e.Leaf, "port %d", e.Number)
		}
	}
	assert.EqualValues(t, 1, asked.Load(), "a port that is done is left alone")
}

func TestAwaitKeepsTheLastRealAnswerWhenTheTimeIsUp(t *testing.T) {
	pair := newPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var conns atomic.Int32
	good := handshaking(serverConfig(t, pair))
	target := targetAt(map[string]string{"imaps": listen(t, func(conn net.Conn) {
		if conns.Add(1) == 1 {
			good(conn)
			return
		}
		cancel() // in the middle of a question
		hang(conn)
	})})
	began := time.Now()
	answers := target.Await(ctx, func(mailu.Endpoint) bool { return false })
	assert.Equal(t, pair.SHA256(), answers[0].Leaf)
	assert.NoError(t, answers[0].Err)
	within(t, 2*time.Second, began, "ending")
}

func TestAwaitUnderADeadContextStillNamesEveryPort(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("stopped"))
	target := targetAt(map[string]string{"imaps": refusing(t), "https": refusing(t)})
	for _, e := range target.Await(ctx, func(mailu.Endpoint) bool { return false }) {
		assert.NotZero(t, e.Number)
		assert.EqualError(t, e.Err, "stopped")
	}
}

func TestTargetWithoutAnEngineIsAskedAtTheHostsGiven(t *testing.T) {
	facts := mailu.ParseEnvironment(func(string) string { return "" })
	target := New(facts, "mail.example.com", "::1")
	assert.Equal(t, []string{"mail.example.com:993", "[::1]:993"}, target.Addresses(993))
	assert.Equal(t, facts.Ports, target.Ports)
	assert.Equal(t, facts.Ports[:1], target.Only(facts.Ports[:1]).Ports)
}

func TestEndpointSaysWhetherThePortIsClosedOrHasNoTLS(t *testing.T) {
	assert.ErrorIs(t, askAt(t, patient, "imaps", refusing(t)).Err, mailu.ErrClosed)
	for protocol, dialogue := range map[string][]exchange{
		"smtp": {{"", "220 ready\r\n"}, {"EHLO mailu-hook.invalid", "250 hello\r\n"}, {"STARTTLS", "500 5.5.1 Invalid command\r\n"}},
		"imap": {{"", "* OK ready\r\n"}, {"a STARTTLS", "a BAD no\r\n"}},
	} {
		e := askAt(t, patient, protocol, listen(t, speaking(t, dialogue, hang)))
		assert.ErrorIs(t, e.Err, mailu.ErrWithout, protocol)
		assert.NotErrorIs(t, e.Err, mailu.ErrClosed)
	}
	assert.NotErrorIs(t, askAt(t, 200*time.Millisecond, "imaps", listen(t, hang)).Err, mailu.ErrClosed)
}

func TestWholeChainIsKeptAsItWasSent(t *testing.T) {
	pair := newPair(t)
	e := askAt(t, patient, "imaps", listen(t, handshaking(serverConfig(t, pair))))
	require.NoError(t, e.Err)
	require.Len(t, e.Chain, 2)
	assert.Equal(t, pair.Cert.Raw, e.Chain[0].Raw)
	assert.True(t, e.Chain[1].IsCA)
}
