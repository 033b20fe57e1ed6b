// Package mailu is the vocabulary that the deploy transaction, the driver of front
// containers and the command line share: what a Mailu front says of itself (Facts),
// which TLS ports it has (Port), what one of them shows (Endpoint), and what goes on
// inside the container (Inside). It asks nobody and holds no state.
package mailu

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"

	"mailu-hook/internal/say"
)

// Facts are what a front's environment and mounts say. They hold no secret: of the
// environment only the variables named in ParseEnvironment are read.
type Facts struct {
	Container string   `json:"container,omitempty"`
	ID        string   `json:"id,omitempty"`
	Image     string   `json:"image,omitempty"`
	Project   string   `json:"project,omitempty"`
	CertsDir  string   `json:"certs_dir,omitempty"` // on the host
	CertName  string   `json:"cert_name"`
	KeyName   string   `json:"key_name"`
	Hostnames []string `json:"hostnames,omitempty"` // the main one first
	Flavor    string   `json:"tls_flavor,omitempty"`
	Ports     []Port   `json:"ports,omitempty"`
	NoHTTP    bool     `json:"no_http,omitempty"` // PORTS leave out 80
}

// Name is what the front is called in a sentence: its container, and its project.
func (f Facts) Name() string {
	if f.Project == "" {
		return say.Plain(f.Container)
	}
	return say.Plain(f.Container) + " (project " + say.Plain(f.Project) + ")"
}

// Port is one TLS port of the front.
type Port struct {
	Number   int    `json:"port"`
	Protocol string `json:"protocol"`           // https, smtp, submissions, imaps, …
	Proxy    bool   `json:"proxy,omitempty"`    // expects a PROXY header first
	Implicit bool   `json:"implicit,omitempty"` // TLS from the first byte, else STARTTLS
	Of       string `json:"of,omitempty"`       // the container, where several fronts mount one certs directory
}

// String names the port in a sentence: port 993 (imaps), or port 993 (imaps) of
// mailu-front-2 where several fronts have one.
func (p Port) String() string {
	text := fmt.Sprintf("port %d (%s)", p.Number, p.Protocol)
	if p.Of != "" {
		text += " of " + p.Of
	}
	return text
}

// Defaults of Mailu's socrate library (core/base/libs/socrate/socrate/system.py)
// and of core/nginx/config.py.
const (
	DefaultCertsDir = "/mailu/certs"
	DefaultCertName = "cert.pem"
	DefaultKeyName  = "key.pem"
	defaultPorts    = "25,80,443,465,993,995,4190"
)

// known are all ports on which a front can speak TLS. A port with byPorts is open
// only if PORTS lists it, one with byTLS only if TLS does
// (core/nginx/conf/nginx.conf, core/nginx/dovecot/proxy.conf).
var known = []struct {
	Port
	byPorts, byTLS bool
}{
	{Port{Number: 25, Protocol: "smtp"}, false, false},
	{Port{Number: 110, Protocol: "pop3"}, true, false},
	{Port{Number: 143, Protocol: "imap"}, true, false},
	{Port{Number: 443, Protocol: "https", Implicit: true}, false, true},
	{Port{Number: 465, Protocol: "submissions", Implicit: true}, false, true},
	{Port{Number: 587, Protocol: "submission"}, true, false},
	{Port{Number: 993, Protocol: "imaps", Implicit: true}, false, true},
	{Port{Number: 995, Protocol: "pop3s", Implicit: true}, true, true},
	{Port{Number: 4190, Protocol: "sieve"}, true, false},
}

// AllPorts are all on which a front can speak TLS.
func AllPorts() []Port {
	var ports []Port
	for _, k := range known {
		ports = append(ports, k.Port)
	}
	return ports
}

// ParseEnvironment reads Mailu's variables as the front itself does, except that it
// takes HOSTNAMES out of quotes, which Compose v1 and docker run --env-file leave
// around a value. get returns "" for a variable that is not set. Unknown words in
// lists are ignored, as the front ignores them.
func ParseEnvironment(get func(string) string) Facts {
	f := Facts{
		CertName: cmp.Or(get("TLS_CERT_FILENAME"), DefaultCertName),
		KeyName:  cmp.Or(get("TLS_KEYPAIR_FILENAME"), DefaultKeyName),
		Flavor:   get("TLS_FLAVOR"),
	}
	f.Hostnames = SplitNames(unquote(strings.TrimSpace(get("HOSTNAMES"))))
	for i, name := range f.Hostnames {
		f.Hostnames[i] = unquote(name)
	}
	ports, tls := strings.Split(cmp.Or(get("PORTS"), defaultPorts), ","), strings.Split(cmp.Or(get("TLS"), defaultPorts), ",")
	f.NoHTTP = !slices.Contains(ports, "80")
	for _, k := range known {
		n := strconv.Itoa(k.Number)
		if k.byPorts && !slices.Contains(ports, n) || k.byTLS && !slices.Contains(tls, n) {
			continue
		}
		k.Proxy = Proxied(get("PROXY_PROTOCOL"), k.Number)
		f.Ports = append(f.Ports, k.Port)
	}
	return f
}

