// Package health judges whether a mail server's TLS is fine, until when, and
// what is wrong if it is not. It is pure: facts go in, findings come out. What
// could not be seen is a fact too, and never leads to a good verdict.
//
// No fact comes from a private key, so that no key needs to be opened. Whether
// key and leaf match is inferred from what the ports serve, where a mismatch
// leaves unmistakable traces.
package health

import (
	"crypto/x509"
	"slices"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/tlsa"
)

// Look is everything that one look at a host saw.
type Look struct {
	At      time.Time
	Fronts  []Front
	NoFront error // why Fronts has a front as last seen instead of one that was found
	// EngineDown means that the engine could not be asked, not that it knows no front.
	EngineDown bool
	Engine     Clock
	Schedule   Schedule
	Setup      Setup
	Roots      *x509.CertPool // nil when they could not be loaded
	RootsFile  string         // that Roots are from; "" for the system's
	RootsErr   error
}

// Clock compares the engine's time with this host's.
type Clock struct {
	Seen  bool
	Ahead time.Duration // by which the engine's is ahead of ours
}

// Front is one front, as it was found or as last seen.
type Front struct {
	mailu.Facts
	State      string // Docker's: running, exited, …; "" when no container was found
	Health     string // Docker's; "" without a health check
	Unsuitable error  // why a deploy could not work on it
	Inside     *mailu.Inside
	InsideErr  error    // why Inside is nil though the front runs
	Leftover   string   // a file in its overrides that a killed run of renew left; "" if there is none
	Asked      []string // where the ports were asked, if not at the container itself
	Outside    bool     // an address of a name, seen as the world sees it; nothing but its ports is known
	Named      bool     // and these are ports that somebody named
	Unresolved error    // why the addresses of that name are not known
	Endpoints  []mailu.Endpoint
	Directory  Directory
	Memory     hook.State
	Nodes      []hook.Node // what other hosts that share the directory say of themselves
	MemoryErr  error
	Locked     bool // a run that lives holds the lock of its deploys
	Lineages   []Lineage
	Available  string      // a lineage on this host that could be installed; "" if none, or if a certificate is
	DANE       []tlsa.Host // compared with what port 25 serves; nil when nobody looked
	Planned    *Renewal    // of a lineage that mailu-hook renews by itself; nil when it has none
}

// Runs reports whether the container is running.
func (f *Front) Runs() bool { return f.State == "running" }

// Deploys reports whether a deploy was under way at that time, and not yet one that
// hangs.
func (f *Front) Deploys(at time.Time) bool {
	return f.Locked && f.Memory.Pending != nil && at.Before(f.Memory.Pending.Deadline)
}

// ShownAt is the chain that a port serves, nil if there is none.
func (f *Front) ShownAt(port int) []*x509.Certificate {
	for _, e := range f.Endpoints {
		if e.Number == port {
			return e.Chain
		}
	}
	return nil
}

// Daemon names the daemon behind a port: in Mailu 2.0 always nginx, from outside
// nobody knows.
func (f *Front) Daemon(port int) string {
	if f.Outside {
		return ""
	}
	if f.Inside != nil && f.Inside.NginxOnly || port == 25 || port == 443 {
		return "nginx"
	}
	return "dovecot"
}

// Directory is the certs directory, as far as it can be seen without opening
// a key.
type Directory struct {
	Path  string
	Err   error           // why it cannot be looked at
	Used  bool            // mailu-hook has deployed here
	Live  hook.Generation // that our links lead to; "" if unknown
	Cert  File
	Key   File
	Chain []*x509.Certificate // in Cert, leaf first
	// ChainErr is why Chain is nil although Cert points to a file.
	ChainErr error
}

// File is one of the two names that the front reads.
type File struct {
	Name   string
	Kind   Kind
	Target string // of a link, as written
	Err    error  // why it is Unreadable
}

// Kind is what a name in the certs directory points to.
type Kind string

// The kinds of a name.
const (
	Ours       Kind = "ours"       // the link that a deploy makes, to a file
	Plain      Kind = "plain"      // a file
	Link       Kind = "link"       // another link to a file in the directory
	Missing    Kind = "missing"    // the name does not exist
	Dangling   Kind = "dangling"   // a link to nothing
	Outward    Kind = "outward"    // a link that leaves the directory, so it is broken in the container
	Unreadable Kind = "unreadable" // could not be determined
)

