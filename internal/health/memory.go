package health

import (
	"errors"
	"io/fs"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

// memory judges what the last deploy left behind.
func (j *judgement) memory(f *Front) {
	if !f.readsDirectory() || f.Directory.Err != nil {
		return
	}
	if f.MemoryErr != nil {
		if errors.Is(f.MemoryErr, fs.ErrPermission) {
			j.find(Unknown, StateUnseen, "run mailu-hook as root", "whether a deploy is unfinished cannot be seen: %v", f.MemoryErr)
		} else {
			j.find(Warning, StateDamaged, "mailu-hook sync --now writes it anew; --lineage DIR names what it forgot", "what earlier deploys remembered cannot be read: %v", f.MemoryErr)
		}
		return
	}
	last, pending := f.Memory.Last, f.Memory.Pending
	if last != nil && last.At.Sub(j.look.At) > clockSlack {
		j.find(Warning, ClockSkew, "check the clock of this host (date -u)", "the last deploy was at %s, which is yet to come: the clock was set back", last.At.UTC().Format(time.DateTime))
	}
	switch {
	case last != nil && last.Outcome == hook.OutcomeRollbackFailed:
		j.find(Critical, DeployFailed, "look at what it names, then mailu-hook sync --now", "the last deploy (%s) failed, and so did putting the old pair back: %s", last.At.UTC().Format(time.DateTime), say.Plain(last.Error))
	case pending != nil:
		j.find(Warning, DeployPending, "mend the cause, then mailu-hook sync --now", "a deploy is unfinished since %s%s: %s", pending.Since.UTC().Format(time.DateTime), attempts(pending), say.Plain(pending.Reason))
	}
}

func attempts(p *hook.Pending) string {
	if p.Next.IsZero() {
		return ""
	}
	return " (the next attempt is due at " + p.Next.UTC().Format(time.DateTime) + ")"
}

// lineages judges where the next certificate will come from.
func (j *judgement) lineages(f *Front) {
	if !f.readsDirectory() {
		return
	}
	for _, l := range f.Lineages {
		switch {
		case l.Err == nil:
		case l.Gone && l.Last:
			j.find(Warning, LineageGone, "certbot certificates lists what there is; install one: mailu-hook install --lineage DIR", "the lineage %s, where the installed certificate came from, does not exist any more: nothing renews it", l.Path)
		case l.Gone:
		case errors.Is(l.Err, fs.ErrPermission):
			j.find(Unknown, LineageUnseen, "run mailu-hook as root", "the lineage cannot be read: %v", l.Err)
		default:
			j.find(Warning, LineageDamaged, "certbot renew --force-renewal --cert-name NAME makes a new one", "the lineage %s holds no certificate: %v", l.Path, l.Err)
		}
	}
	newest, installed := f.Newest(), Leaf(f.Directory.Chain)
	if newest == nil || installed == nil || f.Memory.Pending != nil {
		return
	}
	leaf := newest.Chain[0]
	if leaf.NotBefore.After(installed.NotBefore) && pki.Fingerprint(leaf) != f.Memory.RolledBackFrom && len(hook.Missing(leaf, f.main())) == 0 {
		j.find(Warning, LineageNewer, "mailu-hook sync --now", "%s was renewed on %s, and the certificate is not installed", newest.Path, day(leaf.NotBefore))
	}
}
