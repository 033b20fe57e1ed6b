package renewal

import (
	"context"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/dane"
	"mailu-hook/internal/say"
	"mailu-hook/internal/source"
	"mailu-hook/internal/tlsa"
)

// chooseKey decides which key the next certificate is for, so that what is
// published about keys (TLSA) stays true: the prepared one once everybody can
// know it, and until then the live one if it is published.
func (r *run) chooseKey(ctx context.Context, now time.Time) error {
	if r.o.NextKey {
		if err := r.lineage.PrepareKey(r.want.Key); err != nil {
			return err
		}
	}
	spki, kind, err := r.lineage.PreparedKey()
	if err != nil {
		return err
	}
	if spki != nil && kind != r.want.Key {
		r.note("the prepared key is not used: its type is %s, and --key-type says %s", kind, r.want.Key)
		spki = nil
	}
	unpublished := r.lineage.Leaf == nil || r.o.Deploy.DANE == tlsa.Off
	switch {
	case spki != nil && unpublished:
		r.want.PreparedKey = true
		return nil
	case spki == nil && (unpublished || !r.due.Now || r.o.FixedKey):
		return nil
	}
	offer, err := hook.Read(ctx, source.At(r.lineage.Live()))
	if err != nil {
		return err
	}
	bundle, err := offer.For(r.want.Names)
	if err != nil {
		return err
	}
	hosts := tlsa.LookUp(ctx, r.o.Deploy.Resolver, tlsa.MailHosts(r.want.Names), bundle.Chain)
	if spki != nil {
		return r.rollOver(tlsa.Progress(hosts, dane.OfKey(spki)), now)
	}
	if tlsa.Pins(hosts, bundle.Leaf()) {
		r.want.ReuseKey = true
		r.note("the key is kept because a TLSA record 3 1 1 for it is published")
	}
	return nil
}

// rollOver uses the prepared key once its record has been published long enough.
func (r *run) rollOver(progress tlsa.RollOver, now time.Time) error {
	since, err := r.lineage.Watch(progress.Published(), now)
	if err != nil {
		return err
	}
	switch {
	case progress.Done(since, now):
		r.want.PreparedKey = true
	case since.IsZero():
		r.want.ReuseKey = true
		r.note("the prepared key waits until its TLSA record is published: mailu-hook tlsa --next prints it")
	default:
		r.want.ReuseKey = true
		r.note("the prepared key waits until its TLSA record has been published for two TTLs, at %s", say.Time(progress.Until(since)))
	}
	return nil
}
