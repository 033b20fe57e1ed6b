package hook

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/source"
)

func TestALineageThatCannotBeReadIsRejectedWithFileFactAndRemedy(t *testing.T) {
	pair, other := issue(t, mint.Leaf{}), issue(t, mint.Leaf{})
	for name, c := range map[string]struct {
		damage             func(t *testing.T, key string)
		file, fact, remedy string
	}{
		"link missing":   {func(*testing.T, string) {}, "privkey.pem", "no such file", "certbot certificates"},
		"lineage absent": {func(t *testing.T, key string) { require.NoError(t, os.RemoveAll(filepath.Dir(key))) }, "", "no such file", "certbot certificates"},
		"mixed pair":     {func(t *testing.T, key string) { writeFile(t, key, other.KeyPEM, 0o600) }, "privkey.pem", "does not belong", "same renewal"},
		"damaged":        {func(t *testing.T, key string) { writeFile(t, key, []byte("junk"), 0o600) }, "privkey.pem", "no PEM block", "privkey.pem"},
		"link that leads away": {func(t *testing.T, key string) {
			away := filepath.Join(t.TempDir(), "privkey.pem")
			writeFile(t, away, pair.KeyPEM, 0o600)
			require.NoError(t, os.Symlink(away, key))
		}, "privkey.pem", "a link that leads out of its directory", "--lineage"},
		"link that leads to nothing": {func(t *testing.T, key string) {
			require.NoError(t, os.Symlink("../../archive/mail.example.com/privkey9.pem", key))
		}, "privkey.pem", "a link to ../../archive/mail.example.com/privkey9.pem, which does not exist here", "all of /etc/letsencrypt"},
	} {
		t.Run(name, func(t *testing.T) {
			live, err := pair.WriteLineage(t.TempDir(), "mail.example.com", 1)
			require.NoError(t, err)
			key := filepath.Join(live, "privkey.pem")
			require.NoError(t, os.Remove(key))
			c.damage(t, key)
			synctest.Test(t, func(t *testing.T) {
				_, err := readBundle(t.Context(), source.At(live))
				assertRejected(t, err, filepath.Join(live, c.file), c.fact, c.remedy)
			})
		})
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	src := source.At(t.TempDir()) // whose links are all missing
	_, err := Read(ended(t), src)
	require.ErrorIs(t, err, context.Canceled)
	assert.ErrorContains(t, err, src.Lineage)
}

func TestOnlyRegularFilesOfBoundedSizeAreRead(t *testing.T) {
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
			_, err := readBundle(t.Context(), source.Files(bad, good))
			assertRejected(t, err, bad, c.fact, c.remedy)
			_, err = readBundle(t.Context(), source.Files(good, bad))
			assertRejected(t, err, bad, c.fact, c.remedy)
		})
	}
}

func TestAFileOfExactlyOneMiBIsRead(t *testing.T) {
	pair, dir := issue(t, mint.Leaf{}), t.TempDir()
	src := source.Files(filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem"))
	padded := make([]byte, disk.MaxFile)
	for i := range padded {
		padded[i] = '\n'
	}
	copy(padded, pair.Chain)
	writeFile(t, src.CertFile, padded, 0o600)
	writeFile(t, src.KeyFile, pair.KeyPEM, 0o600)
	b, err := readBundle(t.Context(), src)
	require.NoError(t, err)
	assert.Equal(t, pair.SHA256(), b.Fingerprint())
}

// readBundle reads the only bundle of a source.
func readBundle(ctx context.Context, src source.Source) (*Bundle, error) {
	offer, err := Read(ctx, src)
	if err != nil {
		return nil, err
	}
	return offer.For(nil)
}
