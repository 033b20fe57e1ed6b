package hook

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/disk"
)

// outsideOf is a directory with files of every name that the store uses, as
// somebody would set it up who wants them overwritten, given away or served.
func outsideOf(t *testing.T) string {
	t.Helper()
	outside := t.TempDir()
	b := aged(t, 3*time.Hour)
	for _, dir := range []string{outside, filepath.Join(outside, homeName), filepath.Join(outside, homeName, "live")} {
		require.NoError(t, os.MkdirAll(dir, 0o755))
		writePair(t, dir, b)
		writeFile(t, filepath.Join(dir, "lock"), []byte("1\n"), 0o640)
		writeFile(t, filepath.Join(dir, legacyState), []byte(`{"version": 1}`), 0o640)
	}
	return outside
}

// The ways to put something hostile in the place of a name.
var hostile = map[string]func(t *testing.T, name, outside string){
	"link to a file": func(t *testing.T, name, outside string) {
		require.NoError(t, os.Symlink(filepath.Join(outside, filepath.Base(name)), name))
	},
	"relative link to a file": func(t *testing.T, name, outside string) {
		target, err := filepath.Rel(filepath.Dir(name), filepath.Join(outside, "key.pem"))
		require.NoError(t, err)
		require.NoError(t, os.Symlink(target, name))
	},
	"link to a directory": func(t *testing.T, name, outside string) { require.NoError(t, os.Symlink(outside, name)) },
	"link to nowhere": func(t *testing.T, name, outside string) {
		require.NoError(t, os.Symlink(filepath.Join(outside, "new"), name))
	},
	"fifo":      func(t *testing.T, name, _ string) { require.NoError(t, syscall.Mkfifo(name, 0o600)) },
	"directory": func(t *testing.T, name, _ string) { require.NoError(t, os.Mkdir(name, 0o700)) },
}

func TestNothingOutsideTheCertsDirectoryIsEverTouched(t *testing.T) {
	const refused, installed = false, true
	all := func(outcome bool) map[string]bool {
		outcomes := map[string]bool{}
		for way := range hostile {
			outcomes[way] = outcome
		}
		return outcomes
	}
	but := func(outcomes map[string]bool, ways ...string) map[string]bool {
		for _, way := range ways {
			outcomes[way] = !outcomes[way]
		}
		return outcomes
	}
	for name, outcomes := range map[string]map[string]bool{
		"cert.pem":                               but(all(installed), "fifo", "directory"),
		"key.pem":                                but(all(installed), "fifo", "directory"),
		".mailu-hook":                            but(all(refused), "directory"),
		".mailu-hook/live":                       all(installed),
		".mailu-hook/lock":                       all(installed), // of older versions: not used any more
		".mailu-hook/state.json":                 all(installed),
		".mailu-hook/tmp-000000000000":           all(installed),
		".mailu-hook/20000101T000000Z-00000000":  all(installed), // an old generation
		".mailu-hook/21000101T000000Z-00000000":  all(installed), // one of the future
		".mailu-hook/not-ours-and-not-looked-at": all(installed),
		"letsencrypt":                            all(installed),
	} {
		for way, put := range hostile {
			t.Run(name+" is a "+way, func(t *testing.T) {
				dir, outside := t.TempDir(), outsideOf(t)
				install(t, dir, aged(t, 2*time.Hour))
				if os.Geteuid() == 0 {
					require.NoError(t, os.Chown(dir, 12345, 12345)) // so that files are given away
				}
				name := filepath.Join(dir, name)
				require.NoError(t, os.RemoveAll(name))
				put(t, name, outside)
				before := snapshot(t, outside)

				b := aged(t, time.Hour)
				err := deployWithout(t, dir, b)
				assert.Equal(t, before, snapshot(t, outside))
				if outcomes[way] == installed {
					require.NoError(t, err)
					assert.Equal(t, b.Fingerprint(), onDisk(t, dir))
					return
				}
				var failed *disk.Error
				require.ErrorAs(t, err, &failed)
				assert.Contains(t, err.Error(), dir)
			})
		}
	}
}

// deployWithout opens the store in dir and deploys b without a front.
func deployWithout(t *testing.T, dir string, b *Bundle) error {
	s, err := OpenStore(placeOf(dir))
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = Deploy(t.Context(), b, s, nil, Options{Rules: trusted(t), Keep: 1})
	return err
}

// The lock is written to: a link in its place must not lead to a file that
// matters, even inside.
func TestALockThatIsALinkIsNotFollowed(t *testing.T) {
	dir, a := t.TempDir(), aged(t, 2*time.Hour)
	install(t, dir, a)
	lock := strings.TrimSuffix(ledgerOf(dir), ".json") + ".lock"
	require.NoError(t, os.Remove(lock))
	require.NoError(t, os.Symlink(filepath.Join(dir, homeName, "live/key.pem"), lock))
	assert.Error(t, deployWithout(t, dir, aged(t, time.Hour)))
	assert.Equal(t, a.Fingerprint(), onDisk(t, dir))
}

func TestOtherFilesInTheCertsDirectoryAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "letsencrypt", "live"), 0o750))
	writeFile(t, filepath.Join(dir, "letsencrypt", "live", "privkey.pem"), []byte("theirs"), 0o640)
	writeFile(t, filepath.Join(dir, "dhparam.pem"), []byte("theirs"), 0o644)
	writeFile(t, filepath.Join(dir, "tmp-000000000000"), []byte("theirs too"), 0o644)
	theirs := snapshot(t, dir)
	install(t, dir, aged(t, 2*time.Hour))
	install(t, dir, aged(t, time.Hour))
	now := snapshot(t, dir)
	for name, want := range theirs {
		if name != dir {
			assert.Equal(t, want, now[name], name)
		}
	}
}

func TestALinkOfTheAdministratorInsideTheDirectoryIsRead(t *testing.T) {
	dir, a := t.TempDir(), aged(t, 2*time.Hour)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "2025"), 0o755))
	writePair(t, filepath.Join(dir, "2025"), a)
	for _, name := range []string{"cert.pem", "key.pem"} {
		require.NoError(t, os.Symlink("2025/"+name, filepath.Join(dir, name)))
	}
	s := lockedStore(t, dir)
	old, err := s.Installed()
	require.NoError(t, err)
	require.True(t, old.Holds(a))
	gen, err := s.Adopt(old)
	require.NoError(t, err)
	assert.NotEmpty(t, gen)
	assert.FileExists(t, filepath.Join(dir, "2025", "key.pem"))
}
