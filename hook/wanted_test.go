package hook

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/source"
)

// lineage writes a lineage whose leaf was issued so long ago.
func lineage(t *testing.T, age time.Duration, names ...string) (live, leaf string) {
	t.Helper()
	pair := issue(t, mint.Leaf{Names: names, NotBefore: time.Now().Add(-age)})
	live, err := pair.WriteLineage(t.TempDir(), "mail", 1)
	require.NoError(t, err)
	return live, pair.SHA256()
}

func TestWantedIsTheNewestThatCoversTheMainName(t *testing.T) {
	dir, installed := t.TempDir(), aged(t, 3*time.Hour)
	install(t, dir, installed)
	older, _ := lineage(t, 4*time.Hour)
	newest, newestLeaf := lineage(t, time.Hour)
	newer, newerLeaf := lineage(t, 2*time.Hour)
	foreign, _ := lineage(t, time.Minute, "www.example.com")
	damaged, _ := lineage(t, time.Minute)
	require.NoError(t, os.Remove(filepath.Join(damaged, "privkey.pem")))
	writeFile(t, filepath.Join(damaged, "privkey.pem"), []byte("junk"), 0o600)
	for name, c := range map[string]struct {
		lineages []string
		held     []string
		want     string
		problems int
	}{
		"newest":                      {[]string{newer, newest, older}, nil, newestLeaf, 0},
		"in another order":            {[]string{newest, older, newer}, nil, newestLeaf, 0},
		"of another name":             {[]string{foreign, newer}, nil, newerLeaf, 0},
		"held back by a rollback":     {[]string{newest, newer}, []string{newestLeaf}, newerLeaf, 0},
		"none is newer":               {[]string{older}, nil, installed.Fingerprint(), 0},
		"none at all":                 {nil, nil, installed.Fingerprint(), 0},
		"one that does not exist now": {[]string{newer, filepath.Join(dir, "absent")}, nil, newerLeaf, 0},
		"a damaged one is told of":    {[]string{damaged, newer}, nil, newerLeaf, 1},
	} {
		t.Run(name, func(t *testing.T) {
			names := []string{"mail.example.com", "imap.example.com"}
			b, problems := Wanted(t.Context(), openStore(t, dir), Search{State: State{RolledBackFrom: c.held}, Sources: at(c.lineages...), Names: names})
			assert.Len(t, problems, c.problems)
			require.NotNil(t, b)
			assert.Equal(t, c.want, b.Fingerprint())
		})
	}
}

func TestWantedIsTheTargetOfARollbackThatWasKilledBeforeItsSwitch(t *testing.T) {
	dir, older, newest := t.TempDir(), aged(t, 2*time.Hour), aged(t, time.Hour)
	install(t, dir, older)
	install(t, dir, newest)
	begun := State{RolledBackFrom: []string{newest.Fingerprint()}, Pending: &Pending{Leaf: older.Fingerprint()}}
	b, problems := Wanted(t.Context(), openStore(t, dir), Search{State: begun})
	assert.Empty(t, problems)
	require.NotNil(t, b)
	assert.Equal(t, older.Fingerprint(), b.Fingerprint())
}

func TestWantedFromAnEmptyDirectoryIsNothing(t *testing.T) {
	b, problems := Wanted(t.Context(), openStore(t, t.TempDir()), Search{})
	assert.Nil(t, b)
	assert.Empty(t, problems)
}

func TestWantedPrefersWhatHasNotExpired(t *testing.T) {
	dir := t.TempDir()
	expired := parsed(t, issue(t, mint.Leaf{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Minute)}))
	writePair(t, dir, expired)
	older, leaf := lineage(t, 5*time.Hour)
	b, problems := Wanted(t.Context(), openStore(t, dir), Search{Sources: at(older)})
	assert.Empty(t, problems)
	require.NotNil(t, b)
	assert.Equal(t, leaf, b.Fingerprint())
}

func TestTheLiveGenerationStandsForNamesThatWereDamaged(t *testing.T) {
	dir, a := t.TempDir(), aged(t, time.Hour)
	install(t, dir, a)
	require.NoError(t, os.Remove(filepath.Join(dir, "key.pem")))
	b, problems := Wanted(t.Context(), openStore(t, dir), Search{})
	assert.Empty(t, problems)
	require.NotNil(t, b)
	assert.Equal(t, a.Fingerprint(), b.Fingerprint())
}

func TestAGenerationCanBeReadBack(t *testing.T) {
	dir, a := t.TempDir(), aged(t, 2*time.Hour)
	first := install(t, dir, a)
	install(t, dir, aged(t, time.Hour))
	s := openStore(t, dir)
	b, err := s.Bundle(first.Generation)
	require.NoError(t, err)
	assert.Equal(t, a.Fingerprint(), b.Fingerprint())
	assert.FileExists(t, b.KeyFile)

	outside := t.TempDir()
	writePair(t, outside, a)
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, homeName, "20000101T000000Z-00000000")))
	for _, gen := range []Generation{"", "live", "..", "../outside", "state.json", "20990101T000000Z-00000000", "20000101T000000Z-00000000"} {
		_, err := s.Bundle(gen)
		assert.Error(t, err, gen)
	}
	_, err = openStore(t, t.TempDir()).Bundle(first.Generation)
	assert.Error(t, err)
}

func TestARollbackByHandHoldsTheLeafThatItLeft(t *testing.T) {
	s := newScene(t)
	first, err := s.deploy(t, s.new)
	require.NoError(t, err)
	store := openStore(t, s.dir)
	gens, err := store.Generations()
	require.NoError(t, err)
	require.Len(t, gens, 2)
	back, err := store.Bundle(gens[0])
	require.NoError(t, err)

	s.o.ByHand, s.o.RollsBackFrom = true, []string{s.new.Fingerprint()}
	r, err := s.deploy(t, back)
	require.NoError(t, err)
	assert.Equal(t, gens[0], r.Generation)
	assert.NotEqual(t, first.Generation, r.Generation)
	assert.Equal(t, s.all(s.old), s.shown())
	assert.Equal(t, []string{s.new.Fingerprint()}, remembered(t, s.dir).RolledBackFrom)

	s.o.RollsBackFrom = nil
	_, err = s.deploy(t, s.new)
	require.NoError(t, err)
	assert.Empty(t, remembered(t, s.dir).RolledBackFrom, "installing anything else ends it")
}

func at(dirs ...string) (all []source.Source) {
	for _, dir := range dirs {
		all = append(all, source.At(dir))
	}
	return all
}
