package hook

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"time"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/say"
)

// Node is what a host says of itself to the others whose fronts serve from the same
// certs directory: nodes of a swarm, or hosts that share it by NFS. It lies in that
// directory, where a front can write too. So it is told to people and waited for
// within limits, and it never brings anything to be installed: at most it keeps a
// certificate from being installed again that this host has itself seen served.
type Node struct {
	Name    string    `json:"-"`
	Front   string    `json:"front,omitempty"`   // "": none runs there that could serve anything
	Leaf    string    `json:"leaf,omitempty"`    // that each of its ports was last seen with
	Pending string    `json:"pending,omitempty"` // why it does not serve what is installed
	Last    Outcome   `json:"last,omitempty"`
	At      time.Time `json:"at"`
	// RolledBackFrom is as in State: what one host rolled back, the others do not put back.
	RolledBackFrom []string `json:"rolled_back_from,omitempty"`
}

const (
	nodesDir      = "fronts"     // in home
	nodesLock     = "nodes.lock" // in nodesDir
	mostNodes     = 100
	nodeLives     = time.Hour      // after it was last heard of, it is not waited for
	nodeForgotten = 24 * time.Hour // nor is its lock
	nodeRefreshed = 10 * time.Minute
	strangerWait  = 5 * time.Second
)

var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// nodeFile is the file of a node, and nodeTmp the unfinished one. It is not swept, because
// those of other nodes lie beside it.
func nodeFile(name string) string { return name + ".json" }
func nodeTmp(name string) string  { return name + ".tmp" }

// nodeNamed is the name of this node: name, or "" for what the host calls itself.
func nodeNamed(name string) string {
	if name == "" {
		name, _ = os.Hostname() // it may have none
	}
	if !nodeName.MatchString(name) {
		return "unnamed"
	}
	return name
}

// Nodes lists what the other nodes say of themselves, sorted by name.
func (s *Store) Nodes() (others []Node) {
	dir, err := s.openNodes()
	if err != nil {
		return nil
	}
	defer dir.Close()
	files, _ := dir.Names() // those that can be read
	for _, file := range files {
		name, found := strings.CutSuffix(file, ".json")
		if !found || name == s.node || !nodeName.MatchString(name) || len(others) == mostNodes {
			continue
		}
		if node, err := readNode(dir, name); err == nil {
			others = append(others, node)
		}
	}
	return others
}

// Self is what this node last said of itself.
func (s *Store) Self() (n Node, known bool) {
	dir, err := s.openNodes()
	if err != nil {
		return n, false
	}
	defer dir.Close()
	n, err = readNode(dir, s.node)
	return n, err == nil
}

// openNodes opens the directory of the nodes' files, if it is there.
func (s *Store) openNodes() (*disk.Dir, error) {
	if s.home == nil {
		return nil, fs.ErrNotExist
	}
	return s.home.OpenDir(nodesDir)
}

func readNode(dir *disk.Dir, name string) (n Node, err error) {
	data, err := dir.Read(nodeFile(name))
	if err == nil {
		err = json.Unmarshal(data, &n)
	}
	n.Name = name
	return n, err
}

// Lacks reports whether the node has a front, or may have one that could not be asked,
// that was not seen to serve that leaf.
func (n Node) Lacks(leaf string) bool {
	return (n.Front != "" || n.Pending != "") && n.Leaf != leaf
}

// Down reports whether the node was not heard of for an hour.
func (n Node) Down(now time.Time) bool { return now.Sub(n.At) >= nodeLives }

// Late lists the nodes that are not down and lack that leaf.
func (s *Store) Late(leaf string, now time.Time) (late []Node) {
	for _, node := range s.Nodes() {
		if node.Lacks(leaf) && !node.Down(now) {
			late = append(late, node)
		}
	}
	return late
}

