package cli

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"mailu-hook/acme"
	"mailu-hook/hook"
	"mailu-hook/internal/dane"
	"mailu-hook/internal/deploy"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/report"
	"mailu-hook/internal/say"
	"mailu-hook/internal/tlsa"
)

func tlsaCommand() command {
	return command{
		name:    "tlsa",
		summary: "Print TLSA records for DANE, and compare them with the DNS",
		about: `Prints zone file lines for port 25 of each hostname, for the certificate that is
installed or the one that is named: 3 1 1 of the leaf, which lasts as long as
its key; 2 1 1 of each issuer that is sent. One of them is enough. Then it asks
the DNS, and says for each host, as a comment:

  match     the published records match what is sent
  mismatch  they do not: servers that check DANE do not deliver (exit 3)
  none      nothing is published
  unusable  no record that mail servers can use
  insecure  the answer was not validated, so it binds nobody, or could not
            be trusted: see --trust-ad
  unknown   the DNS could not be asked (exit 1)`,
		exits: `  0  the published records match, or none are binding
  1  the DNS could not be asked, or another error
  2  usage error, or ambiguous configuration
  3  a mismatch, or the certificate cannot be read
`,
		examples: `  mailu-hook tlsa
  mailu-hook tlsa --lineage /etc/letsencrypt/live/mail.example.com
  mailu-hook tlsa --cert fullchain.pem --hostname mail.example.com
  mailu-hook tlsa --next --output json | jq -r '.records[].line'`,
		options: func() action { return &tlsaOptions{} },
		formats: deployFormatNames(),
		failed:  func(err error) (result, error) { return &records{}, err },
	}
}

type tlsaOptions struct {
	lineage, cert string
	next          bool
	ask           string
	roots         string
	state         stateOptions
	front         frontOptions
	dns           resolverOptions
}

func (o *tlsaOptions) add(fs *flags) {
	fs.StringVar(&o.lineage, "lineage", "", "`DIR` directory with fullchain.pem, such as certbot's live/NAME")
	fs.StringVar(&o.cert, "cert", "", "`FILE` certificate and its chain, in PEM (default: what is installed)")
	fs.StringVar(&o.ask, "ask", "", "`HOST` what this host shows on port 25, at each of its addresses, instead of what is installed here; no engine is asked")
	fs.BoolVar(&o.next, "next", false, "show the record of the key that renew --next-key prepared, and whether it is published")
	fs.StringVar(&o.roots, "roots", "", "`FILE` CA certificates to trust instead of the system's")
	texts := deployTexts
	texts.timeout = "time limit"
	fs.group("Front", frontPart{&o.front, texts})
	fs.group("DNS", &o.dns)
	fs.group("State", &o.state)
}

func (o *tlsaOptions) run(ctx context.Context, i *invocation) (result, error) {
	return limited(ctx, "timeout", o.front.timeout, func(ctx context.Context) (result, error) { return o.look(ctx, i) })
}

func (o *tlsaOptions) look(ctx context.Context, i *invocation) (result, error) {
	if o.ask != "" {
		return o.outside(ctx)
	}
	hosts, cert, err := o.subject(ctx, i)
	if err != nil {
		return nil, err
	}
	resolver, err := o.dns.open()
	if err != nil {
		return nil, err
	}
	if o.next {
		key, err := o.preparedKey(hosts[0])
		if err != nil {
			return nil, err
		}
		return describeNext(key, tlsa.LookUp(ctx, resolver, hosts, nil))
	}
	chain, err := hook.ReadChain(cert)
	if err != nil {
		return nil, err
	}
	roots, err := readPool("roots", o.roots)
	if err != nil {
		return nil, err
	}
	return describeChain(cert, chain, hook.Rules{Roots: roots}.Root(chain), tlsa.LookUp(ctx, resolver, hosts, chain))
}

// outside describes what a host shows to the world, which must be the same at each
// of its addresses.
func (o *tlsaOptions) outside(ctx context.Context) (result, error) {
	if o.lineage != "" || o.cert != "" || o.next {
		return nil, usageError("--ask HOST goes with none of --lineage, --cert and --next")
	}
	look := lookOptions{ask: []string{o.ask}, ports: []int{25}, dns: o.dns}
	outside, err := look.outside()
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	var from string
	for _, f := range outside.Look(ctx) {
		shown := f.ShownAt(25)
		switch {
		case f.Unresolved != nil:
			return nil, say.Hint(f.Unresolved, "try another resolver: --resolver ADDR")
		case f.Asked == nil:
			return nil, fmt.Errorf("%s has no address", f.Container)
		case shown == nil:
			return nil, say.Hint(fmt.Errorf("port 25 of %s shows no certificate: %w", f.Container, f.Endpoints[0].Err), "look from a host that may connect to port 25")
		case chain != nil && !shown[0].Equal(chain[0]):
			return nil, say.Hint(fmt.Errorf("%s and %s show different certificates", from, f.Container), "make every address show the same, or publish records for both")
		case chain == nil:
			chain, from = shown, f.Container
		}
	}
	roots, err := readPool("roots", o.roots)
	if err != nil {
		return nil, err
	}
	hosts := tlsa.LookUp(ctx, outside.Resolver, outside.Hosts, chain)
	return describeChain(from, chain, hook.Rules{Roots: roots}.Root(chain), hosts)
}

