package hook

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path"
	"regexp"
	"strings"
	"syscall"
	"time"

	"mailu-hook/internal/disk"
)

// Node is what a host says of itself to the others whose fronts serve from the same
// certs directory: nodes of a swarm, or hosts that share it by NFS. It lies in that
// directory, where a front can write too. So it is told to people and waited for
// within limits, and nothing else is done because of it.
type Node struct {
	Name    string    `json:"-"`
	Front   string    `json:"front,omitempty"`   // "": none runs there that could serve anything
	Leaf    string    `json:"leaf,omitempty"`    // that each of its ports was last seen with
	Pending string    `json:"pending,omitempty"` // why it does not serve what is installed
	Last    Outcome   `json:"last,omitempty"`
	At      time.Time `json:"at"`
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
	if s.home == nil {
		return nil
	}
	dir, err := s.home.OpenDir(nodesDir)
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
	if s.home == nil {
		return n, false
	}
	dir, err := s.home.OpenDir(nodesDir)
	if err != nil {
		return n, false
	}
	defer dir.Close()
	n, err = readNode(dir, s.node)
	return n, err == nil
}

func readNode(dir *disk.Dir, name string) (n Node, err error) {
	data, err := dir.Read(nodeFile(name))
	if err == nil {
		err = json.Unmarshal(data, &n)
	}
	n.Name = name
	return n, err
}

// Late lists the nodes that were heard of within the last hour, and have a front that
// was not seen to serve that leaf yet.
func (s *Store) Late(leaf string, now time.Time) (late []Node) {
	for _, node := range s.Nodes() {
		if node.Front != "" && node.Leaf != leaf && now.Sub(node.At) < nodeLives {
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
	n.Name, n.At = s.node, n.At.UTC()
	before, known := s.Self()
	if age := n.At.Sub(before.At); known && age >= 0 && age < nodeRefreshed && !s.leftUnfinished() {
		if before.At = n.At; before == n {
			return nil
		}
	}
	unlock, err := s.ledger.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
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
	switch {
	case alone && ctx.Err() == nil && errors.Is(err, disk.ErrLocked),
		errors.Is(err, syscall.ENOLCK), errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOSYS):
		return func() {}, nil
	}
	return unlock, err
}
