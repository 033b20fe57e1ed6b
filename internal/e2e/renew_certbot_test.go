package e2e

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

func TestNamesManagedByCertbotAreLeftToItUnlessForced(t *testing.T) {
	rig.Need(t, rig.NeedCertbot)
	i := newStandalone(t, rig.CAOptions{}, mailName, "www.example.com")
	certbot := &rig.Certbot{Dir: filepath.Join(i.root, "certbot"), CA: i.acme}
	obtain := func(lineage, name string) {
		_, _, err := certbot.Certonly(t.Context(), lineage, "", []string{name}, "--http-01-port", "80", "--http-01-address", i.address)
		require.NoError(t, err)
	}
	config := filepath.Join(certbot.Dir, "config")
	i.env = append(i.env, "MAILU_HOOK_HOSTNAME="+mailName, "MAILU_HOOK_LETSENCRYPT_DIR="+config)

	obtain("www.example.com", "www.example.com")
	i.issues() // another site's is no reason
	leaf := i.live(mailName)

	obtain("mail", mailName) // whatever certbot calls it
	tree := snapshot(t, config)
	again := []string{"--force", "--min-interval", "1ms"}
	var r result
	assert.Empty(t, i.asked(func() { r = i.renew(again...) }))
	assert.Equal(t, 2, r.code)
	assert.Contains(t, r.doc.Error, "certbot manages "+mailName+" ("+filepath.Join(config, "renewal", "mail.conf")+")")
	assert.Contains(t, r.doc.Hint, "call mailu-hook as its deploy hook")
	assert.Contains(t, r.doc.Hint, "certbot delete --cert-name mail")
	assert.Contains(t, r.doc.Hint, "--force-standalone")
	assert.Equal(t, leaf, i.live(mailName))

	assert.NotEqual(t, leaf, i.issues(append(again, "--force-standalone")...))
	assert.Equal(t, tree, snapshot(t, config), "certbot's files are its own")
}
