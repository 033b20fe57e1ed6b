package health

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

// ports judges what the ports serve: whether they speak TLS, and whether that is
// the installed certificate.
func (j *judgement) ports(f *Front) {
	if f.Endpoints == nil || f.Flavor == "notls" {
		return
	}
	var silent, answering []mailu.Endpoint
	for _, e := range f.Endpoints {
		if e.Answers() {
			answering = append(answering, e)
		} else {
			silent = append(silent, e)
		}
	}
	switch {
	case f.Runs() && f.bare() && !slices.ContainsFunc(f.Endpoints, unexplained):
	case f.tlsOff():
		j.tlsOff(f)
	case len(answering) == 0:
		j.noneAnswers(f)
	case len(silent) > 0:
		j.someSilent(f, silent, answering)
	}
	if len(answering) > 0 && f.readsDirectory() && !j.found(PairMismatch) && !j.found(FrontTLSOff) {
		j.compare(f, answering)
	}
}

// unexplained reports whether a port does something that a front without a
// certificate does not: it closes the ports that need TLS, and offers no STARTTLS.
func unexplained(e mailu.Endpoint) bool {
	return !errors.Is(e.Err, mailu.ErrClosed) && !errors.Is(e.Err, mailu.ErrWithout)
}

// tlsOff reports whether nginx has been configured without TLS: Mailu's config.py
// does that when it finds a certificate file missing. Then 443 is closed, and 25
// does without STARTTLS; dovecot may have what it loaded before.
func (f *Front) tlsOff() bool {
	off := false
	for _, e := range f.Endpoints {
		switch e.Number {
		case 25:
			off = errors.Is(e.Err, mailu.ErrWithout)
		case 443:
			if !errors.Is(e.Err, mailu.ErrClosed) {
				return false
			}
		}
	}
	return off
}

func (j *judgement) tlsOff(f *Front) {
	remedy := "install a certificate: mailu-hook install SOURCE"
	if f.Directory.Cert.Loads() && f.Directory.Key.Loads() {
		remedy = "mailu-hook sync --now; if 443 stays closed, docker restart " + f.Container
	}
	j.find(Critical, FrontTLSOff, remedy,
		"TLS is off in %s: 443 is closed and 25 offers no STARTTLS, because a certificate file was missing when the front configured itself", f.name())
}

// noneAnswers distinguishes a front whose ports are closed from one that cannot be
// reached.
func (j *judgement) noneAnswers(f *Front) {
	closed := !slices.ContainsFunc(f.Endpoints, func(e mailu.Endpoint) bool { return !errors.Is(e.Err, mailu.ErrClosed) })
	first := f.Endpoints[0]
	switch {
	case j.found(NginxDown):
	case closed && f.Runs():
		j.find(Critical, PortSilent, "docker logs "+f.Container+" shows why; a front that has just started needs a few seconds", "no port of %s is open", f.name())
	default:
		j.find(Unknown, PortsUnseen, "run mailu-hook where the ports are reachable; a firewall may block them",
			"no port of %s could be reached: %s: %v", f.name(), first.Port, first.Err)
	}
}

