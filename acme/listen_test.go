package acme

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/asn1"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/say"
)

func (s *Server) address(t *testing.T) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NotNil(t, s.listener)
	return s.listener.Addr().String()
}

func newServer(t *testing.T) *Server {
	t.Helper()
	s := NewServer("127.0.0.1:0")
	t.Cleanup(s.Close)
	return s
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(data)
}

func TestTheServerServesOnlyTheResponses(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	require.NoError(t, s.Present(t.Context(), "one", "one.thumb"))
	require.NoError(t, s.Present(t.Context(), "two", "two.thumb"))
	base := "http://" + s.address(t)
	status, body := get(t, base+challengePath+"one")
	assert.Equal(t, 200, status)
	assert.Equal(t, "one.thumb", body)
	for _, path := range []string{"/", challengePath, challengePath + "three", "/one", challengePath + "one/", "/x" + challengePath + "one", challengePath + "%2e%2e/one"} {
		status, _ = get(t, base+path)
		assert.Equal(t, 404, status, path)
	}
	require.NoError(t, s.CleanUp(t.Context(), "one"))
	status, _ = get(t, base+challengePath+"one")
	assert.Equal(t, 404, status)
	status, _ = get(t, base+challengePath+"two")
	assert.Equal(t, 200, status)
	addr := s.address(t)
	s.Close()
	_, err := net.Dial("tcp", addr)
	assert.Error(t, err)
	s.Close()
}

func TestAPortInUseIsNamedWithAHint(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	s := NewServer(l.Addr().String())
	err = s.Present(t.Context(), "token", "x")
	require.ErrorContains(t, err, l.Addr().String())
	assert.Contains(t, say.HintOf(err), "--challenge front")
	s.Close()
}

// identifierExtension is that of RFC 8737, section 6.1.
var identifierExtension = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

func TestTLSALPNServesTheCertificateOfRFC8737(t *testing.T) {
	t.Parallel()
	for identifier, asked := range map[string]string{
		"mail.example.com":   "mail.example.com",
		"192.0.2.1":          "1.2.0.192.in-addr.arpa",
		"2001:db8::567:89ab": "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", // the example of RFC 3596
	} {
		t.Run(identifier, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			solver := ALPN(s, nil, true)
			a := answerTo{name: identifier, token: "token", keyAuth: "token.thumb"}
			require.NoError(t, solver.present(t.Context(), a))
			require.NoError(t, solver.check(t.Context(), a), "it was not asked to look")
			conn, err := tls.Dial("tcp", s.address(t), &tls.Config{InsecureSkipVerify: true, ServerName: asked, NextProtos: []string{"acme-tls/1"}})
			require.NoError(t, err)
			defer conn.Close()
			state := conn.ConnectionState()
			assert.Equal(t, "acme-tls/1", state.NegotiatedProtocol)
			leaf := state.PeerCertificates[0]
			if ip := net.ParseIP(identifier); ip != nil {
				require.Len(t, leaf.IPAddresses, 1)
				assert.True(t, leaf.IPAddresses[0].Equal(ip))
				assert.Empty(t, leaf.DNSNames)
			} else {
				assert.Equal(t, []string{identifier}, leaf.DNSNames)
			}
			digest := sha256.Sum256([]byte(a.keyAuth))
			want, err := asn1.Marshal(digest[:])
			require.NoError(t, err)
			found := false
			for _, e := range leaf.Extensions {
				if e.Id.Equal(identifierExtension) {
					found = true
					assert.True(t, e.Critical)
					assert.Equal(t, want, e.Value)
				}
			}
			assert.True(t, found)

			_, err = tls.Dial("tcp", s.address(t), &tls.Config{InsecureSkipVerify: true, ServerName: "other.example.com", NextProtos: []string{"acme-tls/1"}})
			require.Error(t, err, "no certificate for a name that is not asked for")
			_, err = tls.Dial("tcp", s.address(t), &tls.Config{InsecureSkipVerify: true, ServerName: asked, NextProtos: []string{"h2"}})
			require.Error(t, err, "no other protocol")
			require.NoError(t, solver.cleanUp(t.Context(), a))
			_, err = tls.Dial("tcp", s.address(t), &tls.Config{InsecureSkipVerify: true, ServerName: asked, NextProtos: []string{"acme-tls/1"}})
			require.Error(t, err)
		})
	}
}

func TestSilentConnectionsDoNotBlockTheServer(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	solver := ALPN(s, nil, true)
	require.NoError(t, solver.present(t.Context(), answerTo{name: "mail.example.com", keyAuth: "x"}))
	for range 20 {
		conn, err := net.Dial("tcp", s.address(t))
		require.NoError(t, err)
		defer conn.Close()
	}
	conn, err := tls.Dial("tcp", s.address(t), &tls.Config{InsecureSkipVerify: true, ServerName: "mail.example.com", NextProtos: []string{"acme-tls/1"}})
	require.NoError(t, err)
	conn.Close()
}
