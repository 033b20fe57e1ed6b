package cli

import (
	"context"
	"fmt"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/dane"
	"mailu-hook/internal/say"
	"mailu-hook/internal/tlsa"
)

// chooseKey decides which key the next certificate is for, so that published TLSA
// records stay true: the prepared key once everybody can know its record, and
// until then the live one if there is a record of it.
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
		r.note(fmt.Sprintf("the prepared key is of type %s, but --key-type is %s: it is not used", kind, r.want.Key))
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
	known := tlsa.LookUp(ctx, resolver, tlsa.MailHosts(r.want.Names), bundle.Chain)
	if spki == nil {
		r.want.ReuseKey = tlsa.Pins(known, bundle.Leaf())
		if r.want.ReuseKey {
			r.note("the key stays, because a TLSA record 3 1 1 of it is published")
		}
		return nil
	}
	return r.rollOver(tlsa.Progress(known, dane.OfKey(spki)), now)
}

// rollOver uses the prepared key once everybody can know its record, and keeps
// the live one until then.
func (r *renewal) rollOver(progress tlsa.RollOver, now time.Time) error {
	since, err := r.lineage.Watch(progress.Published(), now)
	if err != nil {
		return err
	}
	switch {
	case progress.Done(since, now):
		r.want.PreparedKey = true
	case since.IsZero():
		r.want.ReuseKey = true
		r.note("the prepared key is not used until its TLSA record is published: mailu-hook tlsa --next prints it")
	default:
		r.want.ReuseKey = true
		r.note(fmt.Sprintf("the prepared key is not used until %s, when its TLSA record has been published for two TTLs", say.Time(progress.Until(since))))
	}
	return nil
}
