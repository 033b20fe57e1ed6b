package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/mint"
)

var testCA = sync.OnceValues(func() (*mint.CA, error) { return mint.NewCA(mint.CAOptions{}) })

func newPair(t *testing.T) *mint.Pair {
	t.Helper()
	ca, err := testCA()
	require.NoError(t, err)
	pair, err := ca.Issue(mint.Leaf{})
	require.NoError(t, err)
	return pair
}

func serverConfig(t *testing.T, pair *mint.Pair) *tls.Config {
	t.Helper()
	cert, err := tls.X509KeyPair(pair.Chain, pair.KeyPEM)
	require.NoError(t, err)
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

// listen serves every connection by handle, and returns the address. At the end
// of the test it closes all connections and waits for their handlers.
func listen(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// refusing is an address at which nobody listens, nor will: its port is taken.
func refusing(t *testing.T) string {
	t.Helper()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	t.Cleanup(func() { syscall.Close(socket) })
	require.NoError(t, syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	bound, err := syscall.Getsockname(socket)
	require.NoError(t, err)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(bound.(*syscall.SockaddrInet4).Port))
}

// handshaking completes a handshake and waits for the client to go.
func handshaking(config *tls.Config) func(net.Conn) {
	return func(conn net.Conn) {
		server := tls.Server(conn, config)
		if server.Handshake() == nil {
			hang(server)
		}
	}
}

// hang says nothing until the client goes.
func hang(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// exchange is what a server waits for ("" at the greeting) and then says.
type exchange struct{ wait, say string }

// speaking plays a dialogue and then hands the connection to next.
func speaking(t *testing.T, script []exchange, next func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		lines := bufio.NewReader(conn)
		for _, e := range script {
			if e.wait != "" {
				line, err := lines.ReadString('\n')
				if err != nil {
					return // the client had enough
				}
				assert.Equal(t, e.wait+"\r\n", line)
			}
			if _, err := io.WriteString(conn, e.say); err != nil {
				return
			}
		}
		assert.Zero(t, lines.Buffered(), "the client must wait for the go-ahead before it speaks TLS")
		next(conn)
	}
}

// testPorts are ports of a front, one a protocol.
var testPorts = map[string]mailu.Port{
	"smtp":       {Number: 25, Protocol: "smtp"},
	"submission": {Number: 587, Protocol: "submission"},
	"imap":       {Number: 143, Protocol: "imap"},
	"pop3":       {Number: 110, Protocol: "pop3"},
	"sieve":      {Number: 4190, Protocol: "sieve"},
	"imaps":      {Number: 993, Protocol: "imaps", Implicit: true},
	"https":      {Number: 443, Protocol: "https", Implicit: true},
}

// targetAt has its ports published at addrs, by protocol.
func targetAt(addrs map[string]string) Target {
	t := Target{ServerName: "mail.example.com", Published: map[int][]string{}}
	for protocol, addr := range addrs {
		p := testPorts[protocol]
		t.Ports = append(t.Ports, p)
		t.Published[p.Number] = []string{addr}
	}
	return t
}

// askAt asks one port, within limit.
func askAt(t *testing.T, limit time.Duration, protocol, addr string) mailu.Endpoint {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	answers := targetAt(map[string]string{protocol: addr}).Look(ctx)
	require.Len(t, answers, 1)
	assert.Equal(t, testPorts[protocol], answers[0].Port)
	assert.Equal(t, answers[0].Err == nil, answers[0].Answers(), "a port shows a leaf or says why not")
	return answers[0]
}

// plain are the shortest dialogues that lead to TLS.
var plain = map[string][]exchange{
	"smtp":       smtpPlain,
	"submission": smtpPlain,
	"imap":       {{"", "* OK ready\r\n"}, {"a STARTTLS", "a OK begin\r\n"}},
	"pop3":       {{"", "+OK ready\r\n"}, {"STLS", "+OK begin\r\n"}},
	"sieve":      {{"", "\"STARTTLS\"\r\nOK\r\n"}, {"STARTTLS", "OK \"begin\"\r\n"}},
}

var smtpPlain = []exchange{{"", "220 mail.example.com ESMTP\r\n"}, {"EHLO mailu-hook.invalid", "250 STARTTLS\r\n"}, {"STARTTLS", "220 begin\r\n"}}

// atEachTurn runs a subtest for each turn of each protocol, in which the server
// plays its part up to there and then says something else.
func atEachTurn(t *testing.T, test func(t *testing.T, protocol string, before []exchange, turn exchange)) {
	for protocol, script := range plain {
		for i, turn := range script {
			t.Run(protocol+" "+strings.Fields(turn.wait + " greeting")[0], func(t *testing.T) {
				t.Parallel()
				test(t, protocol, script[:i:i], turn)
			})
		}
	}
}

// within fails the test if what took longer than limit since began.
func within(t *testing.T, limit time.Duration, began time.Time, what string) {
	t.Helper()
	assert.Less(t, time.Since(began), limit, "%s took too long", what)
}
