package hook

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/disk"
)

// onNode opens the store of the directory as another host does that shares it: with a
// name and a memory of its own.
func onNode(t *testing.T, dir, name string) *Store {
	t.Helper()
	s, err := OpenStore(Place{CertsDir: dir, StateDir: filepath.Join(t.TempDir(), "state"), Node: name})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// used is a certs directory in which something was deployed.
func used(t *testing.T) (dir string) {
	t.Helper()
	s := newScene(t)
	_, err := s.deploy(t, s.new)
	require.NoError(t, err)
	return s.dir
}

func TestNodesTellOneAnotherWhatTheyServe(t *testing.T) {
	dir := used(t)
	a, b := onNode(t, dir, "node-a"), onNode(t, dir, "node-b")
	now := time.Now().UTC()
	said := Node{Front: "mailu-front-1", Leaf: "0a", Last: OutcomeInstalled, At: now.Add(-time.Minute)}
	require.NoError(t, a.Announce(t.Context(), said))
	said.Name = "node-a"
	assert.Equal(t, []Node{said}, b.Nodes())
	assert.Empty(t, a.Nodes(), "it does not talk to itself")

	assert.Empty(t, b.Late("0a", now))
	assert.Len(t, b.Late("0b", now), 1)
	assert.Empty(t, b.Late("0b", now.Add(nodeLives)), "it is gone")
	said.Front, said.At = "", now
	require.NoError(t, a.Announce(t.Context(), said))
	assert.Empty(t, b.Late("0b", now), "nothing there could serve it")
}

func TestWhatOtherNodesKnowAlreadyIsNotWrittenAgain(t *testing.T) {
	dir := used(t)
	a := onNode(t, dir, "node-a")
	file := filepath.Join(dir, homeName, nodesDir, "node-a.json")
	inode := func() os.FileInfo {
		info, err := os.Stat(file)
		require.NoError(t, err)
		return info
	}
	start := time.Now().Add(-time.Hour)
	said := Node{Front: "front", Leaf: "0a", At: start}
	require.NoError(t, a.Announce(t.Context(), said))
	first := inode()
	said.At = start.Add(nodeRefreshed - time.Second)
	require.NoError(t, a.Announce(t.Context(), said))
	assert.True(t, os.SameFile(first, inode()))
	said.At = start.Add(nodeRefreshed)
	require.NoError(t, a.Announce(t.Context(), said))
	second := inode()
	assert.False(t, os.SameFile(first, second), "it is still alive")
	said.Leaf = "0b"
	require.NoError(t, a.Announce(t.Context(), said))
	assert.False(t, os.SameFile(second, inode()))

	fresh := t.TempDir()
	require.NoError(t, onNode(t, fresh, "node-a").Announce(t.Context(), said))
	assert.NoDirExists(t, filepath.Join(fresh, homeName), "where nothing was deployed nothing is written")
}

func TestWhatAFrontWritesInTheNameOfNodesIsReadWithinLimits(t *testing.T) {
	dir := used(t)
	nodes := filepath.Join(dir, homeName, nodesDir)
	require.NoError(t, os.MkdirAll(nodes, 0o700))
	for i := range 2 * mostNodes {
		require.NoError(t, os.WriteFile(filepath.Join(nodes, fmt.Sprintf("n%d.json", i)), []byte(`{"front":"x"}`), 0o600))
	}
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(nodes, "a-link.json")))
	require.NoError(t, os.WriteFile(filepath.Join(nodes, "a-\x1b[31m.json"), []byte(`{}`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(nodes, "a-damaged.json"), []byte(`{`), 0o600))
	found := onNode(t, dir, "node-a").Nodes()
	assert.Len(t, found, mostNodes)
	for _, n := range found {
		assert.Regexp(t, `^n\d+$`, n.Name)
	}
}

func TestALockIsHeldAcrossNodesAndNamesItsHolder(t *testing.T) {
	t.Parallel()
	dir := used(t)
	a, b := onNode(t, dir, "node-a"), onNode(t, dir, "node-b")
	require.NoError(t, a.Announce(t.Context(), Node{Front: "front", At: time.Now()}))
	unlock, err := a.Lock(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), strangerWait+time.Second)
	defer cancel()
	_, err = b.Lock(ctx)
	require.ErrorIs(t, err, disk.ErrLocked, "node-b knows of node-a, and waits as long as it may")
	host, err := os.Hostname()
	require.NoError(t, err)
	assert.ErrorContains(t, b.lockError(t), fmt.Sprintf("pid %d on %s", os.Getpid(), host))
	unlock()
	unlock, err = b.Lock(t.Context())
	require.NoError(t, err)
	unlock()
}

// lockError is why the store cannot be locked at once.
func (s *Store) lockError(t *testing.T) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := s.Lock(ctx)
	return err
}

func TestAFrontThatHoldsTheLockOfNodesDoesNotKeepAHostFromDeploying(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	_, err := s.deploy(t, s.new)
	require.NoError(t, err)
	front, err := disk.Open(filepath.Join(s.dir, homeName, nodesDir))
	require.NoError(t, err)
	defer front.Close()
	unlock, err := front.LockFile(t.Context(), nodesLock, "nuisance")
	require.NoError(t, err)
	defer unlock()
	r, err := s.deploy(t, aged(t, time.Minute))
	require.NoError(t, err)
	assert.Equal(t, OutcomeInstalled, r.Outcome)
}
