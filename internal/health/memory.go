package health

import (
	"cmp"
	"crypto/x509"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"mailu-hook/hook"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

// memory judges what the last deploy recorded.
func (j *judgement) memory(f *Front) {
	if !f.readsDirectory() || f.Directory.Err != nil {
		return
	}
	if f.MemoryErr != nil {
		if errors.Is(f.MemoryErr, fs.ErrPermission) {
			j.find(Unknown, StateUnseen, "run mailu-hook as root", "cannot see whether a deploy is unfinished: %v", f.MemoryErr)
		} else {
			j.find(Warning, StateDamaged, "mailu-hook sync --now rewrites it; --lineage SOURCE names one that it has forgotten", "the state of earlier deploys cannot be read: %v", f.MemoryErr)
		}
		return
	}
	last, pending := f.Memory.Last, f.Memory.Pending
	if last != nil && last.At.Sub(j.look.At) > clockSlack {
		j.find(Warning, ClockSkew, "check the clock of this host (date -u)", "the last deploy was at %s, which is in the future: the clock was set back", say.Time(last.At))
	}
	switch {
	case last != nil && last.Outcome == hook.OutcomeRollbackFailed:
		j.find(Critical, DeployFailed, "fix what it names, then run: mailu-hook sync --now", "the last deploy (%s) failed, and so did its rollback: %s", say.Time(last.At), say.Plain(last.Error))
	case pending != nil && !f.Deploys(j.look.At):
		j.find(Warning, DeployPending, "fix the cause, then run: mailu-hook sync --now", "a deploy has been unfinished since %s%s: %s", say.Time(pending.Since), attempts(pending), say.Plain(pending.Reason))
	}
}

// nodes judges what the other hosts that share the directory say of themselves.
func (j *judgement) nodes(f *Front) {
	installed := Leaf(f.Directory.Chain)
	if installed == nil {
		return
	}
	for _, n := range f.Nodes {
		switch {
		case n.Down(j.look.At):
			j.find(Warning, NodeDown, "run mailu-hook watch there; if that host is gone for good: rm "+filepath.Join(f.CertsDir, ".mailu-hook/fronts", n.Name+".json"),
				"nothing was heard of the host %s, which shares %s, since %s", n.Name, f.CertsDir, say.Time(n.At))
		case n.Lacks(pki.Fingerprint(installed)):
			j.find(Warning, NodeBehind, "run there: mailu-hook sync", "the host %s was not seen to serve the installed certificate", n.Name)
		}
	}
}

func attempts(p *hook.Pending) string {
	if p.Next.IsZero() {
		return ""
	}
	return " (next attempt at " + say.Time(p.Next) + ")"
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
			j.find(Warning, LineageGone, "certbot certificates lists the lineages; install one: mailu-hook install SOURCE", "the lineage %s, which the installed certificate came from, no longer exists: nothing renews it", l.Path)
		case l.Gone:
		case errors.Is(l.Err, fs.ErrPermission):
			j.find(Unknown, LineageUnseen, "run mailu-hook as root", "cannot read the lineage: %v", l.Err)
		default:
			j.find(Warning, LineageDamaged, cmp.Or(say.HintOf(l.Err), "certbot renew --force-renewal --cert-name NAME creates a new one"), "no certificate can be read from the lineage %s: %v", l.Path, l.Err)
		}
	}
	installed := Leaf(f.Directory.Chain)
	if installed == nil || f.Memory.Pending != nil {
		return
	}
	for _, l := range f.Lineages {
		if j.takesOver(f, l, installed) {
			j.find(Warning, LineageNewer, "run: mailu-hook sync --now", "%s was renewed on %s, but the certificate is not installed", l.Path, say.Day(l.Chain[0].NotBefore))
			return // sync installs one
		}
	}
}

// takesOver reports whether sync would install what a lineage holds.
func (j *judgement) takesOver(f *Front, l Lineage, installed *x509.Certificate) bool {
	leaf := Leaf(l.Chain)
	if leaf == nil || leaf.Equal(installed) || len(hook.Missing(leaf, f.main())) > 0 {
		return false
	}
	from := f.Memory.Origin(pki.Fingerprint(installed))
	gone := slices.ContainsFunc(f.Lineages, func(l Lineage) bool { return l.Path == from && l.Gone })
	takes, _ := hook.Contest{
		Installed: &hook.Claim{Leaf: installed, Source: from, Gone: gone}, Candidate: hook.Claim{Leaf: leaf, Source: l.Path},
		Names: f.Hostnames, Pinned: j.o.Pinned, RolledBackFrom: f.Memory.RolledBackFrom, Now: j.look.At,
	}.Decide()
	return takes
}
