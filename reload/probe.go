package reload

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

const (
	askLimit    = 3 * time.Second        // one question to one port, handshake included
	dialLimit   = time.Second            // one address
	firstWait   = 100 * time.Millisecond // after daemons were told to reload: none is done sooner, and questions hold them up
	firstPause  = 50 * time.Millisecond
	longestWait = 250 * time.Millisecond
)

// Look asks every TLS port of the front once, all at the same time, and returns
// after three seconds at the latest.
func (f *Front) Look(ctx context.Context) []mailu.Endpoint {
	return f.ask(ctx, f.Ports)
}

func (f *Front) ask(ctx context.Context, ports []mailu.Port) []mailu.Endpoint {
	answers := make([]mailu.Endpoint, len(ports))
	var wg sync.WaitGroup
	for i, p := range ports {
		wg.Go(func() { answers[i] = f.askOne(ctx, p) })
	}
	wg.Wait()
	return answers
}

// Await asks every port again and again until done accepts its answer or ctx
// ends, and returns the last answers; done is called for several ports at a
// time. Each port is asked at least once unless
// ctx has ended before.
func (f *Front) Await(ctx context.Context, done func(mailu.Endpoint) bool) []mailu.Endpoint {
	answers := make([]mailu.Endpoint, len(f.Ports))
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(f.told.Add(firstWait))):
	}
	var wg sync.WaitGroup
	for i, p := range f.Ports {
		wg.Go(func() {
			for pause := firstPause; ; pause = min(2*pause, longestWait) {
				if e := f.askOne(ctx, p); answers[i].Number == 0 || ctx.Err() == nil {
					answers[i] = e // the last one that ctx did not cut short
				}
				if done(answers[i]) {
					return
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(pause):
				}
			}
		})
	}
	wg.Wait()
	return answers
}

func (f *Front) askOne(ctx context.Context, p mailu.Port) mailu.Endpoint {
	ctx, cancel := context.WithTimeoutCause(ctx, askLimit, errors.New("no answer within "+askLimit.String()))
	defer cancel()
	chain, err := f.handshake(ctx, p)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return mailu.Endpoint{Port: p, Err: err}
	}
	return mailu.Endpoint{Port: p, Leaf: pki.Fingerprint(chain[0]), Chain: chain}
}

// handshake completes a TLS handshake on the port, as a mail client would, and
// returns the chain that was sent, which is never empty. It is not checked here,
// as the question is what the server shows; that it owns the leaf's key is part
// of the handshake.
func (f *Front) handshake(ctx context.Context, p mailu.Port) ([]*x509.Certificate, error) {
	conn, err := f.dial(ctx, p)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if p.Proxy {
		if _, err := conn.Write(proxyHeader); err != nil {
			return nil, fmt.Errorf("sending the PROXY header: %w", err)
		}
	}
	if !p.Implicit {
		if err := startTLS(conn, p.Protocol); err != nil {
			return nil, err
		}
	}
	client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: f.serverName()})
	if err := client.Handshake(); err != nil {
		return nil, fmt.Errorf("TLS handshake: %s", say.Foreign(err.Error()))
	}
	return client.ConnectionState().PeerCertificates, nil
}

func (f *Front) serverName() string {
	if len(f.Hostnames) == 0 {
		return ""
	}
	return mailu.CanonicalName(f.Hostnames[0])
}

// dial connects to the port at the first of its addresses that can be reached.
// A refusal is an answer, and the port closed: whoever publishes it would
// accept the connection only to drop it.
func (f *Front) dial(ctx context.Context, p mailu.Port) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialLimit}
	err := errors.New("no address to ask: the container is on no network, and the port is not published")
	for _, addr := range f.addresses(p.Number) {
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
