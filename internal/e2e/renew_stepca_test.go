//go:build soak

package e2e

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// step-ca takes minutes to build, so this belongs to the soak. What is special about
// it is proven of a small CA in package acme, too.
func TestStepCAIssuesAndItsReasonsAreTold(t *testing.T) {
	rig.Need(t, rig.NeedStepCA)
	i := newStandalone(t, rig.CAOptions{}, mailName)
	ca, err := rig.StartStepCA(t.Context(), t.TempDir(), i.acme.DNSAddr)
	require.NoError(t, err)
	t.Cleanup(ca.Close)
	i.env = append(i.env, "MAILU_HOOK_SERVER="+ca.DirectoryURL, "MAILU_HOOK_CA_FILE="+ca.RootFile, "MAILU_HOOK_ROOTS="+ca.RootFile)

	nobody := loopback()
	i.lead(nobody, mailName)
	began := time.Now()
	r := i.renew("--no-self-check", "--issue-timeout", "5m")
	assert.Equal(t, 6, r.code)
	assert.Contains(t, r.doc.Error, "the CA answered connection for "+mailName)
	assert.Contains(t, r.doc.Hint, "port 80")
	assert.Less(t, time.Since(began), 90*time.Second, "it gives up with the CA's words, not when the time is up")

	i.lead(i.address, mailName)
	began = time.Now()
	leaf := i.issues("--now")
	t.Logf("step-ca: %v", time.Since(began))
	assert.InDelta(t, 24*time.Hour, leaf.NotAfter.Sub(leaf.NotBefore), float64(10*time.Minute))
	i.clean(mailName)
	assert.WithinDuration(t, time.Now().Add(12*time.Hour), i.renew().renewal(t).At, time.Hour, "half of its lifetime")

	profile := i.renew("--profile", "shortlived")
	assert.Equal(t, 6, profile.code)
	assert.Contains(t, profile.doc.Error, "the CA offers no profiles")

	deaf, err := net.Listen("tcp", i.address+":80") // so that the binary cannot listen
	require.NoError(t, err)
	defer deaf.Close()
	assert.Equal(t, 6, i.renew("--force", "--min-interval", "1ms").code)
	assert.Equal(t, leaf, i.live(mailName))
}
