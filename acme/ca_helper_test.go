package acme

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/webroot"
)

var testCA = sync.OnceValues(func() (*mint.CA, error) { return mint.NewCA(mint.CAOptions{}) })

func issue(t *testing.T, l mint.Leaf) *mint.Pair {
	t.Helper()
	ca, err := testCA()
	require.NoError(t, err)
	pair, err := ca.Issue(l)
	require.NoError(t, err)
	return pair
}

// authority is an ACME server on a real socket, as small as an issuance allows.
// It believes every signature, but each nonce once.
type authority struct {
	t      *testing.T
	server *httptest.Server
	docs   string // where it looks for answers to http-01

	// meddle may answer a request itself; true: it did. It is not called by two
	// requests at one time.
	meddle func(w http.ResponseWriter, r *http.Request, payload []byte) bool
	// issued may exchange the chain.
	issued func(chain []byte) []byte
	window string // of renewal information; "" for none

	mu       sync.Mutex
	key      string           // that the request in hand came with, "" for one by the name of its account
	accounts []string         // keys, by number
	orders   []map[string]any // by number
	proved   map[string]string
	finals   int // requests for a certificate that were granted
	chains   map[string][]byte
	asked    []string // method and path of each request
	replaces []string
	nonces   map[string]bool // that were given out and not spent
}

// newAuthority starts one, and a directory of documents that it looks into.
func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, docs: t.TempDir(), proved: map[string]string{}, chains: map[string][]byte{}, nonces: map[string]bool{}}
	a.server = httptest.NewTLSServer(a)
	t.Cleanup(a.server.Close)
	return a
}

func (a *authority) directory() string { return a.server.URL + "/dir" }

func (a *authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.server.Certificate())
	return pool
}

func (a *authority) request() Request {
	return Request{Directory: a.directory(), Names: []string{"mail.example.com"}, Key: EC256}
}

// client is a client of the authority, with a state directory.
func (a *authority) client(dir string) (*Client, *State) {
	a.t.Helper()
	state, err := OpenState(dir)
	require.NoError(a.t, err)
	a.t.Cleanup(state.Close)
	c := NewClient(a.t.Context(), state, Options{Directory: a.directory(), Roots: a.roots(), UserAgent: "test", Email: "admin@example.com", AgreeTOS: true})
	a.t.Cleanup(c.Close)
	c.http.pause, c.look = time.Millisecond, 10*time.Millisecond
	return c, state
}

func (a *authority) solver() Solver {
	a.t.Helper()
	root, err := webroot.Open(a.docs)
	require.NoError(a.t, err)
	a.t.Cleanup(root.Close)
	return HTTP(root, nil, true)
}

// obtain runs an issuance from a state directory, as one run of the program.
func (a *authority) obtain(dir string, want Request) (*Lineage, error) {
	a.t.Helper()
	c, state := a.client(dir)
	defer c.Close()
	unlock, err := state.Lock(a.t.Context())
	require.NoError(a.t, err)
	defer unlock()
	l, err := state.Lineage(want.LineageName())
	require.NoError(a.t, err)
	err = c.Obtain(l, want, a.solver())
	left, _ := filepath.Glob(filepath.Join(a.docs, ".well-known/acme-challenge/*"))
	assert.Empty(a.t, left, "answers that were left")
	return l, err
}

func (a *authority) count(what string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, line := range a.asked {
		if strings.HasPrefix(line, what) {
			n++
		}
	}
	return n
}

