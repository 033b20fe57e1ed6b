package health

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

// directory judges the two names that the front reads.
func (j *judgement) directory(f *Front) {
	d := &f.Directory
	if !f.readsDirectory() || d.Path == "" {
		return
	}
	if d.Err != nil {
		remedy := "run mailu-hook as root"
		if errors.Is(d.Err, fs.ErrNotExist) {
			remedy = "name the directory that the front mounts at /certs: --certs-dir DIR"
		}
		j.find(Unknown, CertsDirUnseen, remedy, "the certs directory cannot be looked at: %v", d.Err)
		return
	}
	for _, file := range []File{d.Cert, d.Key} {
		j.file(d, file)
	}
	switch {
	case d.Cert.Kind == Unreadable || d.ChainErr == nil:
	case errors.Is(d.ChainErr, fs.ErrPermission):
		j.find(Unknown, InstalledUnseen, "run mailu-hook as root", "the installed certificate cannot be read: %v", d.ChainErr)
	default:
		j.find(Critical, CertDamaged, "install it anew: mailu-hook install --lineage DIR", "%s in %s holds no certificate: %v", d.Cert.Name, d.Path, d.ChainErr)
	}
	if !d.Cert.Loads() || !d.Key.Loads() || d.Cert.Kind == Ours && d.Key.Kind == Ours {
		return
	}
	if d.Used {
		j.find(Warning, LinksReplaced, "mailu-hook sync --now puts the links back", "somebody replaced mailu-hook's links: %s and %s in %s may not belong together", d.Cert.Name, d.Key.Name, d.Path)
		return
	}
	j.find(Warning, NotAdopted, "mailu-hook install --lineage DIR, once", "what is in %s was not installed by mailu-hook, which never deployed here yet", d.Path)
}

// file judges one name. A front that already runs keeps what it has loaded; at
// its next start, or when its watcher notices, it switches TLS off.
func (j *judgement) file(d *Directory, file File) {
	const end = "when the front starts again, TLS is off"
	switch file.Kind {
	case Missing:
		j.find(Critical, FileMissing, "install a certificate: mailu-hook install --lineage DIR", "there is no %s in %s: %s", file.Name, d.Path, end)
	case Dangling:
		j.find(Critical, LinkDangling, "mailu-hook sync --now, or install --lineage DIR", "%s in %s leads to %s, which does not exist: %s", file.Name, d.Path, say.Plain(file.Target), end)
	case Outward:
		j.find(Critical, LinkOutward, "mailu-hook install --lineage DIR puts copies in place of the link", "%s in %s leads to %s, which is outside of the directory and so nowhere in the container: %s", file.Name, d.Path, say.Plain(file.Target), end)
	case Unreadable:
		j.find(Unknown, InstalledUnseen, "run mailu-hook as root", "where %s in %s leads cannot be seen: %v", file.Name, d.Path, file.Err)
	}
}

// sighting is one chain and all the places where it was seen.
type sighting struct {
	chain     []*x509.Certificate
	installed bool
	ports     []int
}

// where names the certificate in a sentence that goes on.
func (s sighting) where(f *Front) string {
	ports := "every port shows"
	switch {
	case len(s.ports) == 1:
		ports = portList(s.ports) + " shows"
	case len(s.ports) < len(f.Endpoints):
		ports = portList(s.ports) + " show"
	}
	switch {
	case len(s.ports) == 0:
		return "the installed certificate"
	case s.installed:
		return "the installed certificate, which " + ports + ","
	}
	return "the certificate that " + ports
}

// sightings groups what is installed and what the ports show by chain.
func (f *Front) sightings() []sighting {
	var seen []sighting
	at := func(chain []*x509.Certificate) *sighting {
		i := slices.IndexFunc(seen, func(s sighting) bool { return slices.EqualFunc(s.chain, chain, (*x509.Certificate).Equal) })
		if i < 0 {
			i, seen = len(seen), append(seen, sighting{chain: chain})
		}
		return &seen[i]
	}
	if f.Directory.Chain != nil && f.readsDirectory() {
		at(f.Directory.Chain).installed = true
	}
	for _, e := range f.Endpoints {
		if e.Chain != nil {
			s := at(e.Chain)
			s.ports = append(s.ports, e.Number)
		}
	}
	return seen
}

// certificates judges each chain that is installed or shown.
func (j *judgement) certificates(f *Front) {
	seen := f.sightings()
	if len(seen) > 0 && len(f.Hostnames) == 0 {
		j.find(Unknown, HostnamesUnknown, "name them: --hostname, or MAILU_HOOK_HOSTNAME in /etc/mailu-hook.conf", "no hostname of the mail server is known, so the names in its certificate cannot be checked")
	}
	for _, s := range seen {
		where := s.where(f)
		j.validity(s.chain[0], where)
		j.names(f, s.chain[0], where)
		j.chain(s, where)
	}
}

