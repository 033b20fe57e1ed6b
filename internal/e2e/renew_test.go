package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// issuer is a lab with an ACME server that looks for answers on the ports that a
// public CA looks on.
type issuer struct {
	*lab
	acme    *rig.CA
	state   string
	address string // of this host, where the names lead
}

// newIssuer prepares a lab whose binary renews from a Pebble with these options.
func newIssuer(t *testing.T, o rig.CAOptions) *issuer {
	t.Helper()
	rig.Need(t, rig.NeedPebble)
	l := newLab(t)
	i := &issuer{lab: l, state: filepath.Join(l.root, "state")}
	if o.Config == nil {
		o.Config = map[string]any{}
	}
	o.Config["httpPort"], o.Config["tlsPort"] = 80, 443
	ca, err := rig.StartCA(t.Context(), t.TempDir(), o)
	require.NoError(t, err)
	t.Cleanup(ca.Close)
	i.acme = ca
	roots, err := ca.Roots(t.Context())
	require.NoError(t, err)
	l.env = append(l.env, "MAILU_HOOK_ROOTS="+roots, "MAILU_HOOK_SERVER="+ca.DirectoryURL, "MAILU_HOOK_CA_FILE="+ca.DirectoryCAFile,
		"MAILU_HOOK_STATE_DIR="+i.state, "MAILU_HOOK_RESOLVER="+ca.DNSAddr, "MAILU_HOOK_LETSENCRYPT_DIR="+filepath.Join(l.root, "letsencrypt"))
	return i
}

// lead makes names lead to an address, for the CA and for the binary's own look.
func (i *issuer) lead(ip string, names ...string) {
	i.t.Helper()
	for _, name := range names {
		require.NoError(i.t, i.acme.SetA(i.t.Context(), name, ip))
	}
}

// startPublished starts a front whose web ports are published on an address of
// this host, to which its names lead, as Compose has it: a restart keeps it.
func (i *issuer) startPublished(o rig.FrontOptions) {
	i.t.Helper()
	i.address = loopback()
	o.ExtraArgs = append(o.ExtraArgs, "-p", i.address+":80:80", "-p", i.address+":443:443")
	i.start(o)
	i.lead(i.address, strings.Split(i.front.Env["HOSTNAMES"], ",")...)
}

// loopback is an address of this host that nobody else uses.
func loopback() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(200), rand.IntN(250), 1+rand.IntN(250))
}

func (i *issuer) renew(args ...string) result {
	i.t.Helper()
	return i.run(nil, append([]string{"renew", "--agree-tos", "--output", "json"}, args...)...)
}

// servesLineage asks every TLS port for the leaf of the lineage's live directory.
func (i *issuer) servesLineage(name string) string {
	i.t.Helper()
	data, err := os.ReadFile(filepath.Join(i.state, "live", name, "fullchain.pem"))
	require.NoError(i.t, err)
	want := sha256OfPEM(i.t, data)
	i.showsEverywhere(want)
	return want
}

// nothingLeft holds the front's overrides to being as they were.
func (i *issuer) nothingLeft() {
	i.t.Helper()
	found, err := filepath.Glob(filepath.Join(i.root, "overrides", "nginx", "*"))
	require.NoError(i.t, err)
	assert.Empty(i.t, found)
}

func TestFromNothingToATrustedCertificateInOneCommand(t *testing.T) {
	i := newIssuer(t, rig.CAOptions{})
	i.startPublished(rig.FrontOptions{})
	require.Eventually(t, func() bool { return i.listens(25) }, 30*time.Second, 100*time.Millisecond)
	r := i.renew()
	require.Equal(t, 0, r.code)
	assert.Equal(t, "installed", r.doc.Outcome)
	i.servesLineage("mail.example.com")
	i.healthyAndReloadable()
	i.nothingLeft()

	again := i.renew()
	require.Equal(t, 0, again.code)
	assert.Equal(t, "unchanged", again.doc.Outcome)
}