// Bare reports whether there is neither certificate nor key.
func (d *Directory) Bare() bool {
	return d.Err == nil && d.Cert.Kind == Missing && d.Key.Kind == Missing
}

// Loads reports whether the front finds a file under that name.
func (f File) Loads() bool { return f.Kind == Ours || f.Kind == Plain || f.Kind == Link }

// Lineage is where renewed certificates come from.
type Lineage struct {
	Path  string
	Chain []*x509.Certificate
	Err   error
	Gone  bool // Err is that it does not exist
	// Last means that the last deploy came from it.
	Last bool
	// Certbot means that certbot has a renewal configuration for it, and Hooked
	// that this, or a hook for all lineages, calls mailu-hook.
	Certbot, Hooked bool
}

// Schedule is what runs certbot, sync and renew, according to this host's files.
type Schedule struct {
	Certbot Timer
	Sync    Timer
	Renew   Timer // mailu-hook renew
	Unseen  bool  // this program runs in a container, and does not see the host's
	// CertbotFailed is why the last attempt to renew a lineage failed, by the
	// lineage's name. Lineages that were renewed or not due are not in it.
	CertbotFailed map[string]string
}

// Setup is how this program was installed, for remedies that can be pasted.
type Setup struct {
	Program  string   // where it lies
	Examples string   // where its examples lie
	Systemd  bool     // systemd runs the host
	CronD    bool     // cron reads /etc/cron.d
	Units    []string // of its timers, those that systemd knows
}

// run is the command after which the host runs another one of ours from time to time.
func (s Setup) run(command, crontab string) string {
	unit := "mailu-hook-" + command
	switch {
	case !s.Systemd && !s.CronD: // as Alpine's
		return "add the last line of " + s.Examples + "/cron/" + crontab + ", without root, to root's crontab: crontab -e"
	case !s.Systemd:
		return "cp " + s.Examples + "/cron/" + crontab + " /etc/cron.d/"
	case slices.Contains(s.Units, unit+".timer"):
		return "systemctl enable --now " + unit + ".timer"
	}
	return "cp " + s.Examples + "/systemd/" + unit + ".* /etc/systemd/system/ && systemctl enable --now " + unit + ".timer"
}

// Timer is a periodic run of something.
type Timer struct {
	By   string    // what runs it: a unit or a file; "" when nothing does
	Last time.Time // when a systemd timer last fired; zero: not known
}

// Leaf is the first certificate of a chain, nil of an empty one.
func Leaf(chain []*x509.Certificate) *x509.Certificate {
	if len(chain) == 0 {
		return nil
	}
	return chain[0]
}

// Newest is the lineage with the leaf that was issued last, nil if none could
// be read.
func (f *Front) Newest() *Lineage {
	var newest *Lineage
	for i := range f.Lineages {
		l := &f.Lineages[i]
		if len(l.Chain) > 0 && (newest == nil || l.Chain[0].NotBefore.After(newest.Chain[0].NotBefore)) {
			newest = l
		}
	}
	return newest
}

// Relation is how what a port serves compares with what is installed.
type Relation string

// The relations.
const (
	Same  Relation = "same"
	Older Relation = "older" // issued before what is installed, for the same main name
	Other Relation = "other" // anything else
	None  Relation = "none"  // it completed no handshake
	// Uncompared means that what is installed could not be seen.
	Uncompared Relation = "unknown"
)

// Shows compares an endpoint with the installed leaf.
func (f *Front) Shows(e mailu.Endpoint) Relation {
	installed, served := Leaf(f.Directory.Chain), Leaf(e.Chain)
	switch {
	case served == nil:
		return None
	case installed == nil || !f.readsDirectory():
		return Uncompared
	case served.Equal(installed):
		return Same
	case served.NotBefore.Before(installed.NotBefore) && len(hook.Missing(served, f.main())) == 0:
		return Older
	}
	return Other
}

func (f *Front) main() []string { return f.Hostnames[:min(1, len(f.Hostnames))] }
