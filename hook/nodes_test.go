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
	"mailu-hook/internal/say"
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

// nodes are two hosts, mail1 and mail2, that share a certs directory: each has a front
// and a memory of its own, and mail1 has announced itself.
func nodes(t *testing.T) (one, two *scene) {
	t.Helper()
	one = newScene(t)
	copied := *one
	two = &copied
	two.f = &scripted{dir: one.dir}
	for _, p := range one.f.ports {
		two.f.ports = append(two.f.ports, &scriptedPort{Port: p.Port, shows: p.shows})
	}
	one.node, two.node = "mail1", "mail2"
	_, err := one.deploy(t, one.old)
	require.NoError(t, err)
	one.tell(t, Node{Front: "mailu-front-1", Leaf: one.old.Fingerprint(), At: time.Now()})
	_, err = one.deploy(t, one.new)
	require.NoError(t, err)
	return one, two
}

func (s *scene) open(t *testing.T) *Store {
	t.Helper()
	store, err := OpenStore(s.place())
	require.NoError(t, err)
	t.Cleanup(store.Close)
	return store
}

func (s *scene) state(t *testing.T) State {
	t.Helper()
	state, err := s.open(t).State()
	require.NoError(t, err)
	return state
}

func (s *scene) tell(t *testing.T, n Node) {
	t.Helper()
	require.NoError(t, s.open(t).Announce(t.Context(), n))
}

// follow does what sync does where no lineage is known.
func (s *scene) follow(t *testing.T) (Result, error) {
	t.Helper()
	store, state := s.open(t), s.state(t)
	b, problems := Wanted(t.Context(), store, Search{State: state})
	require.Empty(t, problems)
	before := s.o
	defer func() { s.o = before }()
	s.o.ByHand, s.o.Supersedes, s.o.Follows, s.o.RollsBackFrom = true, true, true, state.RolledBackFrom
	return s.deploy(t, b)
}

func TestANodeFollowsWhatAnotherHasInstalled(t *testing.T) {
	one, two := nodes(t)
	assert.Equal(t, one.all(one.old), two.shown(), "one does not touch the front of the other")
	live := one.open(t).Live()
	r, err := two.follow(t)
	require.NoError(t, err)
	assert.Equal(t, two.all(one.new), two.shown())
	assert.Equal(t, live, r.Generation, "without a switch")
	r, err = two.follow(t)
	require.NoError(t, err)
	assert.Equal(t, OutcomeUnchanged, r.Outcome)
}

func TestANodeWhoseEngineIsAwayIsLate(t *testing.T) {
	one, two := nodes(t)
	two.tell(t, Node{Pending: "its engine is down", At: time.Now()})
	assert.Len(t, one.open(t).Late(one.new.Fingerprint(), time.Now()), 1)
	assert.Empty(t, one.open(t).Late(one.new.Fingerprint(), time.Now().Add(nodeLives)))
}

func TestWhatOneNodeRollsBackTheOthersDoNotInstallAgain(t *testing.T) {
	one, two := nodes(t)
	_, err := two.follow(t)
	require.NoError(t, err)
	two.o.ByHand, two.o.RollsBackFrom = true, []string{one.new.Fingerprint()}
	two.o.Progress = func(step Step) {
		if step == StepReload {
			assert.Equal(t, two.o.RollsBackFrom, one.state(t).RolledBackFrom, "as soon as it can see the switch")
		}
	}
	_, err = two.deploy(t, one.old)
	require.NoError(t, err)
	two.tell(t, Node{Front: "mailu-front-2", Leaf: one.old.Fingerprint(), At: time.Now()})
	for range 2 { // the second time mail1 has proven the old one, and still knows
		assert.Equal(t, []string{one.new.Fingerprint()}, one.state(t).RolledBackFrom)
		_, err = one.follow(t)
		require.NoError(t, err)
		assert.Equal(t, one.all(one.old), one.shown())
	}

	one.o.ByHand = true // somebody wants it after all
	_, err = one.deploy(t, one.new)
	require.NoError(t, err)
	assert.Empty(t, one.state(t).RolledBackFrom, "though mail2 still says so")
}

func TestASyncThatWaitedForTheLockHeedsARollback(t *testing.T) {
	one, two := nodes(t)
	_, err := two.follow(t)
	require.NoError(t, err)
	one.f.ports[0].shows = "another" // so that it has something to do
	one.o.Supersedes = true
	one.o.Progress = func(step Step) {
		if step == StepStage { // about to lock
			o := two.o
			o.ByHand, o.RollsBackFrom = true, []string{one.new.Fingerprint()}
			_, err := Deploy(context.Background(), one.old, two.open(t), nil, o)
			assert.NoError(t, err)
		}
	}
	r, err := one.deploy(t, one.new)
	require.NoError(t, err)
	assert.Equal(t, OutcomeSkipped, r.Outcome)
	assert.Equal(t, one.old.Fingerprint(), onDisk(t, one.dir))
}

