package reload

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

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

// handshaking completes a handshake and waits for the client to go.
func handshaking(config *tls.Config) func(net.Conn) {
	return func(conn net.Conn) {
		server := tls.Server(conn, config)
		if server.Handshake() == nil {
			_, _ = io.Copy(io.Discard, server)
		}
	}
}
