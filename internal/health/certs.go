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
		j.find(Unknown, CertsDirUnseen, remedy, "cannot look at the certs directory: %v", d.Err)
		return
	}
	if d.Bare() {
		j.find(Critical, FileMissing, f.firstRemedy(), "there is no certificate in %s yet, so the front has no TLS", d.Path)
		return
	}
	for _, file := range []File{d.Cert, d.Key} {
		j.file(d, file)
	}
	switch {
	case d.Cert.Kind == Unreadable || d.ChainErr == nil:
	case errors.Is(d.ChainErr, fs.ErrPermission):
		j.find(Unknown, InstalledUnseen, "run mailu-hook as root", "cannot read the installed certificate: %v", d.ChainErr)
	default:
		j.find(Critical, CertDamaged, "install one: mailu-hook install SOURCE", "%s in %s contains no certificate: %v", d.Cert.Name, d.Path, d.ChainErr)
	}
	if d.Cert.Kind == Ours {
		j.live(d)
	}
	if !d.Cert.Loads() || !d.Key.Loads() || d.Cert.Kind == Ours && d.Key.Kind == Ours {
		return
	}
	if d.Used {
		j.find(Warning, LinksReplaced, "mailu-hook sync --now restores the links", "mailu-hook's links were replaced: %s and %s in %s may not match", d.Cert.Name, d.Key.Name, d.Path)
		return
	}
	j.find(Warning, NotAdopted, "run once: mailu-hook install SOURCE", "%s holds a certificate that mailu-hook did not install", d.Path)
}

// live judges the generation that our links lead to. It was written once, and its
// name says with which leaf. cp follows links, so a script that copies files to
// the two names writes into it.
func (j *judgement) live(d *Directory) {
	leaf := Leaf(d.Chain)
	if leaf == nil || d.Live == "" {
		return
	}
	if is := pki.Fingerprint(leaf)[:8]; is != d.Live.LeafID() {
		j.find(Warning, WrittenThrough, "remove the script that copies certificates there; then run: mailu-hook sync --now",
			"something wrote through mailu-hook's link %s: the certificate installed as %s was overwritten with %s", d.Cert.Name, d.Live.LeafID(), is)
	}
}

// firstRemedy is how the front gets its first certificate.
func (f *Front) firstRemedy() string {
	switch {
	case f.Available != "":
		return "run: mailu-hook install " + f.Available
	case f.Planned != nil:
		return "run: mailu-hook renew --now"
	}
	return "get one with certbot and run mailu-hook install SOURCE; or run: mailu-hook renew --agree-tos"
}

// bare reports whether the front has no certificate to load, which explains ports
// without TLS and a dovecot that never started.
func (f *Front) bare() bool {
	return f.readsDirectory() && f.Directory.Path != "" && f.Directory.Bare()
}

// file judges one name. A running front keeps what it has loaded; when it
// restarts, or its watcher notices, it turns TLS off.
func (j *judgement) file(d *Directory, file File) {
	const end = "when the front restarts, TLS will be off"
	switch file.Kind {
	case Missing:
		j.find(Critical, FileMissing, "install a certificate: mailu-hook install SOURCE", "there is no %s in %s: %s", file.Name, d.Path, end)
	case Dangling:
		j.find(Critical, LinkDangling, "mailu-hook sync --now, or mailu-hook install SOURCE", "%s in %s points to %s, which does not exist: %s", file.Name, d.Path, say.Plain(file.Target), end)
	case Outward:
		j.find(Critical, LinkOutward, "mailu-hook install SOURCE replaces the link with a copy", "%s in %s points to %s, which is outside the directory and does not exist in the container: %s", file.Name, d.Path, say.Plain(file.Target), end)
	case Unreadable:
		j.find(Unknown, InstalledUnseen, "run mailu-hook as root", "cannot see where %s in %s points: %v", file.Name, d.Path, file.Err)
	}
}

// sighting is one chain and all the places where it was seen.
type sighting struct {
	chain     []*x509.Certificate
	installed bool
	ports     []int
}

// where is the subject of a sentence about the certificate.
func (s sighting) where(f *Front) string {
	ports := "every port serves"
	switch {
	case len(s.ports) == 1:
		ports = portList(s.ports) + " serves"
	case len(s.ports) < len(f.Endpoints):
		ports = portList(s.ports) + " serve"
	}
	switch {
	case len(s.ports) == 0:
		return "the installed certificate"
	case s.installed:
		return "the installed certificate, which " + ports + ","
	}
	return "the certificate that " + ports
}

// sightings groups what is installed and what the ports serve by chain.
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

