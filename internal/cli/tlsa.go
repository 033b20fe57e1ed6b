package cli

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/acme"
	"mailu-hook/hook"
	"mailu-hook/internal/dane"
	"mailu-hook/internal/say"
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
	Cert      string    `json:"cert,omitempty"`
	SHA256    string    `json:"leaf_sha256,omitempty"`
	Records   []lineDoc `json:"records"`
	Published []daneDoc `json:"published"`
	Error     string    `json:"error,omitempty"`
	Hint      string    `json:"hint,omitempty"`
	Exit      int       `json:"exit_status"`
}

// lineDoc is a record of one host.
type lineDoc struct {
	Host   string `json:"host"`
	Record string `json:"record"`
	Line   string `json:"line"`
	Of     string `json:"of"` // leaf, issuer, root or next
	Name   string `json:"subject,omitempty"`
	Sent   bool   `json:"sent"` // in the handshake: only then can it match
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
		doc, err = describeNext(key, lookUp(ctx, resolver, hosts, nil))
	} else {
		chain, cerr := hook.ReadChain(cert)
		if cerr != nil {
			return cerr
		}
		roots, rerr := d.c.pool("roots")
		if rerr != nil {
			return rerr
		}
		doc, err = describeChain(cert, chain, hook.Rules{Roots: roots}.Root(chain), lookUp(ctx, resolver, hosts, chain))
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
	if hosts = mailHosts(names); len(hosts) == 0 {
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

// describeChain lists the records of a chain, and of the root that it leads to
// but does not hold, and says whether what is published fits.
func describeChain(cert string, chain []*x509.Certificate, root *x509.Certificate, all []published) (tlsaDoc, error) {
	doc := tlsaDoc{Cert: cert, SHA256: fmt.Sprintf("%x", sha256.Sum256(chain[0].Raw)), Published: daneDocs(all)}
	var wrong, unknown, missing []string
	for _, p := range all {
		doc.add(p, "leaf", chain[0], dane.OfLeaf(chain[0]))
		for _, issuer := range chain[1:] {
			doc.add(p, "issuer", issuer, dane.OfIssuer(issuer))
		}
		if root != nil {
			doc.add(p, "root", root, dane.OfIssuer(root))
		}
		switch p.state() {
		case "mismatch":
			wrong, missing = append(wrong, p.host), append(missing, p.lacks(chain))
		case "unknown":
			unknown = append(unknown, p.err.Error())
		}
	}
	switch {
	case wrong != nil:
		return doc, &hook.Rejection{File: cert, Leaf: chain[0], Fact: fmt.Sprintf("the TLSA records of %s do not match it", quoteList(wrong)),
			Remedy: "publish, beside what is there: " + strings.Join(missing, "; ")}
	case unknown != nil:
		return doc, uncheckable(unknown)
	}
	return doc, nil
}

func uncheckable(reasons []string) error {
	return say.Hint(fmt.Errorf("what is published could not be found out: %s", strings.Join(reasons, "; ")), "name another resolver: --resolver ADDR")
}

// describeNext lists the record of a key that no certificate has yet. A record
// that is not published yet is no error.
func describeNext(spki []byte, all []published) (tlsaDoc, error) {
	doc := tlsaDoc{Published: daneDocs(all)}
	next := dane.OfKey(spki)
	var unknown []string
	for i, p := range all {
		doc.Records = append(doc.Records, lineDoc{Host: p.host, Record: next.String(), Line: p.zoneLine(next), Of: "next"})
		if p.err != nil {
			unknown = append(unknown, p.err.Error())
			continue
		}
		doc.Published[i].State = "not published"
		for _, r := range p.Records {
			if r.Equal(next) {
				doc.Published[i].State, doc.Published[i].Matches = "published", next.String()
			}
		}
	}
	if unknown != nil {
		return doc, uncheckable(unknown)
	}
	return doc, nil
}

func (doc *tlsaDoc) add(p published, of string, c *x509.Certificate, r dane.Record) {
	doc.Records = append(doc.Records, lineDoc{
		Host: p.host, Record: r.String(), Line: p.zoneLine(r), Of: of, Name: say.Plain(c.Subject.String()), Sent: of != "root",
	})
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

// text is the document as lines of a zone file: whatever is no record to publish
// is a comment.
func (doc *tlsaDoc) text() string {
	var s strings.Builder
	for _, r := range doc.Records {
		switch r.Of {
		case "leaf":
			fmt.Fprintf(&s, "; %s: the key of %s\n%s\n", r.Host, say.Plain(doc.Cert), r.Line)
		case "issuer":
			fmt.Fprintf(&s, "; %s: the key of %s, which is sent\n%s\n", r.Host, r.Name, r.Line)
		case "root":
			fmt.Fprintf(&s, "; %s: the root %s is not sent, so its record cannot match (RFC 7671,\n; section 5.2.2); mailu-hook install --append-root auto sends it\n; %s\n", r.Host, r.Name, r.Line)
		case "next":
			fmt.Fprintf(&s, "; %s: the key that is prepared\n%s\n", r.Host, r.Line)
		}
	}
	for _, p := range doc.Published {
		fmt.Fprintf(&s, "; %s: %s", p.Host, p.State)
		switch {
		case p.Matches != "":
			fmt.Fprintf(&s, " (%s, TTL %s)", p.Matches, time.Duration(p.TTL)*time.Second)
		case p.Error == "" && len(p.Records) > 0:
			fmt.Fprintf(&s, " (%s)", quoteList(p.Records))
		}
		s.WriteString("\n")
	}
	return s.String()
}
