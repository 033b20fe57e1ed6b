package rig

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// starttls names the dialogue by which a port comes to TLS, as openssl calls
// it. Other ports speak TLS from the first byte.
var starttls = map[int]string{25: "smtp", 587: "smtp", 143: "imap", 110: "pop3", 4190: "sieve"}

// Leaf asks a TLS port with openssl s_client, a second implementation of all
// that mailu-hook does by itself, and returns the certificate it shows after
// a complete handshake. No chain is verified. The protocol follows from port;
// addr is a host, or host:port where the port is published under another
// number. It takes five seconds at most.
func Leaf(ctx context.Context, addr string, port int, servername string) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// Reading the system's roots, which nothing is verified against, would be most of
	// what a question costs.
	args := []string{"openssl", "s_client", "-no-CAfile", "-no-CApath", "-no-CAstore", "-connect", target(addr, port), "-servername", servername}
	if protocol, ok := starttls[port]; ok {
		args = append(args, "-starttls", protocol)
	}
	out, err := run(ctx, nil, args...)
	if err != nil {
		return nil, fmt.Errorf("asking port %d of %s: %w", port, addr, err)
	}
	block, _ := pem.Decode([]byte(out.stdout))
	if block == nil {
		return nil, fmt.Errorf("asking port %d of %s: no certificate shown", port, addr)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("asking port %d of %s: %w", port, addr, err)
	}
	return leaf, nil
}

func target(addr string, port int) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(addr, strconv.Itoa(port))
}

// Served is Leaf, reduced to the hex SHA-256 of the certificate.
func Served(ctx context.Context, addr string, port int, servername string) (string, error) {
	leaf, err := Leaf(ctx, addr, port, servername)
	if err != nil {
		return "", err
	}
	return fingerprint(leaf), nil
}

// ServedAll asks several ports of one address at the same time. The map holds
// those that answered; the error is about the others.
func ServedAll(ctx context.Context, ip string, ports []int, servername string) (map[int]string, error) {
	leaves, err := each(ports, func(port int) (*x509.Certificate, error) {
		return Leaf(ctx, ip, port, servername)
	})
	return fingerprints(leaves), err
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func fingerprints(leaves map[int]*x509.Certificate) map[int]string {
	sums := make(map[int]string, len(leaves))
	for port, leaf := range leaves {
		sums[port] = fingerprint(leaf)
	}
	return sums
}

func each(ports []int, ask func(int) (*x509.Certificate, error)) (map[int]*x509.Certificate, error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	leaves := map[int]*x509.Certificate{}
	for _, port := range ports {
		wg.Go(func() {
			leaf, err := ask(port)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = errors.Join(failed, err)
				return
			}
			leaves[port] = leaf
		})
	}
	wg.Wait()
	return leaves, failed
}

// NginxOnly reports, by the image's tag, whether this is Mailu 2.0 or older:
// nginx is PID 1 and serves mail too, there is no dovecot and no port 4190.
func (f *Front) NginxOnly() bool {
	tag := f.Image[strings.LastIndexByte(f.Image, ':')+1:]
	return strings.HasPrefix(tag, "1.") || tag == "2.0" || strings.HasPrefix(tag, "2.0.")
}

// TLSPorts returns the ports that the front's environment makes it serve with
// TLS: those of TLS that begin with it, those of PORTS that come to it by
// STARTTLS, and port 25. Mailu 2.0 has neither list and opens them all.
func (f *Front) TLSPorts() []int {
	if f.NginxOnly() {
		return []int{25, 110, 143, 443, 465, 587, 993, 995}
	}
	listed := func(variable string, port int) bool {
		list := f.Env[variable]
		if list == "" {
			list = "25,80,443,465,993,995,4190"
		}
		return slices.Contains(strings.Split(list, ","), strconv.Itoa(port))
	}
	ports := []int{25}
	for _, port := range []int{443, 465, 993, 995} {
		if listed("TLS", port) {
			ports = append(ports, port)
		}
	}
	for _, port := range []int{110, 143, 587, 4190} {
		if listed("PORTS", port) {
			ports = append(ports, port)
		}
	}
	return ports
}

