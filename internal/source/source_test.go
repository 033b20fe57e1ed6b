package source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
)

func issue(t *testing.T) *mint.Pair {
	t.Helper()
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	pair, err := ca.Issue(mint.Leaf{})
	require.NoError(t, err)
	return pair
}

func writeFile(t *testing.T, name string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(name, data, 0o600))
}

// leafOf is the leaf of a pair, which must belong together.
func leafOf(t *testing.T, p Pair) *x509.Certificate {
	t.Helper()
	loaded, err := tls.X509KeyPair(p.Cert, p.Key)
	require.NoError(t, err)
	return loaded.Leaf
}

func TestReadNeverMixesTwoGenerationsOfALineage(t *testing.T) {
	dir := t.TempDir()
	pairs := [2]*mint.Pair{issue(t), issue(t)}
	live, err := pairs[0].WriteLineage(dir, "mail.example.com", 1)
	require.NoError(t, err)

	var stop atomic.Bool
	switched := make(chan error, 1)
	go func() { // as certbot does: unlink and symlink, one name after the other
		var err error
		for n := 2; err == nil && !stop.Load(); n++ {
			_, err = pairs[n%2].WriteLineage(dir, "mail.example.com", n)
		}
		switched <- err
	}()
	leaves := map[string]int{}
	for range 100 {
		p, err := readOne(t.Context(), At(live))
		require.NoError(t, err)
		leaves[pki.Fingerprint(leafOf(t, p))]++
	}
	stop.Store(true)
	require.NoError(t, <-switched)
	assert.Len(t, leaves, 2)
}

func TestReadWaitsForALinkThatIsMissing(t *testing.T) {
	pair := issue(t)
	live, err := pair.WriteLineage(t.TempDir(), "mail.example.com", 1)
	require.NoError(t, err)
	key := filepath.Join(live, "privkey.pem")
	require.NoError(t, os.Rename(key, key+".away"))
	synctest.Test(t, func(t *testing.T) {
		time.AfterFunc(switchWait/2, func() { _ = os.Rename(key+".away", key) })
		p, err := readOne(t.Context(), At(live))
		require.NoError(t, err)
		assert.Equal(t, pair.SHA256(), pki.Fingerprint(leafOf(t, p)))
	})
}

func TestReadWaitsForTwoSecondsAtMost(t *testing.T) {
	pair, other := issue(t), issue(t)
	for name, c := range map[string]struct {
		damage func(t *testing.T, live string)
		err    error
		waits  bool
	}{
		"link missing":   {func(t *testing.T, live string) { require.NoError(t, os.Remove(filepath.Join(live, "privkey.pem"))) }, fs.ErrNotExist, true},
		"lineage absent": {func(t *testing.T, live string) { require.NoError(t, os.RemoveAll(live)) }, fs.ErrNotExist, false},
		"mixed pair": {func(t *testing.T, live string) {
			require.NoError(t, os.Remove(filepath.Join(live, "privkey.pem")))
			writeFile(t, filepath.Join(live, "privkey.pem"), other.KeyPEM)
		}, nil, true},
		"damaged for good": {func(t *testing.T, live string) {
			require.NoError(t, os.Remove(filepath.Join(live, "privkey.pem")))
			writeFile(t, filepath.Join(live, "privkey.pem"), []byte("junk"))
		}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			live, err := pair.WriteLineage(t.TempDir(), "mail.example.com", 1)
			require.NoError(t, err)
			c.damage(t, live)
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				_, err := Read(t.Context(), At(live))
				require.ErrorIs(t, err, c.err)
				waited := time.Since(began)
				assert.Equal(t, c.waits, waited >= switchWait, "waited %s", waited)
				assert.Less(t, waited, 2*switchWait)
			})
		})
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	src := At(t.TempDir()) // whose links are all missing
	_, err := Read(ctx, src)
	require.ErrorIs(t, err, context.Canceled)
	assert.ErrorContains(t, err, src.Lineage)
}

func TestFilesNamedOneByOneAreNotWaitedFor(t *testing.T) {
	dir := t.TempDir()
	src := Files(filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem"))
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := Read(t.Context(), src)
		var failed *Error
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, src.CertFile, failed.File)
		assert.EqualError(t, err, src.CertFile+": no such file or directory")
		assert.Zero(t, time.Since(began))
	})
}

func TestOnlyRegularFilesOfBoundedSizeAreRead(t *testing.T) {
	for name, c := range map[string]struct {
		put  func(t *testing.T, file string)
		fact string
	}{
		"a directory": {func(t *testing.T, file string) { require.NoError(t, os.Mkdir(file, 0o700)) }, "a directory"},
		"a fifo":      {func(t *testing.T, file string) { require.NoError(t, syscall.Mkfifo(file, 0o600)) }, "a fifo"},
		"a link loop": {func(t *testing.T, file string) { require.NoError(t, os.Symlink(file, file)) }, "links"},
		"a device":    {func(t *testing.T, file string) { require.NoError(t, os.Symlink("/dev/zero", file)) }, "device|out of its directory"},
		"over 1 MiB":  {func(t *testing.T, file string) { writeFile(t, file, make([]byte, disk.MaxFile+1)) }, "larger than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.put(t, filepath.Join(dir, "fullchain.pem"))
			writeFile(t, filepath.Join(dir, "privkey.pem"), issue(t).KeyPEM)
			for _, src := range []Source{At(dir), Files(filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem"))} {
				_, err := Read(t.Context(), src)
				require.Error(t, err)
				assert.Regexp(t, c.fact, err.Error())
				assert.Regexp(t, "^"+filepath.Join(dir, "fullchain.pem")+": ", err.Error())
			}
		})
	}
}

