package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-acme/lego/v4/challenge"
	"github.com/go-acme/lego/v4/challenge/tlsalpn01"

	"mailu-hook/internal/say"
)

// Method is a way to answer challenges, as given with --challenge.
type Method string

// The methods.
const (
	Front      Method = "front"      // http-01, served by the running front
	Webroot    Method = "webroot"    // http-01, served by another web server from files
	Standalone Method = "standalone" // http-01, served by ourselves
	TLSALPN    Method = "tls-alpn"   // tls-alpn-01, served by ourselves
	DNS        Method = "dns"        // dns-01
)

// Tokens is where a web server finds the files that it serves below
// /.well-known/acme-challenge/.
type Tokens interface {
	Present(ctx context.Context, token, keyAuth string) error
	CleanUp(ctx context.Context, token string) error
}

// HTTP answers http-01 with files that a web server serves.
func HTTP(t Tokens, resolver *net.Resolver, noCheck bool) Solver {
	return httpSolver{t, newView(resolver, noCheck)}
}

type httpSolver struct {
	tokens Tokens
	view   view
}

func (httpSolver) kind() challenge.Type { return challenge.HTTP01 }
func (httpSolver) width() int           { return width }

func (s httpSolver) present(ctx context.Context, a answerTo) error {
	return s.tokens.Present(ctx, a.token, a.keyAuth)
}
func (s httpSolver) check(ctx context.Context, a answerTo) error { return s.view.seesHTTP(ctx, a) }
func (s httpSolver) cleanUp(ctx context.Context, a answerTo) error {
	return s.tokens.CleanUp(ctx, a.token)
}

// Server serves challenge responses to the CA.
type Server struct {
	addr string

	mu       sync.Mutex
	listener net.Listener
	shown    map[string]string           // responses by token
	certs    map[string]*tls.Certificate // by name
}

// NewServer returns a server that listens on addr, host:port, from the first response
// on until Close.
func NewServer(addr string) *Server {
	return &Server{addr: addr, shown: map[string]string{}, certs: map[string]*tls.Certificate{}}
}

// Close stops listening.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		s.listener.Close()
	}
}

func (s *Server) listen(serve func(net.Listener)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		return say.Hint(fmt.Errorf("listening for the CA: %w", err),
			"another server, perhaps the front, is using that port: use --challenge front, or choose another address with --listen and forward the port to it")
	}
	s.listener = l
	go serve(l)
	return nil
}

// Present serves the response to a token.
func (s *Server) Present(_ context.Context, token, keyAuth string) error {
	s.mu.Lock()
	s.shown[token] = keyAuth
	s.mu.Unlock()
	return s.listen(s.serve)
}

// serve returns when the listener is closed. Errors of clients are not logged.
func (s *Server) serve(l net.Listener) {
	server := &http.Server{Handler: s, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	_ = server.Serve(l)
}

// CleanUp stops serving it.
func (s *Server) CleanUp(_ context.Context, token string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.shown, token)
	return nil
}

// ServeHTTP responds to the tokens presented.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.URL.Path, challengePath)
	s.mu.Lock()
	keyAuth := s.shown[token]
	s.mu.Unlock()
	if !ok || keyAuth == "" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write([]byte(keyAuth))
}

// ALPN answers tls-alpn-01 (RFC 8737) with a server of our own.
func ALPN(server *Server, resolver *net.Resolver, noCheck bool) Solver {
	return alpnSolver{server, newView(resolver, noCheck)}
}

type alpnSolver struct {
	server *Server
	view   view
}

func (alpnSolver) kind() challenge.Type { return challenge.TLSALPN01 }
func (alpnSolver) width() int           { return width }

func (s alpnSolver) present(_ context.Context, a answerTo) error {
	cert, err := tlsalpn01.ChallengeCert(a.name, a.keyAuth)
	if err != nil {
		return fmt.Errorf("making the challenge certificate: %v", err)
	}
	s.server.mu.Lock()
	s.server.certs[alpnName(a.name)] = cert
	s.server.mu.Unlock()
	return s.server.listen(s.server.handshakes)
}

func (s alpnSolver) cleanUp(_ context.Context, a answerTo) error {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	delete(s.server.certs, alpnName(a.name))
	return nil
}

// handshakes completes TLS handshakes, which are the whole response (RFC 8737,
// section 3).
func (s *Server) handshakes(l net.Listener) {
	s.serve(tls.NewListener(l, &tls.Config{NextProtos: []string{tlsalpn01.ACMETLS1Protocol}, GetCertificate: s.certificate}))
}

func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cert := s.certs[strings.ToLower(hello.ServerName)]; cert != nil {
		return cert, nil
	}
	return nil, errors.New("no challenge for this name")
}

// alpnName is the server name that a CA sends for an identifier; for an IP address
// it is the name of its reverse lookup (RFC 8738, section 6).
func alpnName(identifier string) string {
	ip, err := netip.ParseAddr(identifier)
	if err != nil {
		return identifier
	}
	bytes := ip.AsSlice()
	slices.Reverse(bytes)
	var name strings.Builder
	for _, b := range bytes {
		if ip.Is4() {
			fmt.Fprintf(&name, "%d.", b)
		} else {
			fmt.Fprintf(&name, "%x.%x.", b&0xf, b>>4)
		}
	}
	if ip.Is4() {
		return name.String() + "in-addr.arpa"
	}
	return name.String() + "ip6.arpa"
}

// check looks for the challenge certificate on port 443 of the name.
func (s alpnSolver) check(ctx context.Context, a answerTo) error {
	if s.view.skip {
		return nil
	}
	dialer := &tls.Dialer{NetDialer: s.view.dialer, Config: &tls.Config{
		InsecureSkipVerify: true, ServerName: alpnName(a.name), NextProtos: []string{tlsalpn01.ACMETLS1Protocol},
	}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(a.name, "443"))
	if err != nil {
		return unseen(err)
	}
	defer conn.Close()
	s.server.mu.Lock()
	want := s.server.certs[alpnName(a.name)].Certificate[0]
	s.server.mu.Unlock()
	if got := conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw; string(got) != string(want) {
		return say.Hint(errors.New("self-check: port 443 serves another certificate"),
			"another server has port 443 of the name: check that every A and AAAA record points to this host.%s", spare)
	}
	return nil
}
