package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/dane"
)

// chooseKey decides which key the next certificate is for, so that what is
// published of keys (TLSA) stays true: the prepared one once everybody can know
// it, and until then the live one if it is published.
func (r *renewal) chooseKey(ctx context.Context, now time.Time) error {
	if r.flag("next-key") {
		if err := r.lineage.PrepareKey(r.want.Key); err != nil {
			return err
		}
	}
	spki, kind, err := r.lineage.PreparedKey()
	if err != nil {
		return err
	}
	if spki != nil && kind != r.want.Key {
		r.note(fmt.Sprintf("the prepared key is of type %s, and --key-type says %s: it is not used", kind, r.want.Key))
		spki = nil
	}
	switch {
	case spki != nil && (r.lineage.Leaf == nil || r.c.text("dane") == "off"):
		r.want.PreparedKey = true
		return nil
	case spki == nil && (!r.due.Now || r.lineage.Leaf == nil || r.c.fs.Changed("reuse-key") || r.c.text("dane") == "off"):
		return nil
	}
	bundle, err := hook.Read(ctx, hook.LineageSource(r.lineage.Live()))
	if err != nil {
		return err
	}
	resolver, err := r.c.resolver()
	if err != nil {
		return err
	}
	known := lookUp(ctx, resolver, mailHosts(r.want.Names), bundle.Chain)
	if spki == nil {
		r.want.ReuseKey = slices.ContainsFunc(known, func(p published) bool { return p.Secure && p.holds(dane.OfLeaf(bundle.Leaf())) })
		if r.want.ReuseKey {
			r.note("the key stays, as a TLSA record 3 1 1 of it is published")
		}
		return nil
	}
	return r.rollOver(known, dane.OfKey(spki), now)
}

// rollOver uses the prepared key once its record was seen for two TTLs beside one
// that the live chain matches: then no resolver knows only the older records
// (RFC 7671, section 8.1).
func (r *renewal) rollOver(known []published, next dane.Record, now time.Time) error {
	pinned, seen := false, true
	var ttl time.Duration
	for _, p := range known {
		switch {
		case p.err != nil:
			pinned, seen = true, false // nobody knows
		case p.Secure && p.verdict != dane.None:
			pinned, ttl = true, max(ttl, p.TTL)
			seen = seen && p.verdict == dane.Match && p.holds(next)
		}
	}
	since, err := r.lineage.Watch(pinned && seen, now)
	if err != nil {
		return err
	}
	switch {
	case !pinned, !since.IsZero() && now.Sub(since) >= 2*ttl:
		r.want.PreparedKey = true
	case since.IsZero():
		r.want.ReuseKey = true
		r.note("the prepared key waits until its TLSA record is published: 'mailu-hook tlsa --next' prints it")
	default:
		r.want.ReuseKey = true
		r.note(fmt.Sprintf("the prepared key waits until its TLSA record was seen for two TTLs, at %s", since.Add(2*ttl).UTC().Format(time.RFC3339)))
	}
	return nil
}

// holds tells whether a record is published for the host.
func (p *published) holds(r dane.Record) bool { return slices.ContainsFunc(p.Records, r.Equal) }