// What certbot, Nginx Proxy Manager and people have is read as it is.
func TestEveryLayoutOfALineageIsRead(t *testing.T) {
	pair := issue(t)
	base := t.TempDir()
	live, err := pair.WriteLineage(base, "mail.example.com", 1)
	require.NoError(t, err)
	require.NoError(t, os.Symlink("mail.example.com", filepath.Join(filepath.Dir(live), "alias")))
	elsewhere := filepath.Join(t.TempDir(), "letsencrypt")
	require.NoError(t, os.Symlink(base, elsewhere))

	moved := t.TempDir() // the archive is on another disk
	movedLive, err := pair.WriteLineage(moved, "mail.example.com", 1)
	require.NoError(t, err)
	disk := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.Rename(filepath.Join(moved, "archive"), disk))
	require.NoError(t, os.Symlink(disk, filepath.Join(moved, "archive")))

	linked := filepath.Join(t.TempDir(), "mail") // outside of live, a link to the directory
	require.NoError(t, os.Symlink(live, linked))

	plain := t.TempDir()
	writeFile(t, filepath.Join(plain, "fullchain.pem"), pair.Chain)
	writeFile(t, filepath.Join(plain, "privkey.pem"), pair.KeyPEM)

	kubernetes := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(kubernetes, "..2027"), 0o700))
	require.NoError(t, os.Symlink("..2027", filepath.Join(kubernetes, "..data")))
	for _, name := range []string{"fullchain.pem", "privkey.pem"} {
		require.NoError(t, os.Rename(filepath.Join(plain, name), filepath.Join(kubernetes, "..2027", name)))
		require.NoError(t, os.Symlink(filepath.Join("..data", name), filepath.Join(kubernetes, name)))
	}
	writeFile(t, filepath.Join(plain, "fullchain.pem"), pair.Chain)
	writeFile(t, filepath.Join(plain, "privkey.pem"), pair.KeyPEM)

	for name, dir := range map[string]string{
		"certbot":                      live,
		"a trailing slash":             live + "/",
		"a link to a lineage":          filepath.Join(filepath.Dir(live), "alias"),
		"certbot's directory moved":    filepath.Join(elsewhere, "live", "mail.example.com"),
		"the archive on another disk":  movedLive,
		"a link to the live directory": linked,
		"plain files":                  plain,
		"links inside the directory":   kubernetes,
	} {
		p, err := readOne(t.Context(), At(dir))
		require.NoError(t, err, name)
		assert.Equal(t, pair.SHA256(), pki.Fingerprint(leafOf(t, p)), name)
		assert.Equal(t, At(dir).Lineage, p.Lineage, name)
	}
}

// Whoever can write into the directory of a source must not have the key of
// another certificate read from elsewhere.
func TestLinksOfALineageAreNotFollowedOutOfItsTree(t *testing.T) {
	pair, secret := issue(t), issue(t)
	base := t.TempDir()
	theirs, err := secret.WriteLineage(base, "secret.example.com", 1)
	require.NoError(t, err)
	for _, name := range []string{"fullchain.pem", "privkey.pem"} {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "fullchain.pem"), pair.Chain)
		writeFile(t, filepath.Join(dir, "privkey.pem"), pair.KeyPEM)
		require.NoError(t, os.Remove(filepath.Join(dir, name)))
		require.NoError(t, os.Symlink(filepath.Join(theirs, name), filepath.Join(dir, name)))
		_, err := Read(t.Context(), At(dir))
		var outside *OutsideError
		require.ErrorAs(t, err, &outside, name)
		assert.Contains(t, err.Error(), filepath.Join(dir, name)+": a link that leads out of its directory, to ")
	}
	within, err := filepath.EvalSymlinks(filepath.Join(theirs, "privkey.pem"))
	require.NoError(t, err)
	p, err := readOne(t.Context(), Files(filepath.Join(theirs, "fullchain.pem"), within))
	require.NoError(t, err, "files that somebody names are read wherever they are")
	assert.Equal(t, secret.SHA256(), pki.Fingerprint(leafOf(t, p)))
}

func TestLineageNamesCertbotsFiles(t *testing.T) {
	live, err := issue(t).WriteLineage(t.TempDir(), "mail.example.com", 1)
	require.NoError(t, err)
	p, err := readOne(t.Context(), At(live+"/"))
	require.NoError(t, err)
	assert.Equal(t, Source{Lineage: live, CertFile: filepath.Join(live, "fullchain.pem"), KeyFile: filepath.Join(live, "privkey.pem")}, p.Source)
	assert.Equal(t, p.CertFile, ChainFile(At(live)))
}

// readOne reads the only pair of a source.
func readOne(ctx context.Context, src Source) (Pair, error) {
	content, err := Read(ctx, src)
	if err != nil {
		return Pair{}, err
	}
	return content.Pairs[0], nil
}

func TestWhatIsAboveASourceIsWatchedUntilItIsThere(t *testing.T) {
	base := t.TempDir()
	src := At(filepath.Join(base, "letsencrypt", "live", "mail"))
	assert.Equal(t, []string{base}, Watched(src))
	require.NoError(t, os.MkdirAll(filepath.Dir(src.Lineage), 0o700))
	assert.Equal(t, []string{filepath.Dir(src.Lineage)}, Watched(src))
	require.NoError(t, os.Mkdir(src.Lineage, 0o700))
	assert.Equal(t, []string{src.Lineage}, Watched(src))
}
