package hook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/source"
)

// State is what root remembers between runs of one certs directory. Every fact in
// it can be found again, and a state that is lost or damaged costs only the
// memory.
type State struct {
	Version  int         `json:"version"`
	CertsDir string      `json:"certs_dir,omitempty"`
	Front    mailu.Facts `json:"front"`              // what the front last said of itself
	Lineages []Seen      `json:"lineages,omitempty"` // that were deployed, or were meant to be
	Last     *Last       `json:"last,omitempty"`     // result of the last deploy
	Pending  *Pending    `json:"pending,omitempty"`  // what a later run has to finish
	Guarded  *Guarded    `json:"guarded,omitempty"`  // what a Guard holds back
	// Published: a Guard has found something published that others know the server
	// by, so that it must not stay unchecked.
	Published bool `json:"published,omitempty"`
	// RolledBackFrom are the leaves that are not to be installed again unasked: the
	// one that someone rolled back from, and what the lineages held at that time.
	RolledBackFrom []string `json:"rolled_back_from,omitempty"`
	// Origins names the lineage that each leaf in a generation came from.
	Origins  map[string]string `json:"origins,omitempty"`
	LastSync time.Time         `json:"last_sync,omitzero"`  // when sync last ran to its end
	SyncedBy string            `json:"synced_by,omitempty"` // who ran it: Watch, or "" for a timer or a person

	LegacyHeld string `json:"held,omitempty"` // RolledBackFrom of version 1
}

const stateVersion = 2

// Values of State.SyncedBy: the agent, and the agent that renews too.
const (
	Watch      = "watch"
	WatchRenew = "watch --renew"
)

// Seen is a lineage that a deploy was asked for: the directory or the file of a
// source.
type Seen struct {
	Lineage      string    `json:"lineage"`
	PasswordFile string    `json:"password_file,omitempty"`
	Leaf         string    `json:"leaf"`
	At           time.Time `json:"at"`
}

// Source is where it is read again.
func (l Seen) Source() source.Source {
	src := source.At(l.Lineage)
	src.Password = l.PasswordFile
	return src
}

// Last is the result of the last deploy that changed anything or tried to.
type Last struct {
	At         time.Time  `json:"at"`
	Outcome    Outcome    `json:"outcome"`
	Lineage    string     `json:"lineage,omitempty"`
	Generation Generation `json:"generation,omitempty"`
	Error      string     `json:"error,omitempty"`
}

// Pending is a deploy that was begun and not proven finished.
type Pending struct {
	Since    time.Time `json:"since"`
	Lineage  string    `json:"lineage,omitempty"`
	Leaf     string    `json:"leaf"`
	Reason   string    `json:"reason,omitempty"`
	Attempts int       `json:"attempts"`      // that ended with an error
	Next     time.Time `json:"next,omitzero"` // before which sync does not try again
	// Deadline is when the run that began it has given up at the latest, rollback
	// included. Until then it is under way, if that run still holds the lock.
	Deadline time.Time `json:"deadline,omitzero"`
	// Live is the generation that was live when that run began, and then when it ended.
	// Another one later is what another node has switched to.
	Live Generation `json:"live,omitempty"`
}

const (
	firstWait   = 5 * time.Minute
	longestWait = time.Hour
)

// Waits reports whether it is not yet time to try again. A time further away than
// any failure sets it comes from a wrong clock, and does not count.
func (p *Pending) Waits(now time.Time) bool {
	return p != nil && now.Before(p.Next) && p.Next.Sub(now) <= longestWait
}

// begin notes that leaf of lineage is being deployed. Attempts for the same
// leaf add up.
func (st *State) begin(lineage, leaf string, at time.Time) {
	p := &Pending{Since: at, Lineage: lineage, Leaf: leaf, Reason: "a run began and did not finish"}
	if old := st.Pending; old != nil && old.Leaf == leaf {
		p.Since, p.Attempts = old.Since, old.Attempts
	}
	st.Pending = p
}

// fail notes why the pending deploy did not end well, and when to try again:
// after five minutes, then twice as long each time, at most an hour.
func (st *State) fail(reason string, at time.Time) {
	st.Pending.Reason = reason
	attempts := min(max(st.Pending.Attempts, 0), 1000) // whatever the file said
	st.Pending.Next = at.Add(min(firstWait<<min(attempts, 10), longestWait))
	st.Pending.Attempts = attempts + 1
}

// legacyState is where versions before 2 kept the state: in .mailu-hook, where
// the front can write.
const legacyState = "state.json"