// subject is which hosts and which file the records are for. The front is asked
// only for what the flags do not say.
func (o *tlsaOptions) subject(ctx context.Context, i *invocation) (hosts []string, cert string, err error) {
	if o.lineage != "" && o.cert != "" || o.next && (o.lineage != "" || o.cert != "") {
		return nil, "", usageError("use at most one of --lineage DIR, --cert FILE and --next")
	}
	cert = o.cert
	if o.lineage != "" {
		cert = filepath.Join(o.lineage, "fullchain.pem")
	}
	names := o.front.hostnames
	if len(names) == 0 || cert == "" && !o.next {
		facts, err := deploy.Facts(ctx, deploy.Options{
			Settings: i.settings, Front: o.front.selector(), CertsDir: o.front.certsDir, Hostnames: names, StateDir: o.state.stateDir, Timeout: o.front.timeout,
		})
		if err != nil {
			return nil, "", err
		}
		names = facts.Hostnames
		cert = cmp.Or(cert, filepath.Join(facts.CertsDir, facts.CertName))
	}
	if hosts = tlsa.MailHosts(names); len(hosts) == 0 {
		return nil, "", say.Hint(usageError("no hostname of the mail server is known"), "name it: --hostname mail.example.com")
	}
	return hosts, cert, nil
}

// preparedKey is the public half of the key that renew --next-key prepared.
func (o *tlsaOptions) preparedKey(host string) (spki []byte, err error) {
	state, err := acme.OpenExisting(o.state.stateDir)
	if err == nil {
		defer state.Close()
		var lineage *acme.Lineage
		if lineage, err = state.Lineage(acme.Request{Names: []string{host}}.LineageName()); err == nil {
			spki, _, err = lineage.PreparedKey()
		}
	}
	if err == nil && spki == nil || errors.Is(err, fs.ErrNotExist) {
		return nil, say.Hint(fmt.Errorf("no key is prepared for %s in %s", host, o.state.stateDir), "mailu-hook renew --next-key makes one")
	}
	return spki, err
}

// records are TLSA records to publish and what is published, and the JSON of
// that.
type records struct {
	Cert      string      `json:"cert,omitempty"`
	SHA256    string      `json:"leaf_sha256,omitempty"`
	Records   []tlsa.Line `json:"records"`
	Published []tlsa.Doc  `json:"published"`
	Error     string      `json:"error,omitempty"`
	Hint      string      `json:"hint,omitempty"`
	Exit      int         `json:"exit_status"`
}

func (r *records) tell(format string, err error, _ report.Screen) string {
	return inFormat(format, r, err)
}

func (r *records) inWords(error) string { return tlsa.Zone(r.Cert, r.Records, r.Published) }

func (r *records) document(err error) any {
	doc := *r
	doc.Exit = exitStatus(err)
	if err != nil {
		doc.Error, doc.Hint = err.Error(), say.HintOf(err)
	}
	return doc
}

// describeChain lists the records of a chain and of the root that it leads to but
// does not hold. The error is that what is published does not match the chain, or
// could not be looked up.
func describeChain(cert string, chain []*x509.Certificate, root *x509.Certificate, hosts []tlsa.Host) (result, error) {
	r := &records{
		Cert: cert, SHA256: pki.Fingerprint(chain[0]),
		Records: tlsa.Lines(hosts, chain, root), Published: tlsa.Docs(hosts),
	}
	if held := tlsa.Auto.Rule(hosts).Objection; held != nil {
		held.File, held.Leaf = cert, chain[0]
		return r, held
	}
	return r, unknown(hosts)
}

// describeNext lists the record of a key that no certificate has yet. That it is
// not published yet is not an error.
func describeNext(spki []byte, hosts []tlsa.Host) (result, error) {
	next := dane.OfKey(spki)
	return &records{Records: tlsa.NextLines(hosts, next), Published: tlsa.Publishes(hosts, next)}, unknown(hosts)
}

// unknown is why some of the hosts' records could not be looked up, nil if all
// were.
func unknown(hosts []tlsa.Host) error {
	var reasons []string
	for _, h := range hosts {
		if h.Err != nil {
			reasons = append(reasons, h.Err.Error())
		}
	}
	if reasons == nil {
		return nil
	}
	return say.Hint(fmt.Errorf("looking up the published records: %s", strings.Join(reasons, "; ")), "try another resolver: --resolver ADDR")
}