func TestWhatWasNeverServedHereNoNodeCanHoldBack(t *testing.T) {
	one, two := nodes(t)
	next := aged(t, time.Minute)
	require.NoError(t, two.open(t).tell(Node{At: time.Now(), RolledBackFrom: []string{next.Fingerprint(), one.new.Fingerprint()}}))
	assert.Empty(t, one.state(t).RolledBackFrom, "one is not known, and the other is live")
	two.o.ByHand = true
	_, err := two.deploy(t, one.old)
	require.NoError(t, err)
	assert.Equal(t, []string{one.new.Fingerprint()}, one.state(t).RolledBackFrom)
}

func TestANodeThatWaitedForTheLockDoesNotPutBackWhatItFound(t *testing.T) {
	one, two := nodes(t)
	next := aged(t, time.Minute)
	two.o.Progress = func(step Step) {
		if step == StepStage { // about to lock
			_, err := Deploy(context.Background(), next, one.open(t), nil, one.o)
			assert.NoError(t, err)
		}
	}
	r, err := two.follow(t)
	require.NoError(t, err)
	assert.Equal(t, OutcomeSkipped, r.Outcome)
	assert.Equal(t, next.Fingerprint(), onDisk(t, one.dir))
	two.o.Progress = nil
	_, err = two.follow(t)
	require.NoError(t, err)
	assert.Equal(t, two.all(next), two.shown())
}

func TestWhatIsUnfinishedHereIsVoidOnceAnotherNodeHasSwitched(t *testing.T) {
	one, two := nodes(t)
	two.f.unreachable, two.f.ports[0].shows, two.f.ports[0].follows = fmt.Errorf("its engine is down"), "another", keeps("another")
	_, err := two.follow(t)
	require.ErrorIs(t, err, ErrPending)
	require.NotNil(t, two.state(t).Pending)

	next := aged(t, time.Minute)
	_, err = one.deploy(t, next)
	require.NoError(t, err)
	two.f.unreachable, two.f.ports[0].follows = nil, nil
	assert.Nil(t, two.state(t).Pending)
	_, err = two.follow(t)
	require.NoError(t, err)
	assert.Equal(t, next.Fingerprint(), onDisk(t, one.dir))
	assert.Equal(t, two.all(next), two.shown())
}

func TestWhatIsPostponedForOthersIsVoidOnceTheySwitch(t *testing.T) {
	one, two := nodes(t)
	two.tell(t, Node{Front: "mailu-front-2", At: time.Now()})
	require.NoError(t, one.open(t).Postpone(t.Context(), one.new, "mail2 is late"))
	require.NotNil(t, one.state(t).Pending)
	two.o.ByHand = true
	_, err := two.deploy(t, one.old)
	require.NoError(t, err)
	assert.Nil(t, one.state(t).Pending)
}

func TestARunThatWaitedForTheLockFindsTheDirectoryThatIsThereNow(t *testing.T) {
	one, _ := nodes(t)
	waiting := one.open(t)
	require.NoError(t, os.RemoveAll(filepath.Join(one.dir, homeName)))
	unlock, err := waiting.Lock(t.Context())
	require.NoError(t, err)
	defer unlock()
	assert.DirExists(t, filepath.Join(one.dir, homeName, nodesDir))
}

func TestAFrontThatSpeaksAsANodeAndHoldsItsLockEndsARunInTime(t *testing.T) {
	one, two := nodes(t)
	two.tell(t, Node{Front: "mailu-front-2", At: time.Now()})
	front, err := disk.Open(filepath.Join(one.dir, homeName, nodesDir))
	require.NoError(t, err)
	defer front.Close()
	unlock, err := front.LockFile(t.Context(), nodesLock, "nuisance")
	require.NoError(t, err)
	defer unlock()
	require.NoError(t, os.WriteFile(filepath.Join(front.Path(), nodesLock), []byte("1 \x1b[31mmail9\n"), 0o600))
	_, err = one.deploy(t, aged(t, time.Minute))
	require.ErrorIs(t, err, disk.ErrLocked)
	assert.ErrorContains(t, err, "(pid 1 on [31mmail9)")
	assert.Contains(t, say.HintOf(err), "restart the front")
	assert.Equal(t, one.new.Fingerprint(), onDisk(t, one.dir))
	assert.Equal(t, one.all(one.new), one.shown())
}
