package e2e

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// Caddy's acme_server leaves a challenge that failed pending, with the reason.
func TestCaddyIssuesAndItsReasonsAreTold(t *testing.T) {
	rig.Need(t, rig.NeedCaddy)
	i := newStandalone(t, rig.CAOptions{}, mailName)
	ca, err := rig.StartCaddy(t.Context(), t.TempDir(), i.address, mailName)
	require.NoError(t, err)
	t.Cleanup(ca.Close)
	i.env = append(i.env, "MAILU_HOOK_SERVER="+ca.DirectoryURL, "MAILU_HOOK_CA_FILE="+ca.RootFile, "MAILU_HOOK_ROOTS="+ca.RootFile)

	began := time.Now()
	r := i.renew("--no-self-check", "--issue-timeout", "5m", "--listen", loopback()+":80")
	assert.Equal(t, 6, r.code)
	assert.Contains(t, r.doc.Error, "the CA answered connection for "+mailName)
	assert.Contains(t, r.doc.Hint, "port 80")
	assert.Less(t, time.Since(began), 90*time.Second, "it gives up with the CA's words, not when the time is up")

	again := []string{"--now", "--force", "--min-interval", "1ms"}
	var leaves []*x509.Certificate
	for _, challenge := range [][]string{nil, {"--challenge", "tls-alpn", "--listen", i.address + ":443"}} {
		leaf := i.issues(append(again, challenge...)...)
		assert.InDelta(t, 12*time.Hour, leaf.NotAfter.Sub(leaf.NotBefore), float64(10*time.Minute))
		i.clean(mailName)
		leaves = append(leaves, leaf)
	}
	assert.NotEqual(t, leaves[0], leaves[1])
}
