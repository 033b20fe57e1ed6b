package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/say"
)

// host is an address of this machine with the ports that a CA looks at: an
// identifier that needs no DNS.
func host(t *testing.T) string {
	t.Helper()
	ip := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250))
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "80"))
	if err != nil {
		t.Skipf("needs root, or another way to listen on port 80 of an address of 127/8: %v", err)
	}
	l.Close()
	return ip
}

func serveAt(t *testing.T, addr string, handler http.HandlerFunc) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
}

// look looks as long as a test waits in vain.
func look(t *testing.T, ip string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	return newView(nil, false).seesHTTP(ctx, answerTo{name: ip, token: "token", keyAuth: "token.thumb"})
}

func TestTheSelfCheckSeesWhatTheCAWillSee(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handle http.HandlerFunc
		want   string // in the error, "" for none
		hint   string
	}{
		"the answer":            {answering("token.thumb"), "", ""},
		"with a line's end":     {answering("token.thumb\r\n \t"), "", ""},
		"something else":        {answering("<html>Welcome</html>"), `returns something else: "<html>Welcome</html>"`, "another web server"},
		"controls":              {answering("\x1b[31m\n-----BEGIN PRIVATE KEY-----"), "returns something else", "another web server"},
		"more than the answer":  {answering("token.thumb" + strings.Repeat("x", 1<<20)), "returns something else", "another web server"},
		"another key's answer":  {answering("token.other"), "returns something else", "another web server"},
		"nothing":               {http.NotFound, "returns 404 Not Found", "override"},
		"an error":              {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "returns 500", "override"},
		"a circle of redirects": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, "redirects", "port 80"},
		"a redirect nowhere":    {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "gopher://x/", http.StatusFound) }, "where no CA looks", "port 80"},
		"no HTTP":               {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF", "port 80"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ip := host(t)
			serveAt(t, ip+":80", func(w http.ResponseWriter, r *http.Request) {
				assert.Equal(t, challengePath+"token", r.URL.Path)
				c.handle(w, r)
			})
			err := look(t, ip)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
			assert.Contains(t, say.HintOf(err), c.hint)
			assert.Contains(t, say.HintOf(err), "--no-self-check")
			assert.NotContains(t, err.Error(), "\x1b")
			assert.NotContains(t, err.Error(), "BEGIN")
			assert.Less(t, len(err.Error()), 1000)
		})
	}
}

func answering(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

func TestTheSelfCheckFollowsTheFrontsRedirectToAnyCertificate(t *testing.T) {
	t.Parallel()
	ip := host(t)
	a := newAuthority(t) // whose certificate is not trusted
	l, err := net.Listen("tcp", ip+":443")
	require.NoError(t, err)
	secure := &http.Server{Handler: answering("token.thumb")}
	go func() {
		_ = secure.Serve(tls.NewListener(l, &tls.Config{Certificates: a.server.TLS.Certificates}))
	}()
	t.Cleanup(func() { secure.Close() })
	serveAt(t, ip+":80", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://"+ip+r.URL.Path, http.StatusMovedPermanently)
	})
	require.NoError(t, look(t, ip))
}

// Whoever answers for the name must not make this host fetch from internal services.
func TestTheSelfCheckFollowsNoRedirectToAnAddressOrAnotherPort(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	secret := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, "a secret")
	}))
	t.Cleanup(secret.Close)
	port := secret.URL[strings.LastIndex(secret.URL, ":"):]
	other := host(t)
	serveAt(t, other+":80", func(w http.ResponseWriter, r *http.Request) { secret.Config.Handler.ServeHTTP(w, r) })
	for _, to := range []string{secret.URL, "http://localhost" + port, "http://" + other, "https://localhost:80", "http://[::ffff:127.0.0.1]"} {
		ip := host(t)
		serveAt(t, ip+":80", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) })
		err := look(t, ip)
		require.ErrorContains(t, err, "a redirect to ", to)
		assert.NotContains(t, err.Error(), "a secret")
		assert.Contains(t, say.HintOf(err), "--no-self-check")
	}
	assert.Zero(t, asked.Load())
}

