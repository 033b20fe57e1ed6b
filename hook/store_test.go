package hook

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/say"
)

func TestFreshInstallMakesTheTreeOfTheContract(t *testing.T) {
	dir, b := t.TempDir(), aged(t, time.Hour)
	r := install(t, dir, b)
	assert.Equal(t, b.Fingerprint(), onDisk(t, dir))
	assert.Regexp(t, `^\d{8}T\d{6}Z-`+b.Fingerprint()[:8]+"$", string(r.Generation))

	gen := filepath.Join(dir, homeName, string(r.Generation))
	for name, mode := range map[string]fs.FileMode{
		filepath.Join(dir, homeName):         fs.ModeDir | 0o700,
		ledgerOf(dir):                        0o600,
		gen:                                  fs.ModeDir | 0o700,
		filepath.Join(gen, "cert.pem"):       0o644,
		filepath.Join(gen, "key.pem"):        0o600,
		filepath.Join(dir, "cert.pem"):       fs.ModeSymlink | 0o777,
		filepath.Join(dir, homeName, "live"): fs.ModeSymlink | 0o777,
		filepath.Join(dir, "key.pem"):        fs.ModeSymlink | 0o777,
	} {
		info, err := os.Lstat(name)
		require.NoError(t, err)
		assert.Equal(t, mode, info.Mode(), name)
	}
	for name, want := range map[string]string{
		"cert.pem":         ".mailu-hook/live/cert.pem",
		"key.pem":          ".mailu-hook/live/key.pem",
		".mailu-hook/live": string(r.Generation),
	} {
		target, err := os.Readlink(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, want, target, "links are relative and stay inside")
	}
	assert.Len(t, snapshot(t, dir), 10, "and nothing else, but fronts with its lock")
}

func TestTheFrontsOwnFileNamesAreUsed(t *testing.T) {
	dir, b := t.TempDir(), aged(t, time.Hour)
	s, err := OpenStore(Place{CertsDir: dir, CertName: "fullchain.crt", KeyName: "private.key", StateDir: stateOf(dir)})
	require.NoError(t, err)
	defer s.Close()
	_, err = Deploy(t.Context(), b, s, nil, Options{Rules: trusted(t)})
	require.NoError(t, err)
	for name, want := range map[string][]byte{"fullchain.crt": b.certPEM, "private.key": b.keyPEM} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, want, data)
	}
	assert.NoFileExists(t, filepath.Join(dir, "cert.pem"))
}

func TestFileNamesOutsideTheDirectoryAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ cert, key, hint string }{
		"subdirectory":    {"tls/cert.pem", "key.pem", "plain file names"},
		"parent":          {"cert.pem", "../key.pem", "plain file names"},
		"absolute":        {"/certs/cert.pem", "key.pem", "plain file names"},
		"root":            {"/", "key.pem", "plain file names"},
		"empty":           {"", "key.pem", "plain file names"},
		"dot":             {".", "key.pem", "plain file names"},
		"our directory":   {homeName, "key.pem", "plain file names"},
		"same name twice": {"both.pem", "both.pem", "different names"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := OpenStore(Place{CertsDir: dir, CertName: c.cert, KeyName: c.key, StateDir: stateOf(dir)})
			if err == nil {
				s.Close()
			}
			require.Error(t, err)
			assert.Contains(t, say.HintOf(err), c.hint)
			assert.Len(t, snapshot(t, dir), 1, "nothing was made")
		})
	}
}

func TestAMissingCertsDirectoryIsExplained(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "absent")
	_, err := OpenStore(placeOf(dir))
	require.ErrorIs(t, err, fs.ErrNotExist)
	assert.ErrorContains(t, err, dir)
	assert.Contains(t, say.HintOf(err), "--certs-dir")
	assert.NoDirExists(t, dir)
}

func TestOpeningAndReadingAStoreWritesNothing(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, aged(t, time.Hour))
	before := snapshot(t, dir)
	s := openStore(t, dir)
	_, err := s.Installed()
	require.NoError(t, err)
	_, err = s.State()
	require.NoError(t, err)
	_, err = s.Generations()
	require.NoError(t, err)
	assert.Equal(t, before, snapshot(t, dir))
	assert.Equal(t, dir, s.Dir())
	s.Close()
	s.Close() // harmless
}

func TestNewFilesBelongToTheOwnerOfTheCertsDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: only root can give files away")
	}
	dir := t.TempDir()
	writePair(t, dir, aged(t, 2*time.Hour))
	require.NoError(t, os.Chown(dir, 12345, 23456))
	install(t, dir, aged(t, time.Hour))
	require.NoError(t, filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := os.Lstat(name)
		require.NoError(t, err)
		owner := info.Sys().(*syscall.Stat_t)
		assert.Equal(t, [2]uint32{12345, 23456}, [2]uint32{owner.Uid, owner.Gid}, name)
		return nil
	}))
}

func TestLeftoversOfAKilledRunAreSwept(t *testing.T) {
	dir := t.TempDir()
	install(t, dir, aged(t, time.Hour))
	home, outside := filepath.Join(dir, homeName), t.TempDir()
	writeFile(t, filepath.Join(outside, "precious"), []byte("kept"), 0o600)
	require.NoError(t, os.MkdirAll(filepath.Join(home, "tmp-dir", "deep"), 0o700))
	writeFile(t, filepath.Join(home, "tmp-dir", "key.pem"), []byte("half"), 0o600)
	writeFile(t, filepath.Join(home, "tmp-file"), []byte("half"), 0o600)
	require.NoError(t, os.Symlink(outside, filepath.Join(home, "tmp-link")))
	before := snapshot(t, outside)

	lockedStore(t, dir)
	left, err := filepath.Glob(filepath.Join(home, "tmp-*"))
	require.NoError(t, err)
	assert.Empty(t, left)
	assert.Equal(t, before, snapshot(t, outside))
}

func TestADiskErrorNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	install(t, dir, aged(t, time.Hour))
	lock := strings.TrimSuffix(ledgerOf(dir), ".json") + ".lock"
	require.NoError(t, os.Remove(lock))
	require.NoError(t, os.Mkdir(lock, 0o700))
	_, err := openStore(t, dir).Lock(t.Context())
	assert.ErrorContains(t, err, lock+": ")
	assert.Contains(t, say.HintOf(err), lock)
}

func TestTwoDeploysAtOnceBothSucceed(t *testing.T) {
	dir := t.TempDir()
	a, b := aged(t, 2*time.Hour), aged(t, time.Hour)
	stores, rules, results := []*Store{openStore(t, dir), openStore(t, dir)}, trusted(t), make(chan error, 2)
	for i, bundle := range []*Bundle{a, b} {
		go func() {
			_, err := Deploy(context.Background(), bundle, stores[i], nil, Options{Rules: rules})
			results <- err
		}()
	}
	require.NoError(t, <-results)
	require.NoError(t, <-results)
	assert.Equal(t, b.Fingerprint(), onDisk(t, dir), "the newer one, in either order")
}