type jws struct{ Protected, Payload string }

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, r.Method+" "+r.URL.Path)
	nonce := base64.RawURLEncoding.EncodeToString([]byte(fmt.Sprint("nonce", len(a.asked))))
	w.Header().Set("Replay-Nonce", nonce)
	a.nonces[nonce] = true
	var signed jws
	var header struct {
		JWK   json.RawMessage
		Nonce string
	}
	var payload []byte
	if r.Method == http.MethodPost {
		body, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(body, &signed)
		protected, _ := base64.RawURLEncoding.DecodeString(signed.Protected)
		_ = json.Unmarshal(protected, &header)
		payload, _ = base64.RawURLEncoding.DecodeString(signed.Payload)
		if !a.nonces[header.Nonce] {
			refuse(w, 400, "badNonce", "spent")
			return
		}
		delete(a.nonces, header.Nonce) // whatever becomes of the request (RFC 8555, section 6.5)
	}
	a.key = string(header.JWK)
	if a.meddle == nil || !a.meddle(w, r, payload) {
		a.answer(w, r, payload)
	}
}

func (a *authority) answer(w http.ResponseWriter, r *http.Request, payload []byte) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch parts[0] {
	case "dir":
		a.say(w, 200, map[string]any{"newNonce": a.server.URL + "/nonce", "newAccount": a.server.URL + "/account", "newOrder": a.server.URL + "/order",
			"renewalInfo": a.server.URL + "/info", "meta": map[string]any{"termsOfService": a.server.URL + "/terms", "profiles": map[string]string{"classic": "", "shortlived": "six days"}}})
	case "nonce":
	case "account":
		n := slices.Index(a.accounts, a.key)
		if n < 0 && a.key != "" {
			n, a.accounts = len(a.accounts), append(a.accounts, a.key)
		}
		w.Header().Set("Location", fmt.Sprint(a.server.URL, "/account/", n))
		a.say(w, 201, map[string]any{"status": "valid"})
	case "info":
		if a.window == "" {
			refuse(w, 404, "malformed", "no such certificate")
			return
		}
		w.Header().Set("Retry-After", "3600")
		_, _ = io.WriteString(w, a.window)
	default:
		a.order(w, parts, payload)
	}
}

func (a *authority) order(w http.ResponseWriter, parts []string, payload []byte) {
	if len(parts) == 1 { // a new one
		var ask struct {
			Identifiers []struct{ Type, Value string }
			Replaces    string
		}
		_ = json.Unmarshal(payload, &ask)
		n := len(a.orders)
		a.replaces = append(a.replaces, ask.Replaces)
		var proofs []string
		for _, id := range ask.Identifiers {
			proofs = append(proofs, fmt.Sprint(a.server.URL, "/authz/", n, "/", id.Value))
		}
		a.orders = append(a.orders, map[string]any{"status": "pending", "identifiers": ask.Identifiers, "authorizations": proofs, "finalize": fmt.Sprint(a.server.URL, "/finalize/", n)})
		w.Header().Set("Location", fmt.Sprint(a.server.URL, "/order/", n))
		a.say(w, 201, a.orders[n])
		return
	}
	var n int
	_, err := fmt.Sscan(parts[1], &n)
	if err != nil || n >= len(a.orders) {
		refuse(w, 404, "malformed", "no such order")
		return
	}
	switch o := a.orders[n]; parts[0] {
	case "order":
		a.settle(o)
		a.say(w, 200, o)
	case "authz", "challenge":
		a.proof(w, o, parts)
	case "finalize":
		a.settle(o)
		if o["status"] != "ready" {
			refuse(w, 403, "orderNotReady", "it is "+fmt.Sprint(o["status"]))
			return
		}
		a.finalize(o, n, payload)
		a.say(w, 200, o)
	case "cert":
		_, _ = w.Write(a.chains[parts[1]])
	}
}

// settle makes an order ready, or gives it up, as its names were proved or not.
func (a *authority) settle(o map[string]any) {
	if o["status"] != "pending" {
		return
	}
	o["status"] = "ready"
	for _, url := range o["authorizations"].([]string) {
		switch key := strings.TrimPrefix(url, a.server.URL+"/authz/"); a.proved[key] {
		case "invalid":
			o["status"] = "invalid"
			return
		case "":
			o["status"] = "pending"
		}
	}
}