// certificates judges each chain that is installed or served.
func (j *judgement) certificates(f *Front) {
	seen := f.sightings()
	if len(seen) > 0 && len(f.Hostnames) == 0 {
		j.find(Unknown, HostnamesUnknown, "name it: --hostname mail.example.com, or MAILU_HOOK_HOSTNAME=mail.example.com in /etc/mailu-hook.conf", "no hostname of the mail server is known, so the names in its certificate cannot be checked")
	}
	for _, s := range seen {
		where := s.where(f)
		j.validity(j.look.LifeOf(s.chain), where, f.renewRemedy())
		if pki.IsOutline(s.chain[0]) {
			j.find(Warning, CertUnread, "replace it: mailu-hook install SOURCE, with a certificate that every client can read",
				"%s is of a form that OpenSSL reads, and programs in Go, this one too, do not: its names and its chain were not checked", where)
			continue
		}
		j.names(f, s.chain[0], where)
		j.chain(s, where)
	}
}

// renewRemedy is how to get a new certificate from the program that got the last one.
func (f *Front) renewRemedy() string {
	if f.Planned != nil {
		return "run: mailu-hook renew --now"
	}
	return "run certbot renew and see /var/log/letsencrypt/letsencrypt.log; then run: mailu-hook sync --now"
}

func (j *judgement) validity(life Life, where, remedy string) {
	leaf, left := life.Leaf, life.Left(j.look.At)
	if life.First != leaf {
		where = fmt.Sprintf("%s, an issuer of %s,", say.Foreign(life.First.Subject.String()), strings.TrimSuffix(where, ","))
		remedy = "get a certificate with a newer chain: certbot renew --force-renewal; then run: mailu-hook sync --now"
	}
	severity := OK
	switch {
	case left <= 0:
		j.find(Critical, CertExpired, remedy, "%s expired on %s", where, say.Time(life.End()))
	case leaf.NotBefore.After(j.look.At):
		j.find(Critical, CertNotYetValid, "check the clock of this host (date -u)", "%s is not valid before %s, which is in the future: a clock is wrong", where, say.Time(leaf.NotBefore))
	case left < j.o.Crit.Of(leaf):
		severity = Critical
	case left < j.o.Warn.Of(leaf):
		severity = Warning
	}
	if severity != OK {
		j.find(severity, CertExpiring, remedy, "%s expires in %s (%s of its lifetime is left), on %s",
			where, Left(left), Percent(life.Fraction(j.look.At)), say.Day(life.End()))
	}
}

// Left is a time in words short enough for a table, rounded down. A Duration ends
// after 292 years, and so does this.
func Left(d time.Duration) string {
	hours := int(d.Abs().Hours())
	text := fmt.Sprintf("%d days", hours/24)
	switch {
	case hours >= 10*365*24:
		text = fmt.Sprintf("%d years", hours/24/365)
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
	j.find(severity, NamesMissing, "get one for all HOSTNAMES (certbot certonly --cert-name NAME -d …), or correct HOSTNAMES in mailu.env",
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
	const remedy = "install certbot's fullchain.pem instead of its cert.pem: mailu-hook install SOURCE"
	switch {
	case j.look.Roots != nil && j.look.Trusts(s.chain):
	case !complete && len(s.chain) == 1:
		j.find(Critical, ChainIncomplete, remedy, "%s is sent without its issuer %s, so most mail clients and servers reject it", where, ends)
	case j.look.Roots != nil:
		j.find(Critical, ChainUntrusted, "get one from a public CA; if the CA is your own, name its root: --roots FILE", "%s is not trusted: its chain ends at %s, which is not %s", where, ends, j.look.rootsName())
	}
}

// Complete reports whether a chain ends in a self-issued certificate, and names
// its end: the issuer of the last one.
func Complete(chain []*x509.Certificate) (complete bool, end string) {
	last := chain[len(chain)-1]
	return pki.SelfIssued(last), say.Foreign(last.Issuer.String())
}

// rootsName names the roots in a sentence that denies one.
func (l *Look) rootsName() string {
	if l.RootsFile != "" {
		return "in " + l.RootsFile
	}
	return "a root of this system"
}

// Trusts reports whether what is sent leads to one of the roots. Whether all of it
// is valid now is judged separately: if it is not, its last moment counts.
func (l *Look) Trusts(chain []*x509.Certificate) bool {
	at, end := l.At, l.LifeOf(chain).End()
	if at.Before(chain[0].NotBefore) || at.After(end) {
		at = end
	}
	_, err := pki.Paths(chain, l.Roots, at)
	return err == nil
}

// Main is the first name that a leaf covers, for a line that has room for one.
func Main(leaf *x509.Certificate) string {
	if len(leaf.DNSNames) == 0 {
		return "no name"
	}
	return say.Plain(strings.ToLower(leaf.DNSNames[0]))
}
