package hook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"mailu-hook/internal/source"
	"path/filepath"
	"slices"
	"time"
)

// Wanted is what the front should serve, as far as this host knows: the newest
// bundle among the lineages that covers the main one of names, unless it is the
// one that someone rolled back from, or what is installed if none is newer. If
// that is damaged, the live generation stands for it. A rollback that was begun
// is carried through. A lineage that does not exist any more is passed over; one
// that is damaged is among the problems. The bundle is nil when there is none.
func Wanted(ctx context.Context, s *Store, state State, lineages, names []string) (wanted *Bundle, problems []error) {
	for _, dir := range lineages {
		b, err := Read(ctx, source.Lineage(dir))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			problems = append(problems, err)
		case len(names) > 0 && len(Missing(b.Leaf(), names[:1])) > 0, b.Fingerprint() == state.RolledBackFrom:
		case wanted == nil || newer(b, wanted):
			wanted = b
		}
	}
	installed, err := s.installedBundle()
	if err != nil {
		return wanted, append(problems, err)
	}
	if installed != nil && (wanted == nil || !newer(wanted, installed)) && !wanted.same(installed) {
		wanted = installed
	}
	if state.Pending != nil && wanted != nil && wanted.Fingerprint() == state.RolledBackFrom { // a rollback that did not get to its switch
		if b := s.generationOf(state.Pending.Leaf); b != nil {
			wanted = b
		}
	}
	return wanted, problems
}

// generationOf is the newest generation with that leaf, nil if there is none.
func (s *Store) generationOf(leaf string) *Bundle {
	gens, _ := s.Generations()
	for _, gen := range slices.Backward(gens) {
		if b, err := s.Bundle(gen); err == nil && b.Fingerprint() == leaf {
			return b
		}
	}
	return nil
}

// newer reports whether a was issued after b, or b has expired or is a placeholder.
func newer(a, b *Bundle) bool {
	if IsPlaceholder(a.Leaf()) != IsPlaceholder(b.Leaf()) {
		return IsPlaceholder(b.Leaf())
	}
	return a.Leaf().NotBefore.After(b.Leaf().NotBefore) || time.Now().After(b.Leaf().NotAfter) && a.Leaf().NotAfter.After(b.Leaf().NotAfter)
}

func (b *Bundle) same(other *Bundle) bool {
	return b != nil && b.Fingerprint() == other.Fingerprint()
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