func (a *authority) proof(w http.ResponseWriter, o map[string]any, parts []string) {
	key, token := parts[1]+"/"+parts[2], "token-"+parts[1]+"-"+parts[2]
	token = strings.ReplaceAll(token, ".", "_")
	challenge := map[string]any{"type": "http-01", "url": a.server.URL + "/challenge/" + key, "token": token, "status": "pending"}
	if parts[0] == "challenge" {
		data, _ := os.ReadFile(filepath.Join(a.docs, ".well-known/acme-challenge", token))
		a.proved[key] = "invalid"
		if strings.HasPrefix(string(data), token+".") {
			a.proved[key] = "valid"
		}
		a.say(w, 200, challenge)
		return
	}
	status := a.proved[key]
	switch status {
	case "":
		status = "pending"
	case "invalid":
		challenge["error"] = map[string]any{"type": "urn:ietf:params:acme:error:unauthorized", "detail": "no answer", "status": 403}
	}
	a.say(w, 200, map[string]any{"status": status, "identifier": map[string]string{"type": "dns", "value": parts[2]}, "challenges": []any{challenge}})
}

// issuer signs what an authority certifies.
var issuer = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(1000 * day), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
})

// certify signs what is asked for by csr.
func certify(csr *x509.CertificateRequest) ([]byte, error) {
	by, err := issuer()
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: serial, DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * day), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, by.Leaf, csr.PublicKey, by.PrivateKey)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return pki.EncodeChain(leaf, by.Leaf), err
}

// finalize certifies what is asked for; if that fails the test has a fault, and
// the order is invalid, so that nobody waits for it.
func (a *authority) finalize(o map[string]any, n int, payload []byte) {
	var ask struct{ CSR string }
	o["status"] = "invalid"
	_ = json.Unmarshal(payload, &ask)
	der, _ := base64.RawURLEncoding.DecodeString(ask.CSR)
	csr, err := x509.ParseCertificateRequest(der)
	if !assert.NoError(a.t, err) {
		return
	}
	chain, err := certify(csr)
	if !assert.NoError(a.t, err) {
		return
	}
	a.finals++
	if a.issued != nil {
		chain = a.issued(chain)
	}
	a.chains[fmt.Sprint(n)] = chain
	o["status"], o["certificate"] = "valid", fmt.Sprint(a.server.URL, "/cert/", n)
}

func (a *authority) say(w http.ResponseWriter, status int, doc map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(maps.Clone(doc))
}

func refuse(w http.ResponseWriter, status int, kind, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "urn:ietf:params:acme:error:" + kind, "detail": detail, "status": status})
}

// on answers requests to paths that begin so by a refusal.
func on(path string, status int, kind, detail string) func(http.ResponseWriter, *http.Request, []byte) bool {
	return func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if !strings.HasPrefix(r.URL.Path, path) {
			return false
		}
		refuse(w, status, kind, detail)
		return true
	}
}

// live is the leaf and the key that live/NAME leads to, which must be a whole
// generation.
func live(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	at := filepath.Join(dir, "live", name)
	var chain [2][]byte
	for i, file := range []string{"cert.pem", "fullchain.pem"} {
		data, err := os.ReadFile(filepath.Join(at, file))
		require.NoError(t, err)
		chain[i] = data
	}
	block, _ := pem.Decode(chain[0])
	leaf, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(string(chain[1]), string(chain[0])))
	data, err := os.ReadFile(filepath.Join(at, "privkey.pem"))
	require.NoError(t, err)
	key, err := decodeKey(data)
	require.NoError(t, err)
	require.True(t, pki.Owns(key.Public(), leaf), "the key of another certificate")
	rest, err := os.ReadFile(filepath.Join(at, "chain.pem"))
	require.NoError(t, err)
	assert.Equal(t, string(chain[1]), string(chain[0])+string(rest))
	return leaf
}

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}
