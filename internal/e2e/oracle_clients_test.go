package e2e

import (
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/hook"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/rig"
	"mailu-hook/internal/source"
)

// mailClients are the TLS libraries of mail clients and servers, each asked
// whether it trusts what listens at an address. The answer is its complaint, ""
// for none.
var mailClients = map[string]func(o *clientOracle, address string) string{
	"OpenSSL": func(o *clientOracle, address string) string {
		return o.run("openssl", "s_client", "-connect", address, "-servername", mint.DefaultName, "-verify_hostname", mint.DefaultName,
			"-verify_return_error", "-CAfile", o.roots, "-no-CApath", "-no-CAstore", "-brief")
	},
	"GnuTLS": func(o *clientOracle, address string) string {
		host, port, _ := net.SplitHostPort(address)
		return o.run("gnutls-cli", "--x509cafile="+o.roots, "--port="+port, "--sni-hostname="+mint.DefaultName, "--verify-hostname="+mint.DefaultName, host)
	},
	"NSS": func(o *clientOracle, address string) string {
		host, port, _ := net.SplitHostPort(address)
		return o.run("tstclnt", "-h", host, "-p", port, "-a", mint.DefaultName, "-d", "sql:"+o.nss, "-Q")
	},
	"Go": func(o *clientOracle, address string) string {
		dialer := tls.Dialer{Config: &tls.Config{RootCAs: o.pool, ServerName: mint.DefaultName}}
		conn, err := dialer.DialContext(o.t.Context(), "tcp", address)
		if err != nil {
			return err.Error()
		}
		conn.Close()
		return ""
	},
}

// dissent says why a client refuses what we accept. The keys are the client and
// an expression for the name of the bundle.
var dissent = map[[2]string]string{
	{"NSS", `Ed25519`}:                        "NSS has no Ed25519 certificates; an install warns of it (Rules.Caveats)",
	{"NSS", `RSA key|rsa\d+:`}:                "tstclnt wants keyEncipherment of an RSA key for the suites without ECDHE, which Thunderbird dropped; its own verifier, mozilla::pkix, does not",
	{"OpenSSL", `valid in 50 minutes`}:        early,
	{"GnuTLS", `valid in 50 minutes`}:         early,
	{"Go", `valid in 50 minutes`}:             early,
	{"Go", `constrained to a directory name`}: "only crypto/x509 cannot handle these constraints; mail clients are written in other languages",
}

// cautious says why we refuse what all four clients accept. The keys are
// expressions for the facts in our messages.
var cautious = map[string]string{
	`which is more than clients accept`: "Java takes ten certificates from a server (jdk.tls.maxServerCertificateChainLength)",
	`the subject is empty`:              "RFC 5280, section 4.2.1.6, wants the names critical then, and other clients than these four hold to that",
}

const early = "the clock of this host may be wrong, and within the hour they all accept it"

// clientOracle serves bundles and asks the clients.
type clientOracle struct {
	t          *testing.T
	roots, nss string // PEM file and NSS database of the trusted roots
	pool       *x509.CertPool
}

type verdict struct {
	candidate
	ours    string            // "" for acceptance
	clients map[string]string // complaints
}

// What we accept, every mail client trusts; what we refuse, at least one does
// not. Each exception has its row. A sample is asked; a soak asks all.
func TestMailClientsTrustWhatIsAcceptedAndNotWhatIsRefused(t *testing.T) {
	rig.Need(t, rig.NeedOpenSSL, rig.NeedGnuTLS, rig.NeedNSS)
	t.Parallel()
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	l := &lab{t: t, ca: ca, roots: filepath.Join(t.TempDir(), "roots.pem")}
	require.NoError(t, os.WriteFile(l.roots, ca.RootPEM, 0o600))
	f := &forger{lab: l}
	f.realCAs()
	real := len(f.all)
	f.chains()
	f.leaves()
	f.damagedDER()
	var sample []candidate
	for i, c := range f.all {
		if c.untrusted || c.host != "" || !soak && i >= real && i%5 != 0 {
			continue
		}
		sample = append(sample, c)
	}
	o := &clientOracle{t: t, roots: l.roots, nss: nssStore(t, l.roots)}
	data, err := os.ReadFile(l.roots)
	require.NoError(t, err)
	o.pool, err = pki.Pool(data)
	require.NoError(t, err)

	count, needed := map[string]int{}, map[any]bool{}
	for _, v := range o.ask(sample) {
		refusals := 0
		for _, client := range []string{"OpenSSL", "GnuTLS", "NSS", "Go"} {
			complaint := v.clients[client]
			if complaint == "" {
				continue
			}
			refusals++
			if v.ours != "" {
				continue
			}
			count["accepted, but refused by "+client]++
			if row := dissentOf(client, v.name); assert.NotNil(t, row, "%s: accepted, and %s refuses it: %s", v.name, client, complaint) {
				needed[*row] = true
			}
		}
		switch {
		case v.ours == "":
			count["accepted"]++
		case refusals > 0:
			count["refused"]++
		default:
			count["refused, by us alone"]++
			row := cautiousOf(v.ours)
			assert.NotEmpty(t, row, "%s: refused by us alone, and no row says why: %s", v.name, v.ours)
			needed[row] = true
		}
	}
	if soak {
		for row := range dissent {
			assert.True(t, needed[row], "no bundle needs the row %q any more", row)
		}
		for row := range cautious {
			assert.True(t, needed[row], "no bundle needs the row %q any more", row)
		}
		assert.Greater(t, len(sample), 200)
	}
	assert.Greater(t, count["accepted"], 30)
	summary, err := json.MarshalIndent(count, "", "  ")
	require.NoError(t, err)
	t.Logf("%d bundles: %s", len(sample), summary)
}

