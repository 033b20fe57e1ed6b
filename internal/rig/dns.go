package rig

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ZoneOptions say what a Zone holds. Records are lines of a zone file, with
// owners relative to the zone: "mail 60 IN A 127.0.0.1".
type ZoneOptions struct {
	Name    string // default example.com
	Signed  bool   // by DNSSEC, at once and after each change
	Records []string
}

// Zone is a Knot that is the only authority for one zone, on loopback. What
// its records lack is remembered for a second (the SOA's minimum).
type Zone struct {
	Name string
	Addr string // host:port, UDP and TCP
	// A dynamic update (RFC 2136) that this key signs may change TXT records.
	TSIGName, TSIGAlgorithm, TSIGSecret string
	// TrustAnchor is the DS record of a signed zone, "" of any other.
	TrustAnchor string

	dir, sockets string
	knot         *process
}

// StartZone starts the server of a zone, with its files below dir, and returns
// when it answers. The caller must Close it.
func StartZone(ctx context.Context, dir string, o ZoneOptions) (*Zone, error) {
	if o.Name == "" {
		o.Name = "example.com"
	}
	z := &Zone{Name: o.Name, dir: dir, TSIGName: "update", TSIGAlgorithm: "hmac-sha256", TSIGSecret: randomSecret()}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := z.start(ctx, o); err != nil {
		z.Close()
		return nil, fmt.Errorf("starting the zone %s: %w", o.Name, err)
	}
	return z, nil
}

func randomSecret() string {
	secret := make([]byte, 32)
	rand.Read(secret) // never fails; see its documentation
	return base64.StdEncoding.EncodeToString(secret)
}

func (z *Zone) start(ctx context.Context, o ZoneOptions) (err error) {
	if err := os.MkdirAll(z.dir, 0o700); err != nil {
		return err
	}
	// The name of a test can make dir too long for a socket.
	if z.sockets, err = os.MkdirTemp("", "knot"); err != nil {
		return err
	}
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	z.Addr = local(ports[0])
	if err := z.configure(o.Signed); err != nil {
		return err
	}
	head := []string{"@ 1 IN SOA ns hostmaster 1 3600 600 86400 1", "@ 1 IN NS ns", "ns 1 IN A 127.0.0.1"}
	content := "$ORIGIN " + z.Name + ".\n" + strings.Join(append(head, o.Records...), "\n") + "\n"
	if err := os.WriteFile(z.file("zone"), []byte(content), 0o600); err != nil {
		return err
	}
	knotd, err := daemon("knotd")
	if err != nil {
		return err
	}
	if z.knot, err = startProcess(z.file("knot.log"), nil, knotd, "--config", z.file("knot.conf")); err != nil {
		return err
	}
	if err := z.knot.pollAlive(ctx, func() error { return answers(ctx, z.Addr, z.Name, false) }); err != nil {
		return err
	}
	if o.Signed {
		return z.knot.pollAlive(ctx, func() error { return z.findAnchor(ctx) })
	}
	return nil
}

func (z *Zone) configure(signed bool) error {
	host, port, err := net.SplitHostPort(z.Addr)
	if err != nil {
		return err
	}
	signing := "off"
	if signed {
		signing = "on"
	}
	// The validities are long, so that no test meets a roll of the keys.
	return os.WriteFile(z.file("knot.conf"), fmt.Appendf(nil, `server:
    rundir: %[1]q
    listen: %[2]s@%[3]s
    automatic-acl: off
log:
  - target: stderr
    any: info
database:
    storage: %[1]q
control:
    listen: %[4]q
key:
  - id: %[5]s
    algorithm: %[6]s
    secret: %[7]s
acl:
  - id: update
    key: %[5]s
    action: update
    update-type: [TXT]
policy:
  - id: test
    single-type-signing: on
    algorithm: ecdsap256sha256
zone:
  - domain: %[8]s
    file: %[9]q
    acl: update
    journal-content: none
    zonefile-load: whole
    zonefile-sync: -1
    semantic-checks: off
    dnssec-signing: %[10]s
    dnssec-policy: test
`, z.dir, host, port, filepath.Join(z.sockets, "control"), z.TSIGName, z.TSIGAlgorithm, z.TSIGSecret, z.Name, z.file("zone"), signing), 0o600)
}