// Announce tells the other nodes of this one. What they know already and is fresh is
// not written again. Where nothing was ever deployed, nothing is. After a failure or a
// crash they know what was told before.
func (s *Store) Announce(ctx context.Context, n Node) error {
	if s.home == nil {
		return nil
	}
	state, _ := s.ledger.read() // what is damaged rolled back from nothing
	n.Name, n.At, n.RolledBackFrom = s.node, n.At.UTC(), state.RolledBackFrom
	before, known := s.Self()
	if age := n.At.Sub(before.At); known && age >= 0 && age < nodeRefreshed && !s.leftUnfinished() {
		if before.At = n.At; reflect.DeepEqual(before, n) {
			return nil
		}
	}
	unlock, err := s.ledger.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return s.tell(n)
}

// announceRollback tells the other nodes what they are not to install again, before they
// can see the switch. The caller holds the lock.
func (s *Store) announceRollback(from []string) error {
	n, _ := s.Self() // one that never said anything says this
	n.RolledBackFrom, n.At = from, time.Now().UTC()
	return s.tell(n)
}

// tell replaces what the others know of this node. The caller holds the ledger's lock.
func (s *Store) tell(n Node) error {
	dir, err := s.home.MakeDir(nodesDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	_ = dir.Remove(nodeTmp(s.node)) // of a run that was killed
	return dir.ReplaceVia(nodeTmp(s.node), nodeFile(s.node), append(data, '\n'), 0o600)
}

// heed takes into the state what other nodes have done since. A deploy that is
// unfinished here is void once they have switched to another certificate, and what was
// served here and rolled back there is not to be installed again.
func (s *Store) heed(state *State) {
	others, live := s.Nodes(), s.Live()
	if len(others) == 0 {
		return
	}
	if p := state.Pending; p != nil && p.Live != "" && live != p.Live && !live.is(p.Leaf) {
		state.Pending = nil
	}
	last := state.Last
	if last == nil || last.Outcome != OutcomeInstalled && last.Outcome != OutcomeUnchanged || last.Generation == live {
		return
	}
	for _, n := range others {
		for _, leaf := range n.RolledBackFrom {
			if last.Generation.is(leaf) && !state.holds(leaf) {
				state.RolledBackFrom = append(state.RolledBackFrom, leaf)
			}
		}
	}
}

// is reports whether the generation was written with the leaf.
func (g Generation) is(leaf string) bool {
	return g != "" && fingerprintPattern().MatchString(leaf) && g.LeafID() == leaf[:8]
}

// LiveIn is the generation that is live in a certs directory, "" if there is none.
func LiveIn(certsDir string) Generation {
	certs, err := disk.Open(certsDir)
	if err != nil {
		return ""
	}
	s := &Store{certs: certs}
	defer s.Close()
	_ = s.openHome() // where it is missing nothing is live
	return s.Live()
}

// leftUnfinished reports whether a run was killed while it told the others of this node.
func (s *Store) leftUnfinished() bool {
	_, err := s.home.Lstat(path.Join(nodesDir, nodeTmp(s.node)))
	return err == nil
}

// lockNodes keeps the other nodes from changing the store until unlock is called, or
// this process ends. Where there is no other node, whoever holds the lock is a front
// that wants to be a nuisance, or a node that nobody has heard of yet: it is waited for
// a little, and then no more. Nor is a file system without locks a reason not to deploy.
func (s *Store) lockNodes(ctx context.Context) (unlock func(), err error) {
	dir, err := s.home.MakeDir(nodesDir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	alone := true
	for _, node := range s.Nodes() {
		alone = alone && time.Since(node.At) > nodeForgotten
	}
	limited := ctx
	if alone {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, strangerWait)
		defer cancel()
	}
	unlock, err = dir.LockFile(limited, nodesLock, s.Dir())
	if errors.Is(err, disk.ErrLocked) {
		err = say.Hint(err, "wait for it to end, or look at it on that host: ps -fp PID; if there is no such run, a front holds %s: restart the fronts", path.Join(dir.Path(), nodesLock))
	}
	switch {
	case alone && ctx.Err() == nil && errors.Is(err, disk.ErrLocked),
		errors.Is(err, syscall.ENOLCK), errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOSYS):
		return func() {}, nil
	}
	return unlock, err
}
