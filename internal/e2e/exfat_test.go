package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// mountExFAT puts the certs directory on a disk as USB sticks have it: without
// symbolic links.
func (l *lab) mountExFAT() {
	l.t.Helper()
	output := func(argv ...string) string {
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		require.NoError(l.t, err, "%s: %s", strings.Join(argv, " "), out)
		return strings.TrimSpace(string(out))
	}
	image := filepath.Join(l.root, "exfat.img")
	require.NoError(l.t, os.WriteFile(image, nil, 0o600))
	require.NoError(l.t, os.Truncate(image, 16<<20))
	output("mkfs.exfat", image)
	device := output("losetup", "--find", "--show", image)
	l.t.Cleanup(func() { assert.NoError(l.t, exec.Command("losetup", "--detach", device).Run()) })
	output("mount.exfat-fuse", device, l.certs())
	l.t.Cleanup(func() { assert.NoError(l.t, unix.Unmount(l.certs(), 0)) })
}

func TestFileSystemWithoutLinksIsRefusedBeforeAKeyIsWritten(t *testing.T) {
	rig.Need(t, rig.NeedExFAT)
	require.Zero(t, os.Geteuid(), "needs root to mount a disk")
	l := newLab(t)
	l.mountExFAT()
	l.writePlain(l.issue(mint.Leaf{NotBefore: time.Now().Add(-24 * time.Hour)}), "cert.pem", "key.pem")
	live := l.lineage(l.issue(mint.Leaf{}), mailName)
	before := snapshot(t, l.certs())
	env := []string{"RENEWED_LINEAGE=" + live, "DOCKER_HOST=unix:///nonexistent", "MAILU_HOOK_HOSTNAME=" + mailName, "MAILU_HOOK_CERTS_DIR=" + l.certs()}
	for _, args := range [][]string{{"--dry-run"}, nil, nil} {
		r := l.run(env, append(args, "--output", "json")...)
		assert.Equal(t, 1, r.code)
		assert.Contains(t, r.doc.Error, l.certs()+" is on a file system without symbolic links (fuse)")
		assert.Contains(t, r.doc.Hint, "move ROOT/certs to a file system such as ext4")
		assert.Equal(t, before, snapshot(t, l.certs()), "nothing of a new key, however often it is tried")
	}
}
