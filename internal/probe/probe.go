// Package probe asks TLS ports which certificate they show. It needs a list of
// ports and of addresses, and knows neither a container nor an engine.
//
// A leaf that it reports was shown by a server that owns the leaf's key: that is
// part of the handshake. Whether the leaf is valid, or trusted, is not checked.
package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
	"mailu-hook/internal/wait"
)

const (
	askLimit    = 3 * time.Second       // one question to one port, handshake included
	dialLimit   = time.Second           // one address
	firstPause  = 10 * time.Millisecond // grows by half each time
	longestWait = 250 * time.Millisecond
)

// Target is a list of ports and where they are reached.
type Target struct {
	ServerName string           // sent as SNI; none if ""
	Ports      []mailu.Port     // those that are asked
	Hosts      []string         // on which each port has its own number; tried first
	Published  map[int][]string // by port: host:port, tried after Hosts
}

// New returns the target for what a front says of itself, at hosts.
func New(facts mailu.Facts, hosts ...string) Target {
	t := Target{Ports: facts.Ports, Hosts: hosts}
	if len(facts.Hostnames) > 0 {
		t.ServerName = mailu.CanonicalName(facts.Hostnames[0])
	}
	return t
}

// Only returns the target with no ports but these.
func (t Target) Only(ports []mailu.Port) Target {
	t.Ports = ports
	return t
}

// Addresses returns where a port is reached, in the order in which they are
// tried.
func (t Target) Addresses(port int) []string {
	var addrs []string
	for _, host := range t.Hosts {
		addrs = append(addrs, net.JoinHostPort(host, strconv.Itoa(port)))
	}
	return append(addrs, t.Published[port]...)
}

// Look asks every port once, all at the same time, and returns after three
// seconds at the latest.
func (t Target) Look(ctx context.Context) []mailu.Endpoint {
	answers := make([]mailu.Endpoint, len(t.Ports))
	var wg sync.WaitGroup
	for i, p := range t.Ports {
		wg.Go(func() { answers[i] = t.ask(ctx, p) })
	}
	wg.Wait()
	return answers
}

// Await asks every port again and again until done accepts its answer or ctx
// ends, and returns the last answers. done is called for several ports at a time.
// Each port is asked at least once unless ctx has ended before.
func (t Target) Await(ctx context.Context, done func(mailu.Endpoint) bool) []mailu.Endpoint {
	answers := make([]mailu.Endpoint, len(t.Ports))
	var wg sync.WaitGroup
	for i, p := range t.Ports {
		wg.Go(func() {
			for pause := firstPause; ; pause = min(pause*3/2, longestWait) {
				if e := t.ask(ctx, p); answers[i].Number == 0 || ctx.Err() == nil {
					answers[i] = e // the last one that ctx did not cut short
				}
				if done(answers[i]) || wait.For(ctx, pause) != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return answers
}

func (t Target) ask(ctx context.Context, p mailu.Port) mailu.Endpoint {
	ctx, cancel := context.WithTimeoutCause(ctx, askLimit, errors.New("no answer within "+askLimit.String()))
	defer cancel()
	chain, connected, err := t.handshake(ctx, p)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
		if connected && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("connected, but %w", silent{err})
		}
	}
	if err != nil {
		return mailu.Endpoint{Port: p, Err: err}
	}
	return mailu.Endpoint{Port: p, Leaf: pki.Fingerprint(chain[0]), Chain: chain}
}

// handshake completes a TLS handshake on the port, as a mail client would, and
// returns the chain that was sent, which is never empty, and whether the port at
// least accepted the connection. Of a leaf that crypto/x509 cannot parse, an outline is
// the whole chain.
func (t Target) handshake(ctx context.Context, p mailu.Port) (chain []*x509.Certificate, connected bool, err error) {
	connected, err = t.talk(ctx, p, func(conn net.Conn) error {
		client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: t.ServerName})
		err := client.Handshake()
		chain = client.ConnectionState().PeerCertificates
		return err
	})
	if err != nil && unparsed(err) {
		_, _ = t.talk(ctx, p, func(conn net.Conn) error {
			if leaf := outline(conn, t.ServerName); leaf != nil {
				chain, err = []*x509.Certificate{leaf}, nil
			}
			return nil
		})
	}
	return chain, connected, err
}

// talk connects to the port, and has secure make the handshake once the server is ready
// for it.
func (t Target) talk(ctx context.Context, p mailu.Port, secure func(net.Conn) error) (connected bool, err error) {
	conn, err := t.Dial(ctx, p)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if !p.Implicit {
		if err := startTLS(conn, p.Protocol); err != nil {
			return true, err
		}
	}
	if err := secure(conn); err != nil {
		return true, fmt.Errorf("TLS handshake: %s", say.Foreign(err.Error()))
	}
	return true, nil
}

// silent is why a port that accepted a connection did not answer in time.
type silent struct{ error }

func (s silent) Is(target error) bool { return target == mailu.ErrSilent }
func (s silent) Unwrap() error        { return s.error }

// Dial connects to the port at the first of its addresses that can be reached,
// and sends a PROXY header where the port expects one. A refused connection is an
// answer, mailu.ErrClosed: the address after it would be a proxy that accepts
// every connection and then drops it.
func (t Target) Dial(ctx context.Context, p mailu.Port) (net.Conn, error) {
	conn, err := t.connect(ctx, p.Number)
	if err != nil || !p.Proxy {
		return conn, err
	}
	if _, err := conn.Write(proxyHeader); err != nil {
		conn.Close()
		return nil, fmt.Errorf("sending the PROXY header: %w", err)
	}
	return conn, nil
}

func (t Target) connect(ctx context.Context, port int) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialLimit}
	err := errors.New("no address to ask: the container is on no network that this host reaches, and the port is not published")
	for _, addr := range t.Addresses(port) {
		var conn net.Conn
		if conn, err = dialer.DialContext(ctx, "tcp", addr); err == nil {
			return conn, nil
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("%w at %s", mailu.ErrClosed, addr)
		}
	}
	return nil, err
}

// proxyHeader is version 2 of the PROXY protocol, command LOCAL: "no one is
// relayed, this is the proxy itself" (HAProxy's proxy-protocol.txt, 2.2). The
// front asks for it where PROXY_PROTOCOL lists the port, and takes it only from
// addresses in REAL_IP_FROM.
var proxyHeader = []byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")
