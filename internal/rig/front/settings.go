package main

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// variant20 is the value of FRONT_VARIANT that asks for Mailu 2.0: nginx serves
// every mail port, there is no dovecot, and neither PORTS nor TLS is heeded.
const variant20 = "2.0"

const defaultPorts = "25,80,443,465,993,995,4190"

var (
	mailPorts = []string{"25", "110", "995", "143", "993", "587", "465", "4190"}
	webPorts  = []string{"80", "443"}
	// tlsOnlyPorts are gated by TLS, and disappear from PORTS under notls.
	tlsOnlyPorts = []string{"443", "465", "993", "995"}
)

// settings is what the container's environment means to the templates.
type settings struct {
	Variant      string
	Flavor       string
	Hostname     string
	Cert, Key    string // both empty under notls
	TLSError     bool   // the pair is wanted and at least one file is missing
	RealIPFrom   []string
	RealIPHeader string
	MessageSize  string
	IPv6         bool
	CPUs         int

	ports, tls, proxy map[string]bool
}

// newSettings interprets the environment as Mailu does. Items of a list are not
// trimmed, and an unknown word in PROXY_PROTOCOL is fatal: in socrate the
// line that should report it raises a NameError.
func newSettings(env map[string]string) (*settings, error) {
	hosts, ok := env["HOSTNAMES"]
	if !ok {
		return nil, fmt.Errorf("HOSTNAMES is not set")
	}
	s := &settings{
		Variant:      env["FRONT_VARIANT"],
		Flavor:       env["TLS_FLAVOR"],
		RealIPHeader: env["REAL_IP_HEADER"],
		MessageSize:  withDefault(env, "MESSAGE_SIZE_LIMIT", "50000000"),
		IPv6:         env["SUBNET6"] != "",
		CPUs:         runtime.NumCPU(),
		ports:        map[string]bool{},
		tls:          map[string]bool{},
		proxy:        map[string]bool{},
	}
	s.Hostname, _, _ = strings.Cut(hosts, ",")
	if from := env["REAL_IP_FROM"]; from != "" {
		s.RealIPFrom = strings.Split(from, ",")
	}
	if n, err := strconv.Atoi(env["CPU_COUNT"]); err == nil && n > 0 {
		s.CPUs = n
	}
	if err := s.locatePair(env); err != nil {
		return nil, err
	}
	s.openPorts(env)
	if err := s.expectProxies(env["PROXY_PROTOCOL"]); err != nil {
		return nil, err
	}
	return s, nil
}

// locatePair finds which two files the flavor reads. The renewing flavors
// look at their own tree and never at TLS_CERT_FILENAME.
func (s *settings) locatePair(env map[string]string) error {
	switch s.Flavor {
	case "cert", "mail":
		s.Cert = "/certs/" + withDefault(env, "TLS_CERT_FILENAME", "cert.pem")
		s.Key = "/certs/" + withDefault(env, "TLS_KEYPAIR_FILENAME", "key.pem")
	case "letsencrypt", "mail-letsencrypt":
		s.Cert = "/certs/letsencrypt/live/mailu/nginx-chain.pem"
		s.Key = "/certs/letsencrypt/live/mailu/privkey.pem"
	case "notls":
	default:
		return fmt.Errorf("unknown TLS_FLAVOR %q", s.Flavor)
	}
	return nil
}

// openPorts fills what socrate calls PORT_n and TLS_n.
func (s *settings) openPorts(env map[string]string) {
	listed := strings.Split(withDefault(env, "PORTS", defaultPorts), ",")
	overTLS := strings.Split(withDefault(env, "TLS", defaultPorts), ",")
	if s.Variant == variant20 {
		listed, overTLS = slices.Concat(mailPorts, webPorts), tlsOnlyPorts
	}
	withTLS := s.Flavor != "notls"
	for _, port := range listed {
		if withTLS || !slices.Contains(tlsOnlyPorts, port) {
			s.ports[port] = true
		}
	}
	for _, port := range overTLS {
		if withTLS && slices.Contains(tlsOnlyPorts, port) {
			s.tls[port] = true
		}
	}
}

// expectProxies fills what socrate calls PROXY_PROTOCOL_n.
func (s *settings) expectProxies(list string) error {
	if s.Variant == variant20 {
		// 2.0 compares the whole value and ignores what it does not know.
		if list == "all" || list == "mail" {
			mark(s.proxy, mailPorts)
		}
		if list == "all" || list == "http" {
			mark(s.proxy, webPorts)
		}
		return nil
	}
	for item := range strings.SplitSeq(list, ",") {
		switch {
		case item == "":
		case strings.Trim(item, "0123456789") == "":
			s.proxy[item] = true
		case item == "mail":
			mark(s.proxy, mailPorts)
		case item == "all-but-http":
			mark(s.proxy, append([]string{"443"}, mailPorts...))
		case item == "all":
			mark(s.proxy, append([]string{"443", "80"}, mailPorts...))
		default:
			return fmt.Errorf("not sure what to do with %q in PROXY_PROTOCOL", item)
		}
	}
	return nil
}

// Port, OverTLS and Proxy are PORT_n, TLS_n and PROXY_PROTOCOL_n.
func (s *settings) Port(n string) bool    { return s.ports[n] }
func (s *settings) OverTLS(n string) bool { return s.tls[n] }
func (s *settings) Proxy(n string) bool   { return s.proxy[n] }

// TLSUp reports whether TLS is wanted and its files are there.
func (s *settings) TLSUp() bool { return s.Cert != "" && !s.TLSError }

// MailOnly reports whether something in front of the front serves the web.
func (s *settings) MailOnly() bool {
	return s.Flavor == "mail" || s.Flavor == "mail-letsencrypt"
}

// Redirects reports whether port 80 does nothing but send people to https.
func (s *settings) Redirects() bool {
	return s.Port("80") && (s.Flavor == "cert" || s.Flavor == "letsencrypt")
}

// Listen renders nginx's listen directives for a port.
func (s *settings) Listen(port string, options ...string) string {
	if s.Proxy(port) {
		options = append(options, "proxy_protocol")
	}
	rest := strings.Join(append([]string{port}, options...), " ")
	line := "listen " + rest + ";"
	if s.IPv6 {
		line += " listen [::]:" + rest + ";"
	}
	return line
}

func mark(set map[string]bool, ports []string) {
	for _, port := range ports {
		set[port] = true
	}
}

func withDefault(env map[string]string, name, value string) string {
	if v, ok := env[name]; ok {
		return v
	}
	return value
}