// Leaves asks ports of the front, by default all its TLS ports, with a PROXY
// header where its environment demands one.
func (f *Front) Leaves(ctx context.Context, ports ...int) (map[int]*x509.Certificate, error) {
	c, err := f.engine.inspect(ctx, f.Name)
	if err != nil {
		return nil, err
	}
	if len(ports) == 0 {
		ports = f.TLSPorts()
	}
	name, _, _ := strings.Cut(f.Env["HOSTNAMES"], ",")
	return each(ports, func(port int) (*x509.Certificate, error) {
		at, err := f.at(c, port)
		if err == nil && f.wantsProxyHeader(port) {
			return leafBehindProxy(ctx, at, port, name)
		}
		if err != nil {
			return nil, err
		}
		return Leaf(ctx, at, port, name)
	})
}

// Served is Leaves, reduced to the hex SHA-256 of each certificate.
func (f *Front) Served(ctx context.Context, ports ...int) (map[int]string, error) {
	leaves, err := f.Leaves(ctx, ports...)
	return fingerprints(leaves), err
}

// WaitServing waits until ports of the front, by default all its TLS ports,
// complete a handshake, whatever they show; at most 60 seconds. Only ports that
// accept a connection are asked by openssl, and those that answered not again.
func (f *Front) WaitServing(ctx context.Context, ports ...int) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	if len(ports) == 0 {
		ports = f.TLSPorts()
	}
	waiting := slices.Clone(ports)
	err := poll(ctx, 100*time.Millisecond, func() error {
		if err := f.accepts(ctx, waiting[0]); err != nil {
			return err
		}
		answered, err := f.Leaves(ctx, waiting...)
		waiting = slices.DeleteFunc(waiting, func(port int) bool { return answered[port] != nil })
		return err
	})
	if err != nil {
		return fmt.Errorf("waiting for %s to serve: %w", f.Name, err)
	}
	return nil
}

// accepts reports, as an error, that a port does not accept connections.
func (f *Front) accepts(ctx context.Context, port int) error {
	c, err := f.engine.inspect(ctx, f.Name)
	if err != nil {
		return err
	}
	at, err := f.at(c, port)
	if err != nil {
		return err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", target(at, port))
	if err != nil {
		return fmt.Errorf("asking port %d of %s: %w", port, at, err)
	}
	return conn.Close()
}

// wantsProxyHeader reads PROXY_PROTOCOL as the front does. Mailu 2.0 knows
// the words mail, http and all; later ones a list of ports and words. Port 80,
// in which all and all-but-http differ, is no TLS port.
func (f *Front) wantsProxyHeader(port int) bool {
	list := f.Env["PROXY_PROTOCOL"]
	if f.NginxOnly() {
		return list == "all" || list == "mail" && port != 443 || list == "http" && port == 443
	}
	for item := range strings.SplitSeq(list, ",") {
		if item == strconv.Itoa(port) || item == "all" || item == "all-but-http" || item == "mail" && port != 443 {
			return true
		}
	}
	return false
}

// proxyLocal is a PROXY protocol version 2 header with the command LOCAL:
// signature, version and command, no address family, no addresses.
const proxyLocal = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"

// leafBehindProxy is Leaf through a relay that says the PROXY header first,
// because openssl cannot.
func leafBehindProxy(ctx context.Context, ip string, port int, name string) (*x509.Certificate, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting a relay: %w", err)
	}
	relayed := make(chan error, 1)
	go func() { relayed <- relay(listener, target(ip, port)) }()
	leaf, err := Leaf(ctx, listener.Addr().String(), port, name)
	listener.Close()
	if failed := <-relayed; err != nil {
		return nil, errors.Join(err, failed)
	}
	return leaf, nil
}

// relay takes one connection and passes it on to target. It ends when the
// client does.
func relay(listener net.Listener, target string) error {
	client, err := listener.Accept()
	if err != nil {
		return fmt.Errorf("relaying to %s: %w", target, err)
	}
	defer client.Close()
	server, err := net.DialTimeout("tcp", target, 3*time.Second)
	if err != nil {
		return fmt.Errorf("relaying to %s: %w", target, err)
	}
	defer server.Close()
	if _, err := io.WriteString(server, proxyLocal); err != nil {
		return fmt.Errorf("relaying to %s: %w", target, err)
	}
	go func() {
		io.Copy(client, server)
		client.Close()
	}()
	io.Copy(server, client)
	return nil
}
