package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// startRenewing is an issuer with a front that serves a pair of plain files, as
// the documented script leaves them.
func startRenewing(t *testing.T, ca rig.CAOptions, o rig.FrontOptions) (*issuer, *mint.Pair) {
	t.Helper()
	i := newIssuer(t, ca)
	old := i.issue(mint.Leaf{NotBefore: time.Now().Add(-24 * time.Hour)})
	i.writePlain(old, "cert.pem", "key.pem")
	i.startPublished(o)
	i.waitServing()
	return i, old
}

// newStandalone is an issuer on a host without a front, where the binary itself
// answers the CA.
func newStandalone(t *testing.T, ca rig.CAOptions, names ...string) *issuer {
	t.Helper()
	i := newIssuer(t, ca)
	i.address = loopback()
	i.lead(i.address, names...)
	i.env = append(i.env, "DOCKER_HOST=unix://"+idleEngine(t), "MAILU_HOOK_CERTS_DIR="+i.certs(), "MAILU_HOOK_HOSTNAME="+strings.Join(names, ","),
		"MAILU_HOOK_CHALLENGE=standalone", "MAILU_HOOK_LISTEN="+i.address+":80")
	return i
}

// renewal is what the binary's document says of a renewal.
type renewal struct {
	Names    []string
	Due      bool
	Reason   string
	Issued   bool
	At       time.Time `json:"renew_at"`
	Start    time.Time `json:"suggested_start"`
	End      time.Time `json:"suggested_end"`
	Failures int
}

func (r result) renewal(t *testing.T) renewal {
	t.Helper()
	var doc struct{ Renewal *renewal }
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &doc))
	require.NotNil(t, doc.Renewal)
	return *doc.Renewal
}

// issues renews and wants it to end with a new certificate, which it returns.
func (i *issuer) issues(args ...string) *x509.Certificate {
	i.t.Helper()
	r := i.renew(args...)
	require.Equal(i.t, 0, r.code)
	require.Equal(i.t, "installed", r.doc.Outcome)
	require.True(i.t, r.renewal(i.t).Issued)
	return i.live(r.renewal(i.t).Names[0])
}

// live is the leaf of a lineage, after a look at its four files.
func (i *issuer) live(name string) *x509.Certificate {
	i.t.Helper()
	read := func(file string) []byte {
		data, err := os.ReadFile(filepath.Join(i.state, "live", strings.TrimPrefix(name, "*."), file))
		require.NoError(i.t, err)
		return data
	}
	require.Equal(i.t, string(read("fullchain.pem")), string(read("cert.pem"))+string(read("chain.pem")))
	block, _ := pem.Decode(read("cert.pem"))
	require.NotNil(i.t, block)
	leaf, err := x509.ParseCertificate(block.Bytes)
	require.NoError(i.t, err)
	_, err = tls.X509KeyPair(read("fullchain.pem"), read("privkey.pem"))
	require.NoError(i.t, err)
	return leaf
}

var handled = regexp.MustCompile(`(\S+ /\S+) -> calling handler\(\)`)

// asked are the requests, as method and path, that the CA gets while work runs.
func (i *issuer) asked(work func()) []string {
	i.t.Helper()
	before := len(i.log())
	work()
	var requests []string
	for _, match := range handled.FindAllStringSubmatch(i.log()[before:], -1) {
		requests = append(requests, match[1])
	}
	return requests
}

func (i *issuer) log() string {
	i.t.Helper()
	log, err := i.acme.Log()
	require.NoError(i.t, err)
	return log
}

const (
	newOrder    = "POST /order-plz"
	renewalInfo = "GET /draft-ietf-acme-ari-03/renewalInfo/"
)

func count(list []string, what string) (n int) {
	for _, item := range list {
		if item == what {
			n++
		}
	}
	return n
}

// neverLetTheCALook holds that the CA was not let look at any answer.
func (i *issuer) neverLetTheCALook() {
	i.t.Helper()
	assert.NotContains(i.t, i.log(), "validations.")
}

// remembered changes what the state directory remembers of a lineage.
func (i *issuer) remembered(name string, change func(map[string]any)) {
	i.t.Helper()
	file := filepath.Join(i.state, "renewal", name, "state.json")
	data, err := os.ReadFile(file)
	require.NoError(i.t, err)
	record := map[string]any{}
	require.NoError(i.t, json.Unmarshal(data, &record))
	change(record)
	data, err = json.Marshal(record)
	require.NoError(i.t, err)
	require.NoError(i.t, os.WriteFile(file, data, 0o600))
}

// clean holds the state directory to keeping nothing of an order under way, and
// every key in it to being private.
func (i *issuer) clean(name string) {
	i.t.Helper()
	assert.NoFileExists(i.t, filepath.Join(i.state, "renewal", name, "order.json"))
	assert.NoFileExists(i.t, filepath.Join(i.state, "renewal", name, "key.pem"))
	for path, fact := range snapshot(i.t, i.state) {
		if strings.Contains(fact, "PRIVATE KEY") {
			info, err := os.Lstat(path)
			require.NoError(i.t, err)
			assert.Equal(i.t, os.FileMode(0o600), info.Mode(), path)
		}
	}
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// idleEngine is an engine that runs no container. The one of the tests runs fronts of
// other tests.
func idleEngine(t *testing.T) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "engine") // short enough for a socket
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "docker.sock")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		_, _ = w.Write([]byte("[]"))
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	return socket
}
