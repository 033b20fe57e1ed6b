package probe

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/mint"
)

// BenchmarkLook asks six ports at once, each of which costs a handshake, the
// server's half of it included.
func BenchmarkLook(b *testing.B) {
	ca, err := testCA()
	require.NoError(b, err)
	pair, err := ca.Issue(mint.Leaf{})
	require.NoError(b, err)
	cert, err := tls.X509KeyPair(pair.Chain, pair.KeyPEM)
	require.NoError(b, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				handshaking(&tls.Config{Certificates: []tls.Certificate{cert}})(conn)
			}()
		}
	}()
	target := Target{ServerName: mint.DefaultName, Published: map[int][]string{}}
	for i := range 6 {
		target.Ports = append(target.Ports, mailu.Port{Number: i + 1, Protocol: "https", Implicit: true})
		target.Published[i+1] = []string{l.Addr().String()}
	}
	for b.Loop() {
		for _, e := range target.Look(b.Context()) {
			if e.Leaf != pair.SHA256() {
				b.Fatal(e.Err)
			}
		}
	}
}
