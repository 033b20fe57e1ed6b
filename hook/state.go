package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"mailu-hook/internal/mailu"
)

// State is what the store remembers between runs, in .mailu-hook/state.json.
// It is advice: every fact in it can be found again, and a state that is lost
// or damaged costs only the memory.
type State struct {
	Version        int         `json:"version"`
	Front          mailu.Facts `json:"front"`              // what the front last said of itself
	Lineages       []Seen      `json:"lineages,omitempty"` // that were deployed, or were meant to be
	Last           *Last       `json:"last,omitempty"`     // result of the last deploy
	Pending        *Pending    `json:"pending,omitempty"`  // what a later run has to finish
	Guarded        *Guarded    `json:"guarded,omitempty"`  // what a Guard holds back
	RolledBackFrom string      `json:"held,omitempty"`     // leaf that someone rolled back from: not to be installed again unasked
}

const stateVersion = 1

// Seen is a lineage that a deploy was asked for.
type Seen struct {
	Lineage string    `json:"lineage"`
	Leaf    string    `json:"leaf"`
	At      time.Time `json:"at"`
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

// State reads what is remembered. Nothing remembered is not an error; a damaged
// file is one, and comes with an empty State that can be used.
func (s *Store) State() (State, error) {
	empty := State{Version: stateVersion}
	if s.home == nil {
		return empty, nil
	}
	data, err := s.home.Read(stateName)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, err
	}
	var state State
	if err := json.Unmarshal(data, &state); err != nil {
		return empty, s.home.Wrap(stateName, fmt.Errorf("damaged: %w", err))
	}
	if state.Version > stateVersion {
		return empty, s.home.Wrap(stateName, fmt.Errorf("written by a newer mailu-hook (version %d)", state.Version))
	}
	return state, nil
}

// Record replaces what is remembered, durably and by one rename. The caller
// holds the lock.
func (s *Store) Record(state State) error {
	state.Version = stateVersion
	data, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the state: %w", err)
	}
	return s.home.Replace(stateName, append(data, '\n'), 0o600)
}

// knows reports whether lineage was seen with leaf.
func (st *State) knows(lineage, leaf string) bool {
	return lineage == "" || slices.ContainsFunc(st.Lineages, func(l Seen) bool { return l.Lineage == lineage && l.Leaf == leaf })
}

// see notes that lineage was to be deployed with leaf.
func (st *State) see(lineage, leaf string, at time.Time) {
	if lineage == "" {
		return
	}
	st.Lineages = slices.DeleteFunc(st.Lineages, func(l Seen) bool { return l.Lineage == lineage })
	st.Lineages = append(st.Lineages, Seen{lineage, leaf, at})
}