func dissentOf(client, name string) *[2]string {
	for row := range dissent {
		if row[0] == client && regexp.MustCompile(row[1]).MatchString(name) {
			return &row
		}
	}
	return nil
}

func cautiousOf(message string) string {
	for row := range cautious {
		if regexp.MustCompile(row).MatchString(message) {
			return row
		}
	}
	return ""
}

// nssStore is an NSS database that trusts the roots in a PEM file.
func nssStore(t *testing.T, roots string) string {
	t.Helper()
	dir := t.TempDir()
	certutil := func(args ...string) {
		out, err := exec.Command("certutil", append(args, "-d", "sql:"+dir)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	certutil("-N", "--empty-password")
	data, err := os.ReadFile(roots)
	require.NoError(t, err)
	file := filepath.Join(dir, "root.der")
	n := 0
	for b, rest := pem.Decode(data); b != nil; b, rest = pem.Decode(rest) {
		require.NoError(t, os.WriteFile(file, b.Bytes, 0o600))
		n++
		certutil("-A", "-n", fmt.Sprint("root ", n), "-t", "C,,", "-i", file)
	}
	return dir
}

// ask judges the candidates here, serves each to the clients, and returns those
// that a server can serve at all: whether nginx and dovecot load the others is
// the other oracle's question.
func (o *clientOracle) ask(candidates []candidate) []verdict {
	verdicts, wg, slots := make([]verdict, len(candidates)), sync.WaitGroup{}, make(chan bool, 4)
	for i, c := range candidates {
		slots <- true
		wg.Go(func() {
			defer func() { <-slots }()
			verdicts[i] = o.judge(c)
		})
	}
	wg.Wait()
	return slices.DeleteFunc(verdicts, func(v verdict) bool { return v.clients == nil })
}

func (o *clientOracle) judge(c candidate) verdict {
	v := verdict{candidate: c}
	chain, key := rawChain(c.cert), rawKey(c.key)
	b, err := hook.Parse(source.Files("cert.pem", "key.pem"), c.cert, c.key)
	if err == nil {
		rules := hook.Rules{Roots: o.pool}
		b = rules.Prefer(b)
		if err = rules.Check(b); err == nil && len(hook.Missing(b.Leaf(), []string{mint.DefaultName})) > 0 {
			err = fmt.Errorf("it does not cover %s", mint.DefaultName)
		}
	}
	if err != nil {
		v.ours = err.Error()
	} else {
		chain = nil
		for _, c := range b.Chain { // what is installed
			chain = append(chain, c.Raw)
		}
	}
	if len(chain) == 0 || key == nil {
		return v
	}
	address, stop := o.serve(tls.Certificate{Certificate: chain, PrivateKey: key})
	defer stop()
	v.clients = map[string]string{}
	for name, ask := range mailClients {
		v.clients[name] = ask(o, address)
	}
	return v
}

func rawChain(data []byte) (chain [][]byte) {
	for b, rest := pem.Decode(data); b != nil; b, rest = pem.Decode(rest) {
		if b.Type == pki.Certificate {
			chain = append(chain, b.Bytes)
		}
	}
	return chain
}

func rawKey(data []byte) crypto.Signer {
	for b, rest := pem.Decode(data); b != nil; b, rest = pem.Decode(rest) {
		if key, err := pki.ParseKey(b); err == nil {
			return key
		}
	}
	return nil
}

// serve answers handshakes with cert until stopped.
func (o *clientOracle) serve(cert tls.Certificate) (address string, stop func()) {
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	require.NoError(o.t, err)
	done := make(chan bool)
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				if conn.(*tls.Conn).HandshakeContext(ctx) == nil {
					_, _ = conn.Read(make([]byte, 1)) // until the client has had enough
				}
			}()
		}
	}()
	return listener.Addr().String(), func() { listener.Close(); <-done }
}

// run runs a client with nothing to say, and returns its last words if it fails.
func (o *clientOracle) run(argv ...string) string {
	ctx, cancel := context.WithTimeout(o.t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err == nil {
		return ""
	}
	text := strings.TrimSpace(string(out))
	return cmp.Or(strings.Join(strings.Fields(text[max(0, len(text)-400):]), " "), err.Error())
}
