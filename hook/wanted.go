package hook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"mailu-hook/internal/pki"
	"mailu-hook/internal/source"
)

// Search is what Wanted goes by.
type Search struct {
	State   State
	Sources []source.Source // to read; one that does not exist any more is passed over
	Names   []string        // HOSTNAMES, the main one first
	Pinned  string          // see Contest
}

// Wanted is what the front should serve, as far as this host knows: what an
// unfinished deploy by hand or a rollback was about, else the best of the
// lineages that may take over from what is installed by the rules of Contest,
// else what is installed. If the installed pair is damaged, the live generation is
// used instead. A lineage that is damaged is among the problems. The bundle is nil
// when there is none.
func Wanted(ctx context.Context, s *Store, w Search) (wanted *Bundle, problems []error) {
	installed, err := s.installedBundle()
	if err != nil {
		return nil, []error{err}
	}
	now := time.Now()
	var best *Bundle
	for _, src := range w.Sources {
		b, err := w.read(ctx, src)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			problems = append(problems, err)
		case len(w.Names) > 0 && len(Missing(b.Leaf(), w.Names[:1])) > 0: // another site's
		case !w.accepts(installed, b, now):
		case best == nil || w.prefers(b, best, installed):
			best = b
		}
	}
	if b := s.unfinished(w.State); b != nil && (best == nil || !best.Leaf().NotBefore.After(b.Leaf().NotBefore)) {
		best = b
	}
	if best == nil || installed != nil && best.Fingerprint() == installed.Fingerprint() && best.Lineage == "" {
		best = installed
	}
	return best, problems
}

func (w Search) read(ctx context.Context, src source.Source) (*Bundle, error) {
	offer, err := Read(ctx, src)
	if err != nil {
		return nil, err
	}
	return offer.For(w.Names)
}

// accepts reports whether a bundle may take over from what is installed.
func (w Search) accepts(installed, b *Bundle, now time.Time) bool {
	takes, _ := Contest{
		Installed: w.State.claim(installed), Candidate: Claim{Leaf: b.Leaf(), Source: b.Lineage},
		Names: w.Names, Pinned: w.Pinned, RolledBackFrom: w.State.RolledBackFrom, Now: now,
	}.Decide()
	return takes
}

// prefers reports whether a is the better of two bundles that may take over: the
// one that covers more, then the one of the same source as what is installed, then
// the newer.
func (w Search) prefers(a, b, installed *Bundle) bool {
	if more := len(Missing(b.Leaf(), w.Names)) - len(Missing(a.Leaf(), w.Names)); more != 0 {
		return more > 0
	}
	if installed != nil {
		from := w.State.Origin(installed.Fingerprint())
		if (a.Lineage == from) != (b.Lineage == from) {
			return a.Lineage == from
		}
	}
	return a.Leaf().NotBefore.After(b.Leaf().NotBefore)
}

// claim is what a bundle that is installed can say for itself.
func (st *State) claim(installed *Bundle) *Claim {
	if installed == nil {
		return nil
	}
	return st.claimOf(Pair{Leaf: installed.Leaf()})
}

func (st *State) claimOf(p Pair) *Claim {
	if p.Leaf == nil {
		return nil
	}
	c := &Claim{Leaf: p.Leaf, Source: st.Origin(pki.Fingerprint(p.Leaf))}
	if c.Source != "" {
		_, err := os.Stat(c.Source)
		c.Gone = errors.Is(err, fs.ErrNotExist)
	}
	return c
}

// unfinished is the generation that a deploy by hand or a rollback did not get to
// be served, nil if there is none.
func (s *Store) unfinished(state State) *Bundle {
	p := state.Pending
	if p == nil || p.Lineage != "" || state.holds(p.Leaf) {
		return nil
	}
	gens, _ := s.Generations()
	for _, gen := range slices.Backward(gens) {
		if b, err := s.Bundle(gen); err == nil && b.Fingerprint() == p.Leaf && !IsPlaceholder(b.Leaf()) {
			return b
		}
	}
	return nil
}

// installedBundle is what the two names lead to, or should: nil if neither that
// nor the live generation is a pair that we would install.
func (s *Store) installedBundle() (*Bundle, error) {
	p, err := s.Installed()
	if err != nil {
		return nil, err
	}
	if p.Leaf == nil {
		b, _ := s.Bundle(s.Live())
		return b, nil
	}
	b, _ := Parse(source.Files(filepath.Join(s.Dir(), s.certName), filepath.Join(s.Dir(), s.keyName)), p.cert, p.key)
	return b, nil
}

// Bundle reads a generation.
func (s *Store) Bundle(gen Generation) (*Bundle, error) {
	if !generationName.MatchString(string(gen)) || s.home == nil {
		return nil, fmt.Errorf("there is no generation %q", gen)
	}
	cert, key, err := s.read(gen)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.Dir(), homeName, string(gen))
	return Parse(source.Files(filepath.Join(dir, certFile), filepath.Join(dir, keyFile)), cert, key)
}
