package hook

import (
	"bytes"
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// watch reads as fast as it can until stopped, and returns the first thing
// that read objected to.
func watch(t *testing.T, read func() error) (stop func()) {
	t.Helper()
	var done atomic.Bool
	result, started := make(chan error, 1), make(chan struct{})
	go func() {
		err := read()
		close(started)
		for err == nil && !done.Load() {
			err = read()
		}
		result <- err
	}()
	<-started
	return func() {
		t.Helper()
		done.Store(true)
		require.NoError(t, <-result)
	}
}

func TestAdoptionShowsTheSameBytesAtEachStep(t *testing.T) {
	b := aged(t, time.Hour)
	for range 20 {
		dir := t.TempDir()
		writePair(t, dir, b)
		s := lockedStore(t, dir)
		old, err := s.Installed()
		require.NoError(t, err)
		stop := watch(t, func() error {
			for name, want := range map[string][]byte{"cert.pem": b.certPEM, "key.pem": b.keyPEM} {
				data, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					return err
				}
				if !bytes.Equal(data, want) {
					return assert.AnError
				}
			}
			return nil
		})
		gen, err := s.Adopt(old)
		require.NoError(t, err)
		stop()
		assert.Equal(t, gen, s.Live())
		now, err := s.Installed()
		require.NoError(t, err)
		assert.True(t, now.inHome)
		assert.True(t, now.Holds(b))
	}
}

func TestAdoptionKeepsTheBytesAsTheyWere(t *testing.T) {
	pair, dir := issue(t, mint.Leaf{}), t.TempDir()
	cert := joined([]byte("a comment\r\n"), pair.Chain)
	writeFile(t, filepath.Join(dir, "cert.pem"), cert, 0o644)
	writeFile(t, filepath.Join(dir, "key.pem"), pair.KeySEC1PEM, 0o600)
	s := lockedStore(t, dir)
	old, err := s.Installed()
	require.NoError(t, err)
	gen, err := s.Adopt(old)
	require.NoError(t, err)
	data, err := os.ReadFile(filepath.Join(dir, homeName, string(gen), "cert.pem"))
	require.NoError(t, err)
	assert.Equal(t, cert, data)
}

func TestSwitchIsOneStepForReadersOfTheLiveLink(t *testing.T) {
	dir, a, b := t.TempDir(), aged(t, 2*time.Hour), aged(t, time.Hour)
	s := lockedStore(t, dir)
	var gens [2]Generation
	for i, bundle := range []*Bundle{a, b} {
		gen, err := s.Stage(bundle)
		require.NoError(t, err)
		gens[i] = gen
	}
	require.NoError(t, s.Switch(gens[0]))
	seen := map[Generation]bool{}
	stop := watch(t, func() error {
		target, err := os.Readlink(filepath.Join(dir, homeName, "live"))
		if err != nil {
			return err
		}
		seen[Generation(target)] = true
		_, err = tls.LoadX509KeyPair(filepath.Join(dir, homeName, target, "cert.pem"), filepath.Join(dir, homeName, target, "key.pem"))
		if err == nil {
			_, err = os.Stat(filepath.Join(dir, "cert.pem"))
		}
		return err
	})
	for n := range 100 {
		require.NoError(t, s.Switch(gens[n%2]))
	}
	stop()
	assert.Len(t, seen, 2)
	assert.Equal(t, b.Fingerprint(), onDisk(t, dir))
}

func TestAdoptKeepsFilesThatAreNotAPairButNeverRollsBackToThem(t *testing.T) {
	a, b := aged(t, 2*time.Hour), aged(t, time.Hour)
	for name, c := range map[string]struct {
		cert, key []byte // nil: absent
		files     int    // kept
	}{
		"nothing":         {nil, nil, 0},
		"certificate":     {a.certPEM, nil, 1},
		"key":             {nil, a.keyPEM, 1},
		"mismatched pair": {a.certPEM, b.keyPEM, 2},
		"damaged":         {[]byte("junk"), a.keyPEM, 2},
		"empty":           {[]byte{}, []byte{}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, data := range map[string][]byte{"cert.pem": c.cert, "key.pem": c.key} {
				if data != nil {
					writeFile(t, filepath.Join(dir, file), data, 0o600)
				}
			}
			s := lockedStore(t, dir)
			old, err := s.Installed()
			require.NoError(t, err)
			assert.Nil(t, old.Leaf)
			gen, err := s.Adopt(old)
			require.NoError(t, err)
			assert.Empty(t, gen)
			kept, err := filepath.Glob(filepath.Join(dir, homeName, "2*", "*"))
			require.NoError(t, err)
			assert.Len(t, kept, c.files)

			next, err := s.Stage(b)
			require.NoError(t, err)
			require.NoError(t, s.Switch(next))
			assert.Equal(t, b.Fingerprint(), onDisk(t, dir))
		})
	}
}