// someSilent judges ports without TLS. A dovecot whose key does not match drops
// TLS on all of its ports at once and keeps them open, while nginx keeps its old
// configuration. Nothing else looks like that.
func (j *judgement) someSilent(f *Front, silent, answering []mailu.Endpoint) {
	if j.found(DovecotDown) {
		silent = slices.DeleteFunc(silent, func(e mailu.Endpoint) bool { return f.Daemon(e.Number) == "dovecot" })
	}
	if len(silent) == 0 {
		return
	}
	dovecotOpen := !slices.ContainsFunc(silent, func(e mailu.Endpoint) bool {
		return f.Daemon(e.Number) != "dovecot" || errors.Is(e.Err, mailu.ErrClosed)
	})
	nginxOld := !slices.ContainsFunc(answering, func(e mailu.Endpoint) bool {
		return f.Daemon(e.Number) != "nginx" || f.Shows(e) == Same || f.Shows(e) == Uncompared
	})
	if dovecotOpen && nginxOld {
		j.find(Critical, PairMismatch, "mailu-hook sync --now, or mailu-hook install SOURCE: both replace the two files at once",
			"%s and %s in %s do not appear to match: dovecot offers no TLS on any port, and nginx still serves an earlier certificate", f.CertName, f.KeyName, f.Directory.Path)
		return
	}
	first := silent[0]
	var ports []int
	for _, e := range silent {
		ports = append(ports, e.Number)
	}
	which := fmt.Sprintf("%s of %s", first.Port, f.name())
	if len(ports) > 1 {
		which = fmt.Sprintf("%s of %s; %s", portList(ports), f.name(), first.Port)
	}
	j.find(Critical, PortSilent, "docker logs "+f.Container+" shows why; mailu-hook sync --now reloads the daemons", "no TLS on %s: %v", which, first.Err)
}

// compare compares the ports with one another and with what is installed.
func (j *judgement) compare(f *Front, answering []mailu.Endpoint) {
	stray := slices.ContainsFunc(answering, func(e mailu.Endpoint) bool { return f.Shows(e) != Same && f.Shows(e) != Uncompared })
	first := answering[0]
	if slices.ContainsFunc(answering, func(e mailu.Endpoint) bool { return e.Leaf != first.Leaf }) {
		j.find(Warning, OutOfStep, fmt.Sprintf("find the broken configuration (docker exec %[1]s nginx -t; docker exec %[1]s doveconf -n), then run: mailu-hook sync --now", f.Container),
			"%s serves different certificates: %s", f.name(), f.groups(answering))
		return
	}
	if stray {
		j.find(Warning, NotServed, "mailu-hook sync --now",
			"%s serves the certificate issued on %s instead of the installed one, issued on %s", f.name(), say.Day(first.Chain[0].NotBefore), say.Day(f.Directory.Chain[0].NotBefore))
	}
}

// groups describes which daemon serves what: "nginx 3076aa61 (25), dovecot …".
func (f *Front) groups(answering []mailu.Endpoint) string {
	type group struct {
		leaf  string
		e     mailu.Endpoint
		ports []int
	}
	var groups []group
	for _, e := range answering {
		i := slices.IndexFunc(groups, func(g group) bool { return g.leaf == e.Leaf && f.Daemon(g.e.Number) == f.Daemon(e.Number) })
		if i < 0 {
			i, groups = len(groups), append(groups, group{leaf: e.Leaf, e: e})
		}
		groups[i].ports = append(groups[i].ports, e.Number)
	}
	var parts []string
	for _, g := range groups {
		what := map[Relation]string{Same: "the installed one", Older: "an older one"}[f.Shows(g.e)]
		if what == "" {
			what = fmt.Sprintf("%.8s", g.leaf)
		}
		parts = append(parts, fmt.Sprintf("%s %s (%s)", f.Daemon(g.e.Number), what, numbers(g.ports)))
	}
	return strings.Join(parts, ", ")
}

// name is how sentences call the front.
func (f *Front) name() string {
	if f.Container == "" {
		return "the front"
	}
	return f.Container
}

func (f *Front) portsOf(daemon string) []int {
	var ports []int
	for _, p := range f.Ports {
		if f.Daemon(p.Number) == daemon {
			ports = append(ports, p.Number)
		}
	}
	return ports
}

func numbers(ports []int) string {
	var texts []string
	for _, p := range ports {
		texts = append(texts, strconv.Itoa(p))
	}
	return list(texts)
}

func portList(ports []int) string {
	if len(ports) == 1 {
		return "port " + numbers(ports)
	}
	return "ports " + numbers(ports)
}

// list joins as a sentence does: "a, b and c".
func list(items []string) string {
	if n := len(items); n > 1 {
		return strings.Join(items[:n-1], ", ") + " and " + items[n-1]
	}
	return strings.Join(items, "")
}