// ErrUnsuitable means that a front would not serve a certificate that is installed
// in /certs, or that its configuration must be fixed first.
var ErrUnsuitable = errors.New("this front cannot use an installed certificate")

// unsuitable is an ErrUnsuitable in words of its own.
type unsuitable struct{ text string }

func (u unsuitable) Error() string        { return u.text }
func (u unsuitable) Is(target error) bool { return target == ErrUnsuitable }

// CheckFlavor returns an ErrUnsuitable unless the front serves what is in /certs. An
// empty flavor passes: it means that the front could not be asked.
func (f Facts) CheckFlavor() error {
	switch f.Flavor {
	case "", "cert", "mail":
		return nil
	case "letsencrypt", "mail-letsencrypt":
		text := fmt.Sprintf("mailu-hook is not needed for this front: with TLS_FLAVOR=%s Mailu obtains its own certificates and ignores %s and %s", f.Flavor, say.Plain(f.CertName), say.Plain(f.KeyName))
		return say.Hint(unsuitable{text}, "to use certificates from elsewhere, set TLS_FLAVOR=cert in mailu.env and recreate the front; otherwise remove this hook")
	case "notls":
		return say.Hint(fmt.Errorf("%w: with TLS_FLAVOR=notls it serves no TLS", ErrUnsuitable), "set TLS_FLAVOR=cert in mailu.env and recreate the front")
	}
	return say.Hint(fmt.Errorf("%w: Mailu has no TLS_FLAVOR %s", ErrUnsuitable, say.Foreign(f.Flavor)), "set TLS_FLAVOR=cert in mailu.env and recreate the front")
}

// CheckHostnames returns an ErrUnsuitable if the main hostname is neither a host name
// nor a wildcard: then no certificate could be recognized as Mailu's. No hostnames at
// all pass.
func (f Facts) CheckHostnames() error {
	if len(f.Hostnames) == 0 || isHostname(CanonicalName(strings.TrimPrefix(f.Hostnames[0], "*."))) {
		return nil
	}
	return say.Hint(unsuitable{fmt.Sprintf("the main hostname of the mail server, %s, is not a host name", say.Foreign(f.Hostnames[0]))},
		"fix HOSTNAMES in mailu.env (HOSTNAMES=mail.example.com, without quotes) and recreate the front, or say --hostname mail.example.com")
}

// isLabel reports whether part can be one of a host name. An underscore is not allowed
// in one, but DNS and browsers take it.
func isLabel(part string) bool {
	return part != "" && len(part) <= 63 && strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789_-") == "" &&
		!strings.HasPrefix(part, "-") && !strings.HasSuffix(part, "-")
}

func isHostname(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil || IsHostname(name)
}

// IsHostname reports whether a canonical name is a host name, and not an address.
func IsHostname(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return false
	}
	for part := range strings.SplitSeq(name, ".") {
		if !isLabel(part) {
			return false
		}
	}
	return len(name) <= 253
}

// NginxOnly returns the ports of a front of Mailu 2.0 or older, where nginx
// serves all mail ports, neither PORTS nor TLS exist, and ManageSieve has no
// TLS of its own.
func NginxOnly(proxy string) []Port {
	var ports []Port
	for _, k := range known {
		if k.Number == 4190 {
			continue
		}
		k.Proxy = Proxied(proxy, k.Number)
		ports = append(ports, k.Port)
	}
	return ports
}

// Proxied reports whether the value of PROXY_PROTOCOL covers a port; "http" is Mailu
// 2.0's.
func Proxied(list string, port int) bool {
	for item := range strings.SplitSeq(list, ",") {
		switch item {
		case strconv.Itoa(port), "all":
			return true
		case "all-but-http":
			if port != 80 {
				return true
			}
		case "mail":
			if port != 443 && port != 80 {
				return true
			}
		case "http":
			if port == 443 || port == 80 {
				return true
			}
		}
	}
	return false
}

// CanonicalName is a host name as it is compared and sent: trimmed, in lower case, in
// its A-label form (RFC 5891), without a trailing dot. A name that has no such form,
// such as a wildcard, keeps its own.
func CanonicalName(name string) string {
	name = strings.TrimSuffix(strings.ToLower(strings.TrimSpace(name)), ".")
	if ascii, err := idna.Lookup.ToASCII(name); err == nil {
		return ascii
	}
	return name
}

// SplitNames splits a comma-separated list, trimming each and dropping empty ones.
func SplitNames(list string) []string {
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// PlainName reports whether a file name names an entry of /certs itself, and not one
// of a directory below or beside it.
func PlainName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}
