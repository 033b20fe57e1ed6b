package rig

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mailu-hook/internal/mint"
)

// CAOptions say how to run the ACME server. The zero value issues P-256
// signed certificates of 90 days, at once, without rejected nonces, and has every
// name proved for every order.
type CAOptions struct {
	// Validity of certificates; default 90 days.
	Validity time.Duration
	// Profiles are further ACME profiles with their validities. Pebble
	// picks one at random for a client that asks for none.
	Profiles map[string]time.Duration
	// EAB maps key ids to base64url keys; not empty means that an account
	// needs external binding.
	EAB map[string]string
	// Resolver is the DNS server, host:port, that Pebble asks in place of the
	// CA's own: that of a Zone.
	Resolver string
	// Config is added to, or in place of, what is under "pebble" in
	// Pebble's configuration file.
	Config map[string]any
	// Env is for more of Pebble, such as PEBBLE_WFE_NONCEREJECT=15; later
	// entries win.
	Env []string
}

// CA is a Pebble with a DNS server of its own, both on loopback.
type CA struct {
	DirectoryURL    string
	DirectoryCAFile string // PEM: the root of the directory's own TLS certificate
	// HTTPPort and TLSPort are where Pebble looks for HTTP-01 and
	// TLS-ALPN-01 answers, in place of 80 and 443.
	HTTPPort, TLSPort int
	// DNSAddr answers every name with 127.0.0.1, but see SetA.
	DNSAddr string

	dir            string
	dns, mgmt      string // base URLs of the management interfaces
	client         *http.Client
	pebble, dnsSrv *process
}

// StartCA starts an ACME server that keeps its files below dir, and returns
// when it is ready. The caller must Close it.
func StartCA(ctx context.Context, dir string, o CAOptions) (*CA, error) {
	ca := &CA{dir: dir}
	if err := ca.mintDirectoryCert(); err != nil {
		return nil, fmt.Errorf("starting Pebble: %w", err)
	}
	// Ports are looked for, closed and given to Pebble; somebody else may
	// take one in between.
	const attempts = 3
	var failed error
	for range attempts {
		err := ca.start(ctx, o)
		if err == nil {
			return ca, nil
		}
		ca.Close()
		failed = errors.Join(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("starting Pebble: %w", failed)
}

func (ca *CA) start(ctx context.Context, o CAOptions) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	ports, err := freePorts(6)
	if err != nil {
		return err
	}
	directory, management := local(ports[0]), local(ports[1])
	ca.HTTPPort, ca.TLSPort = ports[2], ports[3]
	ca.DNSAddr = local(ports[4])
	ca.dns = "http://" + local(ports[5])
	ca.mgmt = "https://" + management
	ca.DirectoryURL = "https://" + directory + "/dir"
	if err := ca.startDNS(local(ports[5])); err != nil {
		return err
	}
	if err := ca.startPebble(directory, management, o); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case <-ca.pebble.done:
			stop(ca.pebble.ended())
		case <-ca.dnsSrv.done:
			stop(ca.dnsSrv.ended())
		case <-ctx.Done():
		}
	}()
	return poll(ctx, 20*time.Millisecond, func() error { return ca.ready(ctx) })
}