func (z *Zone) findAnchor(ctx context.Context) error {
	keymgr, err := daemon("keymgr")
	if err != nil {
		return err
	}
	out, err := run(ctx, nil, keymgr, "--config", z.file("knot.conf"), z.Name, "ds")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out.stdout) {
		if fields := strings.Fields(line); len(fields) == 6 && fields[4] == "2" { // SHA-256
			z.TrustAnchor = strings.TrimSpace(line)
			return nil
		}
	}
	return errors.New("the zone has no key yet")
}

// Replace puts these records in the place of all that have the same owner and
// type, in one change of the zone.
func (z *Zone) Replace(ctx context.Context, records ...string) error {
	edits := [][]string{}
	unset := map[string]bool{}
	for _, record := range records {
		fields := strings.Fields(record)
		if len(fields) < 5 || fields[2] != "IN" {
			return fmt.Errorf("changing the zone %s: %q is not OWNER TTL IN TYPE DATA", z.Name, record)
		}
		owner, kind := fields[0], fields[3]
		if !unset[owner+" "+kind] {
			edits = append(edits, []string{"zone-unset", z.Name, owner, kind})
			unset[owner+" "+kind] = true
		}
		edits = append(edits, append([]string{"zone-set", z.Name, owner, fields[1], kind}, fields[4:]...))
	}
	return z.edit(ctx, edits)
}

// Remove takes all records of an owner and a type out of the zone.
func (z *Zone) Remove(ctx context.Context, owner, kind string) error {
	return z.edit(ctx, [][]string{{"zone-unset", z.Name, owner, kind}})
}

func (z *Zone) edit(ctx context.Context, edits [][]string) error {
	_, err := z.knotc(ctx, "zone-begin", z.Name)
	for _, args := range edits {
		if err != nil {
			break
		}
		out, failed := z.knotc(ctx, args...)
		// What is to be unset need not be there.
		if args[0] != "zone-unset" || !strings.Contains(out.stderr+out.stdout, "no such") {
			err = failed
		}
	}
	if err == nil {
		_, err = z.knotc(ctx, "zone-commit", z.Name)
	}
	if err != nil {
		return fmt.Errorf("changing the zone %s: %w", z.Name, err)
	}
	return nil
}

// Tamper replaces a text in the signed zone and leaves the signatures as they
// are, so that a validating resolver takes what was changed for forged.
func (z *Zone) Tamper(ctx context.Context, old, forged string) error {
	_, err := z.knotc(ctx, "zone-flush", "--force", z.Name)
	if err == nil {
		err = z.forge(old, forged)
	}
	if err == nil {
		_, err = z.knotc(ctx, "reload")
	}
	for limit := time.Now().Add(10 * time.Second); err == nil; time.Sleep(10 * time.Millisecond) { // knotd loads zones later
		var read output
		if read, err = z.knotc(ctx, "zone-read", z.Name); strings.Contains(read.stdout, forged) {
			return nil
		}
		if err == nil && time.Now().After(limit) {
			err = errors.New("knotd does not load it")
		}
	}
	if err != nil {
		return fmt.Errorf("tampering with the zone %s: %w", z.Name, err)
	}
	return nil
}

func (z *Zone) forge(old, forged string) error {
	data, err := os.ReadFile(z.file("zone"))
	if err != nil {
		return err
	}
	if !strings.Contains(string(data), old) {
		return fmt.Errorf("there is no %q in it", old)
	}
	if err := os.WriteFile(z.file("zone"), []byte(strings.ReplaceAll(string(data), old, forged)), 0o600); err != nil {
		return err
	}
	return z.configure(false)
}

func (z *Zone) knotc(ctx context.Context, args ...string) (output, error) {
	knotc, err := daemon("knotc")
	if err != nil {
		return output{}, err
	}
	return run(ctx, nil, append([]string{knotc, "--socket", filepath.Join(z.sockets, "control"), "--blocking"}, args...)...)
}

func (z *Zone) file(name string) string { return filepath.Join(z.dir, name) }

// Close kills the server. It is safe to call more than once.
func (z *Zone) Close() {
	z.knot.stop()
	os.RemoveAll(z.sockets)
}

// Resolver is an Unbound that validates, on loopback.
type Resolver struct {
	Addr string // host:port, UDP and TCP

	unbound *process
}