const renewRemedy = "certbot renew, and its log /var/log/letsencrypt/letsencrypt.log; then mailu-hook sync --now"

func (j *judgement) validity(leaf *x509.Certificate, where string) {
	left := leaf.NotAfter.Sub(j.look.At)
	severity := OK
	switch {
	case left <= 0:
		j.find(Critical, CertExpired, renewRemedy, "%s expired on %s", where, leaf.NotAfter.UTC().Format(time.DateTime))
	case leaf.NotBefore.After(j.look.At):
		j.find(Critical, CertNotYetValid, "check the clock of this host (date -u)", "%s is valid only from %s on, which is yet to come: a clock is wrong", where, leaf.NotBefore.UTC().Format(time.DateTime))
	case left < j.o.Crit.Of(leaf):
		severity = Critical
	case left < j.o.Warn.Of(leaf):
		severity = Warning
	}
	if severity != OK {
		j.find(severity, CertExpiring, renewRemedy, "%s expires in %s (%s of its lifetime is left), on %s",
			where, Left(left), Percent(FractionLeft(leaf, j.look.At)), day(leaf.NotAfter))
	}
}

// Left is a time in words short enough for a table, rounded down.
func Left(d time.Duration) string {
	hours := int(d.Abs().Hours())
	text := fmt.Sprintf("%d days", hours/24)
	switch {
	case d.Abs() < 2*time.Hour:
		text = fmt.Sprintf("%d min", int(d.Abs().Minutes()))
	case hours < 48:
		text = fmt.Sprintf("%d h", hours)
	}
	if d < 0 {
		return "-" + text
	}
	return text
}

// Percent is a fraction of a lifetime, rounded down, so that 100 % is a new one.
func Percent(fraction float64) string { return fmt.Sprintf("%d %%", int(max(0, fraction)*100)) }

func (j *judgement) names(f *Front, leaf *x509.Certificate, where string) {
	missing := hook.Missing(leaf, f.Hostnames)
	if len(missing) == 0 {
		return
	}
	severity := Warning
	if missing[0] == f.Hostnames[0] {
		severity = Critical
	}
	j.find(severity, NamesMissing, "issue one for all HOSTNAMES (certbot certonly --cert-name NAME -d …), or correct HOSTNAMES in mailu.env",
		"%s does not cover %s (it covers %s)", where, short(missing), short(leaf.DNSNames))
}

// short lists names of foreign origin, some of them.
func short(names []string) string {
	if len(names) == 0 {
		return "no name"
	}
	if n := len(names); n > 4 {
		names = append(slices.Clone(names[:4]), fmt.Sprintf("%d more", n-4))
	}
	return say.Plain(list(names))
}

// chain judges whether clients can build a path from what is sent to a root.
func (j *judgement) chain(s sighting, where string) {
	complete, ends := Complete(s.chain)
	const remedy = "install certbot's fullchain.pem, not its cert.pem: mailu-hook install --lineage DIR"
	switch {
	case j.look.Roots != nil && Trusted(s.chain, j.look.Roots, j.look.At):
	case !complete && len(s.chain) == 1:
		j.find(Critical, ChainIncomplete, remedy, "%s stands alone: its issuer %s is not sent with it, so that most mail clients and servers refuse it", where, ends)
	case j.look.Roots != nil:
		j.find(Critical, ChainUntrusted, "issue one from a public CA; a CA of your own is named with --roots FILE", "%s is trusted by nobody: its chain ends at %s, which is no root of this system", where, ends)
	}
}

// Complete tells whether a chain ends in a root of its own, and names its end:
// the last certificate's issuer.
func Complete(chain []*x509.Certificate) (complete bool, end string) {
	last := chain[len(chain)-1]
	return pki.SelfIssued(last), say.Foreign(last.Issuer.String())
}

// Trusted tells whether what is sent leads to one of roots. Whether the leaf is
// valid now is judged apart; for one that is not, the last moment counts.
func Trusted(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) bool {
	leaf := chain[0]
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		now = leaf.NotAfter
	}
	_, err := pki.Paths(chain, roots, now)
	return err == nil
}

// Main is the first name that a leaf covers, for a line that has room for one.
func Main(leaf *x509.Certificate) string {
	if len(leaf.DNSNames) == 0 {
		return "no name"
	}
	return say.Plain(strings.ToLower(leaf.DNSNames[0]))
}
