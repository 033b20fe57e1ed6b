package cli

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"mailu-hook/acme"
	"mailu-hook/hook"
	"mailu-hook/internal/dane"
	"mailu-hook/internal/pki"
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

  match     what is published fits what is sent
  mismatch  it does not: servers that follow DANE do not deliver (exit 3)
  none      nothing is published
  unusable  no record that mail servers can use
  insecure  the answer was not validated, so it counts for nobody or could
            not be believed: see --trust-ad
  unknown   the DNS could not be asked (exit 1)`,
		exits: `  0  what is published fits, or nothing is that counts
  1  it could not be found out
  2  wrong usage, or a configuration that leaves a choice open
  3  a mismatch, or the certificate cannot be read
`,
		examples: `  mailu-hook tlsa
  mailu-hook tlsa --lineage /etc/letsencrypt/live/mail.example.com
  mailu-hook tlsa --cert fullchain.pem --hostname mail.example.com
  mailu-hook tlsa --next --output json | jq -r '.records[].line'`,
		flags: func(fs *pflag.FlagSet) {
			fs.String("lineage", "", "`DIR` with fullchain.pem, as certbot's live/NAME")
			fs.String("cert", "", "`FILE` with the leaf and its chain, in PEM (default: what is installed)")
			fs.Bool("next", false, "the record of the key that is prepared for a later renewal, and whether it is published")
			fs.String("state-dir", acme.DefaultStateDir, "`DIR` in which that key is")
			targetFlags(fs)
			resolverFlags(fs)
			fs.String("roots", "", "`FILE` with the CA certificates to trust instead of the system's")
			settingFlags(fs)
		},
		run: runTLSA,
	}
}

// tlsaDoc is what the command finds, and the JSON that it prints.
type tlsaDoc struct {
	Cert      string      `json:"cert,omitempty"`
	SHA256    string      `json:"leaf_sha256,omitempty"`
	Records   []tlsa.Line `json:"records"`
	Published []tlsa.Doc  `json:"published"`
	Error     string      `json:"error,omitempty"`
	Hint      string      `json:"hint,omitempty"`
	Exit      int         `json:"exit_status"`
}

func runTLSA(ctx context.Context, c *call) error {
	d := &deployment{c: c}
	defer d.close()
	if d.timeout() <= 0 {
		return usageError("--timeout: %s is no time to work in", d.timeout())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d.timeout(), fmt.Errorf("the time is up (--timeout %s)", d.timeout()))
	defer cancel()
	hosts, cert, err := d.tlsaSubject(ctx)
	if err != nil {
		return err
	}
	resolver, err := c.resolver()
	if err != nil {
		return err
	}
	var doc tlsaDoc
	if d.flag("next") {
		key, kerr := c.preparedKey(hosts[0])
		if kerr != nil {
			return kerr
		}
		doc, err = describeNext(key, tlsa.LookUp(ctx, resolver, hosts, nil))
	} else {
		chain, cerr := hook.ReadChain(cert)
		if cerr != nil {
			return cerr
		}
		roots, rerr := d.c.pool("roots")
		if rerr != nil {
			return rerr
		}
		doc, err = describeChain(cert, chain, hook.Rules{Roots: roots}.Root(chain), tlsa.LookUp(ctx, resolver, hosts, chain))
	}
	return c.print(doc, err)
}

// tlsaSubject is which hosts and which file it is about. The front is asked only
// for what the flags do not say.
func (d *deployment) tlsaSubject(ctx context.Context) (hosts []string, cert string, err error) {
	lineage, cert := d.c.text("lineage"), d.c.text("cert")
	if lineage != "" && cert != "" || d.flag("next") && (lineage != "" || cert != "") {
		return nil, "", usageError("name at most one of --lineage DIR, --cert FILE and --next")
	}
	if lineage != "" {
		cert = hook.LineageSource(lineage).CertFile
	}
	names, _ := d.c.fs.GetStringSlice("hostname")
	if len(names) == 0 || cert == "" && !d.flag("next") {
		if err := d.locate(ctx); err != nil {
			return nil, "", err
		}
		names = d.target.facts.Hostnames
		cert = firstNonEmpty(cert, filepath.Join(d.target.facts.CertsDir, d.target.facts.CertName))
	}
	if hosts = tlsa.MailHosts(names); len(hosts) == 0 {
		return nil, "", say.Hint(usageErr{"no hostname of the mail server is known"}, "name it: --hostname mail.example.com")
	}
	return hosts, cert, nil
}

// preparedKey is the public half of the key that renew --next-key prepared.
func (c *call) preparedKey(host string) (spki []byte, err error) {
	state, err := acme.OpenExisting(c.text("state-dir"))
	if err == nil {
		defer state.Close()
		var lineage *acme.Lineage
		if lineage, err = state.Lineage(acme.Request{Names: []string{host}}.LineageName()); err == nil {
			spki, _, err = lineage.PreparedKey()
		}
	}
	if err == nil && spki == nil || errors.Is(err, fs.ErrNotExist) {
		return nil, say.Hint(fmt.Errorf("no key is prepared for %s in %s", host, c.text("state-dir")), "mailu-hook renew --next-key makes one")
	}
	return spki, err
}

// describeChain lists the records of a chain and of the root that it leads to but
// does not hold. The error is that what is published does not match the chain, or
// could not be looked up.
func describeChain(cert string, chain []*x509.Certificate, root *x509.Certificate, hosts []tlsa.Host) (tlsaDoc, error) {
	doc := tlsaDoc{
		Cert: cert, SHA256: pki.Fingerprint(chain[0]),
		Records: tlsa.Lines(hosts, chain, root), Published: tlsa.Docs(hosts),
	}
	if held := tlsa.Auto.Rule(hosts).Objection; held != nil {
		held.File, held.Leaf = cert, chain[0]
		return doc, held
	}
	return doc, unknown(hosts)
}

// describeNext lists the record of a key that no certificate has yet. That it is
// not published yet is not an error.
func describeNext(spki []byte, hosts []tlsa.Host) (tlsaDoc, error) {
	next := dane.OfKey(spki)
	return tlsaDoc{Records: tlsa.NextLines(hosts, next), Published: tlsa.Publishes(hosts, next)}, unknown(hosts)
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

// print writes the document, and returns the error that decides the exit status.
func (c *call) print(doc tlsaDoc, err error) error {
	if c.text("output") != "json" {
		if _, werr := fmt.Fprint(c.stdout, doc.text()); werr != nil {
			return fmt.Errorf("writing the result: %w", werr)
		}
		return err
	}
	doc.Exit = exitStatus(err)
	if err != nil {
		doc.Error, doc.Hint = err.Error(), say.HintOf(err)
		writeError(c.stderr, err)
		err = &reportedError{err}
	}
	out := json.NewEncoder(c.stdout)
	out.SetIndent("", "  ")
	if werr := out.Encode(doc); werr != nil {
		return fmt.Errorf("writing the result: %w", werr)
	}
	return err
}

func (doc *tlsaDoc) text() string { return tlsa.Zone(doc.Cert, doc.Records, doc.Published) }