// StartResolver starts a resolver, with its files below dir, that knows these
// zones and nothing else, and trusts the keys of the signed ones. It returns
// when it answers. The caller must Close it.
func StartResolver(ctx context.Context, dir string, zones ...*Zone) (*Resolver, error) {
	r := &Resolver{}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := r.start(ctx, dir, zones); err != nil {
		r.Close()
		return nil, fmt.Errorf("starting the resolver: %w", err)
	}
	return r, nil
}

func (r *Resolver) start(ctx context.Context, dir string, zones []*Zone) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	r.Addr = local(ports[0])
	name := filepath.Join(dir, "unbound.conf")
	if err := os.WriteFile(name, []byte(unboundConf(dir, ports[0], zones)), 0o600); err != nil {
		return err
	}
	unbound, err := daemon("unbound")
	if err != nil {
		return err
	}
	r.unbound, err = startProcess(filepath.Join(dir, "unbound.log"), nil, unbound, "-d", "-p", "-c", name)
	if err != nil {
		return err
	}
	for _, z := range zones {
		if err := r.unbound.pollAlive(ctx, func() error { return answers(ctx, r.Addr, z.Name, z.TrustAnchor != "") }); err != nil {
			return err
		}
	}
	return nil
}

func unboundConf(dir string, port int, zones []*Zone) string {
	var conf strings.Builder
	fmt.Fprintf(&conf, `server:
    directory: %q
    username: ""
    chroot: ""
    use-syslog: no
    interface: 127.0.0.1
    port: %d
    module-config: "validator iterator"
    do-not-query-localhost: no
    target-fetch-policy: "0 0 0 0 0"
    minimal-responses: no
    val-bogus-ttl: 1
    infra-cache-min-rtt: 10
    local-zone: "." refuse
`, dir, port)
	for _, z := range zones {
		fmt.Fprintf(&conf, "    local-zone: %q transparent\n", z.Name+".")
		if z.TrustAnchor != "" {
			fmt.Fprintf(&conf, "    trust-anchor: %q\n", z.TrustAnchor)
		}
	}
	for _, z := range zones {
		fmt.Fprintf(&conf, "stub-zone:\n    name: %q\n    stub-addr: %s\n    stub-prime: no\n", z.Name+".", strings.Replace(z.Addr, ":", "@", 1))
	}
	return conf.String()
}

// Close kills the resolver. It is safe to call more than once.
func (r *Resolver) Close() { r.unbound.stop() }

// WaitFor returns when the resolver's answer contains text, in kdig's words:
// what it knew before has then passed out of its cache.
func (r *Resolver) WaitFor(ctx context.Context, name, kind, text string) error {
	host, port, err := net.SplitHostPort(r.Addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return r.unbound.pollAlive(ctx, func() error {
		out, err := run(ctx, nil, "kdig", "@"+host, "-p", port, name, kind, "+timeout=1", "+retry=0")
		if err == nil && !strings.Contains(strings.ToLower(out.stdout), strings.ToLower(text)) {
			err = fmt.Errorf("the resolver does not show %q for %s%s", text, name, quoted(out.stdout))
		}
		return err
	})
}

// Pause stops the resolver as it stands: from then on it receives questions and
// answers none.
func (r *Resolver) Pause() error { return r.unbound.cmd.Process.Signal(syscall.SIGSTOP) }

// answers asks a server for the SOA of a zone, by kdig, and wants an answer; of
// a resolver with the zone's key, a validated one.
func answers(ctx context.Context, addr, zone string, validated bool) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	out, err := run(ctx, nil, "kdig", "@"+host, "-p", port, zone+".", "SOA", "+adflag", "+timeout=1", "+retry=0")
	switch {
	case err != nil:
		return err
	case !strings.Contains(out.stdout, "status: NOERROR"), !strings.Contains(out.stdout, "ANSWER: 1"):
		return fmt.Errorf("%s has no answer%s", addr, quoted(out.stdout))
	case validated && !strings.Contains(out.stdout, " ad"):
		return fmt.Errorf("the answer of %s is not validated%s", addr, quoted(out.stdout))
	}
	return nil
}

// daemon returns the path of a program that Debian keeps where not every PATH
// leads.
func daemon(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	path = filepath.Join("/usr/sbin", name)
	if _, missing := os.Stat(path); missing == nil {
		return path, nil
	}
	return "", err
}
