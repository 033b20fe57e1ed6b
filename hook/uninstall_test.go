package hook

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestUninstallLeavesPlainFilesThatAreServedAndNothingOfOurs(t *testing.T) {
	dir, b := t.TempDir(), aged(t, time.Hour)
	install(t, dir, b)
	r, err := Uninstall(t.Context(), openStore(t, dir), nil, Options{})
	require.NoError(t, err)
	assert.Equal(t, b.Fingerprint(), r.Bundle.Fingerprint())
	assert.Equal(t, b.Fingerprint(), onDisk(t, dir))
	for name, mode := range map[string]os.FileMode{"cert.pem": 0o644, "key.pem": 0o600} {
		info, err := os.Lstat(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, mode, info.Mode(), name)
	}
	assert.Len(t, snapshot(t, dir), 3, "the directory and two files")
	assert.NoFileExists(t, ledgerOf(dir))

	_, err = Uninstall(t.Context(), openStore(t, dir), nil, Options{})
	require.NoError(t, err, "twice does no harm")
	assert.Equal(t, b.Fingerprint(), onDisk(t, dir))
}

func TestUninstallThatCannotSeeThePairServedKeepsWhatIsOurs(t *testing.T) {
	s := newScene(t)
	_, err := s.deploy(t, s.new)
	require.NoError(t, err)
	s.f.unsettled = errors.New("no pid file")
	_, err = Uninstall(t.Context(), openStore(t, s.dir), s.f, Options{})
	require.ErrorIs(t, err, ErrUnsettled)
	assert.Equal(t, s.new.Fingerprint(), onDisk(t, s.dir))
	assert.DirExists(t, filepath.Join(s.dir, homeName))
	assert.FileExists(t, ledgerOf(s.dir))

	s.f.unsettled = nil
	_, err = Uninstall(t.Context(), openStore(t, s.dir), s.f, Options{})
	require.NoError(t, err)
	assert.NoDirExists(t, filepath.Join(s.dir, homeName))
	assert.Equal(t, s.all(s.new), s.shown())
}

func TestUninstallOfNothingIsAnError(t *testing.T) {
	_, err := Uninstall(t.Context(), openStore(t, t.TempDir()), nil, Options{})
	assert.ErrorContains(t, err, "no certificate")
}

func TestUninstallOfADamagedPairLeavesTheLiveGeneration(t *testing.T) {
	dir, b := t.TempDir(), aged(t, time.Hour)
	install(t, dir, b)
	require.NoError(t, os.Remove(filepath.Join(dir, "key.pem")))
	_, err := Uninstall(t.Context(), openStore(t, dir), nil, Options{})
	require.NoError(t, err)
	assert.Equal(t, b.Fingerprint(), onDisk(t, dir))
}

func TestADryRunOfUninstallTouchesNothing(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, aged(t, time.Hour))
	before := snapshot(t, dir)
	r, err := Uninstall(t.Context(), openStore(t, dir), nil, Options{DryRun: true})
	require.NoError(t, err)
	assert.Equal(t, OutcomeWouldInstall, r.Outcome)
	assert.Equal(t, before, snapshot(t, dir))
	assert.NoDirExists(t, stateOf(dir))
}
