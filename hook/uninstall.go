package hook

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/say"
)

// Uninstall gives the front plain files with the installed pair in the place of
// our links, sees that they are served, and then removes what is ours from the
// certs directory and the state directory. At every moment the two names lead to
// the same pair.
//
// After a nil error nothing of ours is left there. After any other the names lead
// to the pair as before, and Uninstall can be run again; an ErrPending means that
// the plain files are in place but were not all seen to be served.
func Uninstall(ctx context.Context, s *Store, f Front, o Options) (r Result, err error) {
	d := &deploy{s: s, f: f, o: o, r: &r, began: time.Now()}
	r.Durations = map[Step]time.Duration{}
	if d.b, err = s.installedBundle(); err == nil && d.b == nil {
		err = say.Hint(errors.New("there is no certificate to leave to the front"), "install one first: mailu-hook install SOURCE")
	}
	if err != nil {
		r.Outcome = OutcomeOf(err)
		return r, err
	}
	r.Bundle = d.b
	defer func() { d.finish(err) }()

	d.step(StepLook)
	if f != nil {
		d.before.ports = f.Look(ctx)
	}
	if o.DryRun {
		r.Outcome = OutcomeWouldInstall
		return r, nil
	}
	d.step(StepStage)
	unlock, err := s.Lock(ctx)
	if err != nil {
		return r, err
	}
	defer unlock()
	if now, err := s.installedBundle(); err != nil {
		return r, err
	} else if now != nil { // another run may have installed it while this one waited
		d.b, r.Bundle = now, now
	}

	d.step(StepSwitch)
	defer d.pauseWatcher()()
	if err := s.release(d.b); err != nil {
		return r, err
	}
	if f != nil {
		if err := d.verify(ctx); err != nil && !errors.Is(err, ErrUnsettled) {
			return r, fmt.Errorf("%w: %w", ErrPending, err)
		} else if err != nil {
			return r, err
		}
	}
	r.Outcome = OutcomeInstalled
	return r, s.forget()
}

// release makes the two names files with the pair that b holds. The caller holds
// the lock.
func (s *Store) release(b *Bundle) error {
	if err := s.certs.ReplaceVia(path.Join(homeName, disk.TempName()), s.keyName, b.keyPEM, 0o600); err != nil {
		return err
	}
	return s.certs.ReplaceVia(path.Join(homeName, disk.TempName()), s.certName, b.certPEM, 0o644)
}

// forget removes what is ours. The two names must not lead to it any more.
func (s *Store) forget() error {
	if err := s.certs.RemoveAll(homeName); err != nil {
		return err
	}
	s.home.Close()
	s.home = nil
	if err := s.certs.Sync(); err != nil {
		return err
	}
	return s.ledger.forget()
}
