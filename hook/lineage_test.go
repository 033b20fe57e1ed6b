package hook

import (
	"context"
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
)

func TestReadNeverMixesTwoGenerationsOfALineage(t *testing.T) {
	dir := t.TempDir()
	pairs := [2]*mint.Pair{issue(t, mint.Leaf{}), issue(t, mint.Leaf{})}
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
		b, err := Read(t.Context(), LineageSource(live))
		require.NoError(t, err)
		require.NotNil(t, leafOf(b.certPEM, b.keyPEM))
		leaves[b.Fingerprint()]++
	}
	stop.Store(true)
	require.NoError(t, <-switched)
	assert.Len(t, leaves, 2)
}

func TestReadWaitsForALinkThatIsMissing(t *testing.T) {
	pair := issue(t, mint.Leaf{})
	dir := t.TempDir()
	live, err := pair.WriteLineage(dir, "mail.example.com", 1)
	require.NoError(t, err)
	key := filepath.Join(live, "privkey.pem")
	require.NoError(t, os.Rename(key, key+".away"))
	synctest.Test(t, func(t *testing.T) {
		time.AfterFunc(lineageWait/2, func() { _ = os.Rename(key+".away", key) })
		b, err := Read(t.Context(), LineageSource(live))
		require.NoError(t, err)
		assert.Equal(t, pair.SHA256(), b.Fingerprint())
	})
}

func TestReadGivesUpAfterTheWait(t *testing.T) {
	pair, other := issue(t, mint.Leaf{}), issue(t, mint.Leaf{})
	for name, c := range map[string]struct {
		damage func(t *testing.T, live string)
		fact   string
		waits  bool
	}{
		"link missing":   {func(t *testing.T, live string) { require.NoError(t, os.Remove(filepath.Join(live, "privkey.pem"))) }, "no such file", true},
		"lineage absent": {func(t *testing.T, live string) { require.NoError(t, os.RemoveAll(live)) }, "no such file", false},
		"mixed pair": {func(t *testing.T, live string) {
			writeFile(t, filepath.Join(live, "privkey.pem"), other.KeyPEM, 0o600)
		}, "does not belong", true},
		"damaged for good": {func(t *testing.T, live string) {
			writeFile(t, filepath.Join(live, "privkey.pem"), []byte("junk"), 0o600)
		}, "no PEM block", false},
	} {
		t.Run(name, func(t *testing.T) {
			live, err := pair.WriteLineage(t.TempDir(), "mail.example.com", 1)
			require.NoError(t, err)
			c.damage(t, live)
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				_, err := Read(t.Context(), LineageSource(live))
				assert.Contains(t, rejection(t, err).Fact, c.fact)
				waited := time.Since(began)
				assert.Equal(t, c.waits, waited >= lineageWait, "waited %s", waited)
				assert.Less(t, waited, 2*lineageWait)
			})
		})
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	src := LineageSource(t.TempDir()) // whose links are all missing
	_, err := Read(ended(t), src)
	require.ErrorIs(t, err, context.Canceled)
	assert.ErrorContains(t, err, src.Lineage)
}

func TestFilesNamedOneByOneAreNotWaitedFor(t *testing.T) {
	dir := t.TempDir()
	src := Source{CertFile: filepath.Join(dir, "c.pem"), KeyFile: filepath.Join(dir, "k.pem")}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := Read(t.Context(), src)
		assertRejected(t, err, src.CertFile, "no such file", "certbot certificates")
		assert.Zero(t, time.Since(began))
	})
}

func TestOnlyRegularFilesOfSaneSizeAreRead(t *testing.T) {
	pair := issue(t, mint.Leaf{})
	for name, c := range map[string]struct {
		make         func(t *testing.T, file string)
		fact, remedy string
	}{
		"missing":    {func(*testing.T, string) {}, "no such file", "check the path"},
		"directory":  {func(t *testing.T, file string) { require.NoError(t, os.Mkdir(file, 0o700)) }, "a directory", "--cert FILE"},
		"fifo":       {func(t *testing.T, file string) { require.NoError(t, syscall.Mkfifo(file, 0o600)) }, "a fifo", "--cert FILE"},
		"link loop":  {func(t *testing.T, file string) { require.NoError(t, os.Symlink(file, file)) }, "symbolic links", "--cert FILE"},
		"device":     {func(t *testing.T, file string) { require.NoError(t, os.Symlink("/dev/zero", file)) }, "a device", "--cert FILE"},
		"over 1 MiB": {func(t *testing.T, file string) { writeFile(t, file, make([]byte, disk.MaxFile+1), 0o600) }, "larger than 1048576 bytes", "--cert FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			good, bad := filepath.Join(dir, "good.pem"), filepath.Join(dir, "bad.pem")
			c.make(t, bad)
			writeFile(t, good, pair.Chain, 0o600)
			_, err := Read(t.Context(), Source{CertFile: bad, KeyFile: good})
			assertRejected(t, err, bad, c.fact, c.remedy)
			_, err = Read(t.Context(), Source{CertFile: good, KeyFile: bad})
			assertRejected(t, err, bad, c.fact, c.remedy)
		})
	}
}

func TestAFileOfExactlyOneMiBIsRead(t *testing.T) {
	pair, dir := issue(t, mint.Leaf{}), t.TempDir()
	src := Source{CertFile: filepath.Join(dir, "c.pem"), KeyFile: filepath.Join(dir, "k.pem")}
	padded := make([]byte, disk.MaxFile)
	for i := range padded {
		padded[i] = '\n'
	}
	copy(padded, pair.Chain)
	writeFile(t, src.CertFile, padded, 0o600)
	writeFile(t, src.KeyFile, pair.KeyPEM, 0o600)
	b, err := Read(t.Context(), src)
	require.NoError(t, err)
	assert.Equal(t, pair.SHA256(), b.Fingerprint())
}

func TestLineageSourceNamesCertbotsFiles(t *testing.T) {
	assert.Equal(t, Source{"/le/live/x", "/le/live/x/fullchain.pem", "/le/live/x/privkey.pem"}, LineageSource("/le/live/x/"))
}