func (ca *CA) startDNS(management string) (err error) {
	program, err := Tool("pebble-challtestsrv")
	if err != nil {
		return err
	}
	ca.dnsSrv, err = startProcess(filepath.Join(ca.dir, "dns.log"), nil, program,
		"-dnsserver", ca.DNSAddr, "-management", management, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "",
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
	return err
}

func (ca *CA) startPebble(directory, management string, o CAOptions) error {
	program, err := Tool("pebble")
	if err != nil {
		return err
	}
	validity := o.Validity
	if validity == 0 {
		validity = 90 * 24 * time.Hour
	}
	profiles := map[string]any{"default": profile(validity)}
	for name, validity := range o.Profiles {
		profiles[name] = profile(validity)
	}
	config := map[string]any{
		"listenAddress":           directory,
		"managementListenAddress": management,
		"certificate":             ca.file("directory.pem"),
		"privateKey":              ca.file("directory-key.pem"),
		"httpPort":                ca.HTTPPort,
		"tlsPort":                 ca.TLSPort,
		"keyAlgorithm":            "ecdsa",
		"profiles":                profiles,
		"retryAfter":              map[string]int{"authz": 1, "order": 1},
	}
	if len(o.EAB) > 0 {
		config["externalAccountBindingRequired"] = true
		config["externalAccountMACKeys"] = o.EAB
	}
	maps.Copy(config, o.Config)
	data, err := json.MarshalIndent(map[string]any{"pebble": config}, "", "  ")
	if err != nil {
		return fmt.Errorf("writing Pebble's configuration: %w", err)
	}
	if err := os.WriteFile(ca.file("pebble.json"), data, 0o600); err != nil {
		return err
	}
	env := append([]string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0"}, o.Env...)
	ca.pebble, err = startProcess(ca.file("pebble.log"), env, program,
		"-config", ca.file("pebble.json"), "-dnsserver", cmp.Or(o.Resolver, ca.DNSAddr))
	return err
}

func profile(validity time.Duration) map[string]any {
	return map[string]any{"description": validity.String(), "validityPeriod": int64(validity / time.Second)}
}

// ready asks each of the three servers once.
func (ca *CA) ready(ctx context.Context) error {
	if _, err := ca.get(ctx, ca.DirectoryURL); err != nil {
		return err
	}
	if _, err := ca.get(ctx, ca.mgmt+"/roots/0"); err != nil {
		return err
	}
	return ca.SetA(ctx, "localhost", "127.0.0.1")
}

func (ca *CA) mintDirectoryCert() error {
	if err := os.MkdirAll(ca.dir, 0o700); err != nil {
		return err
	}
	issuer, err := mint.NewCA(mint.CAOptions{Name: "Pebble directory", NoIntermediate: true})
	if err != nil {
		return err
	}
	pair, err := issuer.Issue(mint.Leaf{Names: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		return err
	}
	ca.DirectoryCAFile = ca.file("directory-root.pem")
	for path, data := range map[string][]byte{
		ca.file("directory.pem"):     pair.Chain,
		ca.file("directory-key.pem"): pair.KeyPEM,
		ca.DirectoryCAFile:           pair.RootPEM,
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(issuer.Root)
	ca.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	return nil
}

func (ca *CA) file(name string) string { return filepath.Join(ca.dir, name) }

// Roots writes the root that the issued chains end in to a file, and returns
// its path. Pebble makes a new root at each start.
func (ca *CA) Roots(ctx context.Context) (string, error) {
	data, err := ca.Root(ctx, 0)
	if err != nil {
		return "", fmt.Errorf("fetching Pebble's root: %w", err)
	}
	path := ca.file("root.pem")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return "", fmt.Errorf("fetching Pebble's root: %w", err)
	}
	return path, nil
}

// Issued reports how many certificates the CA has issued since it was started.
func (ca *CA) Issued() (int, error) {
	log, err := ca.Log()
	return strings.Count(log, "Issued certificate serial "), err
}

// Root is the root that a chain ends in, in PEM: 0 is that of the chain that Pebble
// sends first, the others those of PEBBLE_ALTERNATE_ROOTS.
func (ca *CA) Root(ctx context.Context, n int) ([]byte, error) {
	return ca.get(ctx, ca.mgmt+"/roots/"+strconv.Itoa(n))
}

// SetRenewalInfo makes Pebble answer with this body when it is asked for renewal
// information (RFC 9773) on a certificate of its own, given in PEM.
func (ca *CA) SetRenewalInfo(ctx context.Context, certificate []byte, answer string) error {
	err := ca.post(ctx, ca.mgmt+"/set-renewal-info/", map[string]any{"Certificate": string(certificate), "ARIResponse": answer})
	if err != nil {
		return fmt.Errorf("setting renewal information: %w", err)
	}
	return nil
}

// Log is what Pebble has logged: among other things each request to it, and each
// look at an answer to a challenge.
func (ca *CA) Log() (string, error) {
	data, err := os.ReadFile(ca.file("pebble.log"))
	return string(data), err
}

// SetA makes a name resolve to an IPv4 address, and to no other, for Pebble.
func (ca *CA) SetA(ctx context.Context, name, ip string) error {
	if err := ca.ChangeDNS(ctx, "clear-a", map[string]any{"host": name + "."}); err != nil {
		return err
	}
	return ca.ChangeDNS(ctx, "add-a", map[string]any{"host": name + ".", "addresses": []string{ip}})
}

// ChangeDNS posts to the DNS server's management interface; the verbs, such
// as set-txt, are those of pebble-challtestsrv.
func (ca *CA) ChangeDNS(ctx context.Context, verb string, body map[string]any) error {
	if err := ca.post(ctx, ca.dns+"/"+verb, body); err != nil {
		return fmt.Errorf("changing the DNS: %w", err)
	}
	return nil
}

// DNSManagement is the URL below which ChangeDNS posts.
func (ca *CA) DNSManagement() string { return ca.dns }

func (ca *CA) post(ctx context.Context, url string, body map[string]any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(data))
	if err != nil {
		return err
	}
	_, err = ca.do(request)
	return err
}

func (ca *CA) get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return ca.do(request)
}

func (ca *CA) do(request *http.Request) ([]byte, error) {
	response, err := ca.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s%s", request.Method, request.URL, response.Status, quoted(string(body)))
	}
	return body, err
}

// Close kills both servers. It is safe to call more than once.
func (ca *CA) Close() {
	ca.pebble.stop()
	ca.dnsSrv.stop()
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts finds ports of loopback that nobody uses, for TCP and for UDP. It
// stays below the range of outgoing connections, so that no client takes one
// by chance before its server starts.
func freePorts(n int) ([]int, error) {
	const low, high, tries = 20000, 32000, 1000
	var ports []int
	for range tries {
		if len(ports) == n {
			return ports, nil
		}
		port := low + rand.IntN(high-low)
		tcp, err := net.Listen("tcp", local(port))
		if err != nil {
			continue
		}
		defer tcp.Close() // not before all are found, so that none is found twice
		udp, err := net.ListenPacket("udp", local(port))
		if err != nil {
			continue
		}
		defer udp.Close()
		ports = append(ports, port)
	}
	return nil, errors.New("finding free ports: none in 1000 tries")
}