func TestTheSelfCheckWaitsForAFrontThatIsLoading(t *testing.T) {
	t.Parallel()
	ip := host(t)
	var asked atomic.Int32
	serveAt(t, ip+":80", func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 3 {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, "token.thumb")
	})
	require.NoError(t, look(t, ip))
}

func TestASelfCheckThatIsCutShortReportsWhatItSawBefore(t *testing.T) {
	t.Parallel()
	ip := host(t)
	var asked atomic.Int32
	serveAt(t, ip+":80", func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > 1 {
			<-r.Context().Done()
		}
		http.NotFound(w, r)
	})
	require.ErrorContains(t, look(t, ip), "404 Not Found")
}

func TestAnUnreachableHostIsReported(t *testing.T) {
	t.Parallel()
	err := look(t, host(t))
	require.ErrorContains(t, err, "refused")
	assert.Contains(t, say.HintOf(err), "of every address of the name")
}

func TestASkippedSelfCheckConnectsToNothing(t *testing.T) {
	t.Parallel()
	a := answerTo{name: "mail.invalid", token: "token"}
	require.NoError(t, newView(nil, true).seesHTTP(t.Context(), a))
	require.NoError(t, ALPN(newServer(t), nil, true).check(t.Context(), a))
}

func TestANameThatDoesNotExistIsNotLookedUpAgain(t *testing.T) {
	t.Parallel()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			reply := append([]byte{}, buf[:n]...)
			reply[2], reply[3], reply[11] = 0x81, 0x83, 0 // an answer, NXDOMAIN, without the option of EDNS
			if end := questionEnd(reply); end > 0 {
				_, _ = conn.WriteTo(reply[:end], from)
			}
		}
	}()
	began := time.Now()
	err = newView(Resolver(conn.LocalAddr().String()), false).seesHTTP(t.Context(), answerTo{name: "mail.example.com", token: "token"})
	var missing *net.DNSError
	require.ErrorAs(t, err, &missing)
	assert.True(t, missing.IsNotFound)
	assert.Less(t, time.Since(began), 5*time.Second)
	assert.Contains(t, say.HintOf(err), "A and AAAA records")
	assert.Contains(t, say.HintOf(err), "--resolver")
}

// questionEnd is where the only question of a message ends.
func questionEnd(message []byte) int {
	for i := 12; i < len(message); i += 1 + int(message[i]) {
		if message[i] == 0 {
			return min(len(message), i+5)
		}
	}
	return 0
}

func TestTheTLSALPNSelfCheckRecognizesOurCertificate(t *testing.T) {
	t.Parallel()
	for _, whose := range []string{"ours", "another's", "nobody's"} {
		t.Run(whose, func(t *testing.T) {
			t.Parallel()
			ip := host(t)
			ours := NewServer(ip + ":443")
			a := answerTo{name: ip, token: "token", keyAuth: "token.thumb"}
			solver := ALPN(ours, nil, false)
			require.NoError(t, solver.present(t.Context(), a))
			t.Cleanup(ours.Close)
			switch whose {
			case "ours":
				require.NoError(t, solver.check(t.Context(), a))
				return
			case "another's":
				ours.Close()
				theirs := NewServer(ip + ":443")
				t.Cleanup(theirs.Close)
				require.NoError(t, ALPN(theirs, nil, true).present(t.Context(), a))
			case "nobody's":
				ours.Close()
			}
			err := solver.check(t.Context(), a)
			require.Error(t, err)
			assert.Contains(t, say.HintOf(err), "443")
			assert.False(t, errors.Is(err, context.DeadlineExceeded))
		})
	}
}

func TestAResolverIsAskedAtItsPort(t *testing.T) {
	t.Parallel()
	assert.Same(t, net.DefaultResolver, Resolver(""))
	for _, given := range []string{"127.0.0.1", "[::1]", "::1", "127.0.0.1:5353"} {
		assert.True(t, Resolver(given).PreferGo, given)
	}
}
