package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

func TestFrontOnPodmanAnswersTheCA(t *testing.T) {
	i := newIssuer(t, rig.CAOptions{})
	i.onEngine(rig.Podman, rig.FrontOptions{NoLabels: true})
	i.env = append(i.env, "MAILU_HOOK_PROJECT=")
	ip, err := i.front.IP(t.Context())
	require.NoError(t, err)
	i.lead(ip, mailName)
	i.issues()
	i.servesLineage(mailName)
	i.nothingLeft()
	i.healthyAndReloadable()
}

// Names lead to one of two fronts, and nobody knows to which the CA comes.
func TestEachFrontOfAPairAnswersTheCA(t *testing.T) {
	i := newIssuer(t, rig.CAOptions{})
	i.writePlain(i.issue(mint.Leaf{NotBefore: time.Now().Add(-24 * time.Hour)}), "cert.pem", "key.pem")
	i.start(rig.FrontOptions{})
	i.waitServing()
	p := i.withOther()
	for _, front := range []*rig.Front{p.other, p.front} {
		ip, err := front.IP(t.Context())
		require.NoError(t, err)
		i.lead(ip, mailName)
		i.issues("--force", "--min-interval", "1s")
		want := i.servesLineage(mailName)
		served, err := p.other.Served(t.Context())
		require.NoError(t, err)
		for port, leaf := range served {
			assert.Equal(t, want, leaf, "port %d of the other front", port)
		}
		i.nothingLeft()
		left, err := os.ReadDir(filepath.Join(i.root, "other"))
		require.NoError(t, err)
		assert.Empty(t, left, "in the overrides of the other front")
	}
}
