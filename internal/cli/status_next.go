package cli

import (
	"context"
	"crypto/x509"
	"sync"
	"time"

	"mailu-hook/acme"
	"mailu-hook/internal/health"
	"mailu-hook/internal/tlsa"
)

// compareDANE holds the TLSA records of each front's hosts against the chain that
// its port 25 shows. That comes last, as it needs the chain.
func (s *status) compareDANE(ctx context.Context) error {
	if s.c.text("dane") == "off" {
		return nil
	}
	resolver, err := s.c.resolver()
	if err != nil {
		return err
	}
	s.dane = map[string][]tlsa.Host{}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range s.look.Fronts {
		f := &s.look.Fronts[i]
		chain := shownAt25(f)
		if chain == nil {
			continue // which is a finding of its own
		}
		wg.Go(func() {
			known := tlsa.LookUp(ctx, resolver, tlsa.MailHosts(f.Hostnames), chain)
			for _, p := range known {
				if d := judged(&p); d.Verdict != "" {
					f.DANE = append(f.DANE, d)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			s.dane[f.Container] = known
		})
	}
	wg.Wait()
	return nil
}

func shownAt25(f *health.Front) []*x509.Certificate {
	for _, e := range f.Endpoints {
		if e.Number == 25 {
			return e.Chain
		}
	}
	return nil
}

// judged is what there is to tell of a host; nothing where nothing is published.
func judged(h *tlsa.Host) health.DANE {
	d := health.DANE{Host: h.Name}
	switch h.State() {
	case tlsa.Unknown:
		d.Verdict, d.Reason = health.DANEUnchecked, h.Err.Error()
	case tlsa.Insecure:
		d.Verdict, d.Reason = health.DANEInsecure, h.Unvalidated()
	case tlsa.Unusable:
		d.Verdict, d.Reason = health.DANEUnusable, "a sender can use none of them"
	case tlsa.Match:
		d.Verdict = health.DANEMatch
	case tlsa.Mismatch:
		d.Verdict, d.Reason = health.DANEMismatch, "publish "+h.ZoneLine(h.Lacks)
	}
	return d
}

// planned is when renew will get the next certificate of a front by itself, nil
// if it never got one, or another lineage has taken its place.
func (s *status) planned(f *health.Front) *health.Renewal {
	names := acme.CanonicalNames(f.Hostnames)
	if len(names) == 0 {
		return nil
	}
	state, err := acme.OpenExisting(s.c.text("state-dir"))
	if err != nil {
		return nil
	}
	defer state.Close()
	l, err := state.Lineage(acme.Request{Names: names}.LineageName())
	if err != nil || l.Leaf == nil {
		return nil
	}
	if newest := f.Newest(); newest != nil && newest.Chain[0].NotBefore.After(l.Leaf.NotBefore) {
		return nil
	}
	return &health.Renewal{From: l.Planned(time.Now()), By: "mailu-hook renew", Lineage: l.Live(), Failures: l.Failures, Failure: l.Failure}
}