// State reads what is remembered. Nothing remembered is not an error; a damaged
// file is one, and comes with an empty State that can be used.
//
// A state of an older version is taken over until the next Record, but only as
// far as the front cannot have invented it: lineages that are certbot's or our
// own, and what was rolled back from.
func (s *Store) State() (State, error) {
	state, err := s.ledger.read()
	if err == nil {
		s.heed(&state)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return state, err
	}
	if s.home == nil {
		return state, nil
	}
	data, err := s.home.Read(legacyState)
	if err != nil {
		return state, nil // there is none, or nothing to be had of it
	}
	old, err := parseState(data, func(err error) error { return s.home.Wrap(legacyState, err) })
	if err != nil {
		return state, nil
	}
	for _, seen := range old.Lineages {
		if s.trusts(seen.Lineage) {
			state.Lineages = append(state.Lineages, seen)
		}
	}
	if leaf := old.LegacyHeld; fingerprintPattern().MatchString(leaf) {
		state.RolledBackFrom = []string{leaf}
	}
	return state, nil
}

var fingerprintPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[0-9a-f]{64}$`)
})

// trusts reports whether a lineage is one that only root can have made.
func (s *Store) trusts(lineage string) bool {
	parent := filepath.Dir(filepath.Clean(lineage))
	return parent == filepath.Join(s.certbotDir, "live") || parent == filepath.Join(s.ledger.stateDir, "live")
}

// Record replaces what is remembered, durably and by one rename. The caller
// holds the lock.
func (s *Store) Record(state State) error {
	if err := s.ledger.record(state); err != nil {
		return err
	}
	if s.home == nil {
		return nil
	}
	for _, name := range []string{legacyState, legacyLock} {
		if _, err := s.home.Lstat(name); err == nil {
			_ = s.home.Remove(name) // of an older version; in nobody's way
		}
	}
	return nil
}

// Synced remembers that sync ran to its end, however it ended: status takes that
// for the sign that something runs it. It also remembers what the front said of
// itself. Where nothing was ever deployed, or the state is damaged, nothing is written.
func (s *Store) Synced(ctx context.Context, at time.Time, by string, facts mailu.Facts) error {
	if !s.Used() {
		return nil
	}
	unlock, err := s.ledger.lock(ctx)
	if err != nil {
		return fmt.Errorf("recording that sync ran: %w", err)
	}
	defer unlock()
	state, err := s.State()
	if err != nil {
		return nil // which is told already
	}
	state.LastSync, state.SyncedBy = at.UTC(), by
	if facts.Hostnames != nil {
		state.Front = facts
	}
	return s.Record(state)
}

// Postpone remembers that the deploy of b, which is served here, is not finished: sync
// looks at it again.
func (s *Store) Postpone(ctx context.Context, b *Bundle, reason string) error {
	unlock, err := s.ledger.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	state, err := s.State()
	if err != nil {
		return err
	}
	state.begin(b.Lineage, b.Fingerprint(), time.Now().UTC())
	state.Pending.Reason, state.Pending.Live = reason, s.Live()
	return s.Record(state)
}

const legacyLock = "lock"

// knows reports whether lineage was seen with leaf.
func (st *State) knows(lineage, leaf string) bool {
	return lineage == "" || slices.ContainsFunc(st.Lineages, func(l Seen) bool { return l.Lineage == lineage && l.Leaf == leaf })
}

// see notes that src was to be deployed with leaf.
func (st *State) see(src source.Source, leaf string, at time.Time) {
	if src.Lineage == "" {
		return
	}
	st.Lineages = slices.DeleteFunc(st.Lineages, func(l Seen) bool { return l.Lineage == src.Lineage })
	st.Lineages = append(st.Lineages, Seen{src.Lineage, src.Password, leaf, at})
}

// holds reports whether a leaf is not to be installed again unasked.
func (st *State) holds(leaf string) bool { return slices.Contains(st.RolledBackFrom, leaf) }

// Origin is the lineage that a leaf came from, "" if that is not known.
func (st *State) Origin(leaf string) string {
	if lineage, ok := st.Origins[leaf]; ok {
		return lineage
	}
	for _, seen := range st.Lineages { // as version 1 had it
		if seen.Leaf == leaf {
			return seen.Lineage
		}
	}
	return ""
}

// comesFrom notes where the leaf of a new generation came from, and forgets the
// leaves of which there is no generation any more.
func (st *State) comesFrom(lineage, leaf string, gens []Generation) {
	kept := map[string]string{}
	for old, from := range st.Origins {
		if slices.ContainsFunc(gens, func(g Generation) bool { return strings.HasSuffix(string(g), "-"+old[:min(8, len(old))]) }) {
			kept[old] = from
		}
	}
	if lineage != "" {
		kept[leaf] = lineage
	}
	st.Origins = kept
}
