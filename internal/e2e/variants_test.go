package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// As Quadlet, Portainer and docker run start it, and as Compose v1 and --env-file pass
// the value on.
func TestFrontWithoutLabelsAndWithQuotedHostnamesIsServed(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{NoLabels: true, Env: map[string]string{"HOSTNAMES": `"mail.example.com"`}})
	renewed := l.issue(mint.Leaf{})
	live := l.lineage(renewed, "mail.example.com")
	r := l.run([]string{"RENEWED_LINEAGE=" + live, "MAILU_HOOK_PROJECT=", "MAILU_HOOK_CONTAINER=" + l.front.Name}, "--output", "json")
	require.Equal(t, 0, r.code)
	assert.Equal(t, "installed", r.doc.Outcome)
	l.serves(renewed)
	l.healthyAndReloadable()
}

// A front whose root is not almighty could not read what is given to the owner of the
// certs directory.
func TestFrontThatCouldNotReadTheNewKeyKeepsTheOldPair(t *testing.T) {
	require.Zero(t, os.Geteuid(), "needs root to give files away")
	l, old := startServing(t, rig.FrontOptions{ExtraArgs: []string{"--cap-drop", "DAC_OVERRIDE", "--cap-drop", "DAC_READ_SEARCH"}})
	require.NoError(t, os.Chown(l.certs(), owner, owner))
	live := l.lineage(l.issue(mint.Leaf{}), "mail.example.com")
	before := snapshot(t, l.certs())
	r := l.hook(live)
	assert.Equal(t, 2, r.code)
	assert.NotEmpty(t, r.doc.Hint)
	after := snapshot(t, l.certs())
	for _, name := range []string{"cert.pem", "key.pem"} {
		assert.Equal(t, before[filepath.Join(l.certs(), name)], after[filepath.Join(l.certs(), name)], name)
	}
	l.serves(old)

	require.NoError(t, os.Chown(l.certs(), 0, 0))
	require.Equal(t, 0, l.hook(live).code)
	l.healthyAndReloadable()
}

func TestHungDovecotIsNeverReportedAsServed(t *testing.T) {
	l, _, _, _ := deployed(t)
	l.execOK("killall", "-STOP", "dovecot", "imap-login", "pop3-login", "submission-login", "managesieve-login")
	third := l.renews()
	r := l.run([]string{"RENEWED_LINEAGE=" + filepath.Join(l.root, "letsencrypt", "live", "mail.example.com"), "MAILU_HOOK_TIMEOUT=15s"}, "--output", "json")
	assert.Contains(t, []int{4, 5, 8}, r.code)
	l.execOK("killall", "-CONT", "dovecot", "imap-login", "pop3-login", "submission-login", "managesieve-login")
	require.Equal(t, 0, l.sync("--now").code)
	l.endsServing(third.SHA256())
}