func TestACrashHalfwayThroughAdoptionIsFinished(t *testing.T) {
	dir, a, b := t.TempDir(), aged(t, 2*time.Hour), aged(t, time.Hour)
	install(t, dir, a)
	cert := filepath.Join(dir, "cert.pem")
	require.NoError(t, os.Remove(cert))
	writeFile(t, cert, a.certPEM, 0o644) // the key is a link already, the certificate is not
	stop := watch(t, func() error { _, err := os.ReadFile(cert); return err })
	install(t, dir, b)
	stop()
	assert.Equal(t, b.Fingerprint(), onDisk(t, dir))
}

func TestATreeCopiedWithItsLinksFollowedIsTakenOver(t *testing.T) {
	dir, a, b := t.TempDir(), aged(t, 2*time.Hour), aged(t, time.Hour)
	r := install(t, dir, a)
	home := filepath.Join(dir, homeName)
	require.NoError(t, os.Remove(filepath.Join(home, "live")))
	require.NoError(t, os.Rename(filepath.Join(home, string(r.Generation)), filepath.Join(home, "live")))
	stop := watch(t, func() error { _, err := os.ReadFile(filepath.Join(dir, "key.pem")); return err })
	install(t, dir, b)
	stop()
	assert.Equal(t, b.Fingerprint(), onDisk(t, dir))
}

func TestPruneKeepsTheNewestTheLiveAndTheSpared(t *testing.T) {
	dir := t.TempDir()
	s := lockedStore(t, dir)
	var gens []Generation
	for n := range 6 {
		gen, err := s.Stage(aged(t, time.Duration(10-n)*time.Hour))
		require.NoError(t, err)
		gens = append(gens, gen)
	}
	require.True(t, slices.IsSorted(gens), "names sort by age, even within a second")
	require.NoError(t, s.Switch(gens[0]))
	require.NoError(t, s.Prune(2, gens[2], ""))
	left, err := s.Generations()
	require.NoError(t, err)
	assert.Equal(t, []Generation{gens[0], gens[2], gens[4], gens[5]}, left)
	require.NoError(t, s.Prune(-1))
	left, err = s.Generations()
	require.NoError(t, err)
	assert.Equal(t, gens[:1], left, "the live one stays whatever was asked")
}

func TestDeployKeepsThreeGenerationsUnlessTold(t *testing.T) {
	for keep, want := range map[int]int{0: 3, 1: 2, 5: 5} { // never less than the installed and the one before
		dir := t.TempDir()
		for n := range 6 {
			_, err := Deploy(t.Context(), aged(t, time.Duration(10-n)*time.Hour), openStore(t, dir), nil, Options{Rules: trusted(t), Keep: keep})
			require.NoError(t, err)
		}
		gens, err := openStore(t, dir).Generations()
		require.NoError(t, err)
		assert.Len(t, gens, want)
	}
}

func TestInstallingWhatAGenerationHoldsMakesNoOther(t *testing.T) {
	dir, a, b := t.TempDir(), aged(t, 2*time.Hour), aged(t, time.Hour)
	first := install(t, dir, a)
	install(t, dir, b)
	again := install(t, dir, a)
	assert.Equal(t, first.Generation, again.Generation)
	gens, err := openStore(t, dir).Generations()
	require.NoError(t, err)
	assert.Len(t, gens, 2)
}

func TestWhatCpWroteThroughTheLinksBecomesAGenerationOfItsOwn(t *testing.T) {
	dir, ours, theirs := t.TempDir(), aged(t, 2*time.Hour), aged(t, time.Hour)
	install(t, dir, ours)
	for name, data := range map[string][]byte{"cert.pem": theirs.certPEM, "key.pem": theirs.keyPEM} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600)) // as cp does, through the link
	}
	s := openStore(t, dir)
	found, err := s.Installed()
	require.NoError(t, err)
	assert.False(t, found.inHome, "the name of the generation says another leaf")
	b, problems := Wanted(t.Context(), s, Search{})
	require.Empty(t, problems)
	assert.Equal(t, theirs.Fingerprint(), b.Fingerprint(), "it is what the front serves")

	r := install(t, dir, theirs)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
	assert.True(t, r.Generation.names(theirs.Leaf()))
	assert.Equal(t, theirs.Fingerprint(), onDisk(t, dir))
	assert.Equal(t, OutcomeUnchanged, install(t, dir, theirs).Outcome)
}
