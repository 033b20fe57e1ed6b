package tlsa

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"mailu-hook/internal/dane"
	"mailu-hook/internal/say"
)

// Doc is a host in the JSON of all commands.
type Doc struct {
	Host    string   `json:"host"`
	State   State    `json:"state"`
	Owner   string   `json:"owner"`
	Records []string `json:"records"`
	Matches string   `json:"matches"`
	TTL     int64    `json:"ttl_seconds"`
	Error   string   `json:"error"`
}

// Docs are the documents of hosts, nil of none.
func Docs(hosts []Host) []Doc {
	var docs []Doc
	for _, h := range hosts {
		doc := Doc{Host: h.Name, State: h.State(), Owner: h.Owner, Records: []string{}, TTL: int64(h.TTL / time.Second)}
		for _, r := range h.Records {
			doc.Records = append(doc.Records, r.String())
		}
		if h.Err != nil {
			doc.Error = h.Err.Error()
		} else if h.Verdict == dane.Match {
			doc.Matches = h.By.String()
		}
		docs = append(docs, doc)
	}
	return docs
}

// Publishes turns the documents of hosts into ones that say whether they publish
// a record, whatever else they publish: their State is "published" or "not
// published".
func Publishes(hosts []Host, r dane.Record) []Doc {
	docs := Docs(hosts)
	for i, h := range hosts {
		switch {
		case h.Err != nil:
		case h.Holds(r):
			docs[i].State, docs[i].Matches = "published", r.String()
		default:
			docs[i].State, docs[i].Matches = "not published", ""
		}
	}
	return docs
}

// Of is whose key a record describes.
type Of string

// The kinds of records that are printed.
const (
	OfLeaf   Of = "leaf"
	OfIssuer Of = "issuer"
	OfRoot   Of = "root"
	OfNext   Of = "next" // the prepared key
)

// Line is a record of one host, as a zone file has it.
type Line struct {
	Host    string `json:"host"`
	Record  string `json:"record"`
	Text    string `json:"line"`
	Of      Of     `json:"of"`
	Subject string `json:"subject,omitempty"`
	Sent    bool   `json:"sent"` // in the handshake: only then can it match
}

// Lines are the records that can be published for a chain, for each host: of the
// leaf, of each issuer that is sent, and of root, which is not sent and may be
// nil.
func Lines(hosts []Host, chain []*x509.Certificate, root *x509.Certificate) []Line {
	var lines []Line
	for _, h := range hosts {
		add := func(of Of, c *x509.Certificate, r dane.Record) {
			lines = append(lines, Line{Host: h.Name, Record: r.String(), Text: h.ZoneLine(r), Of: of, Subject: say.Plain(c.Subject.String()), Sent: of != OfRoot})
		}
		add(OfLeaf, chain[0], dane.OfLeaf(chain[0]))
		for _, issuer := range chain[1:] {
			add(OfIssuer, issuer, dane.OfIssuer(issuer))
		}
		if root != nil {
			add(OfRoot, root, dane.OfIssuer(root))
		}
	}
	return lines
}

// NextLines are the lines of a prepared key's record, for each host.
func NextLines(hosts []Host, next dane.Record) []Line {
	var lines []Line
	for _, h := range hosts {
		lines = append(lines, Line{Host: h.Name, Record: next.String(), Text: h.ZoneLine(next), Of: OfNext})
	}
	return lines
}

// Zone is lines and documents as part of a zone file. What is not to be
// published is a comment. cert names the file with the leaf.
func Zone(cert string, lines []Line, hosts []Doc) string {
	var s strings.Builder
	for _, l := range lines {
		switch l.Of {
		case OfLeaf:
			fmt.Fprintf(&s, "; %s: the key of %s\n%s\n", l.Host, say.Plain(cert), l.Text)
		case OfIssuer:
			fmt.Fprintf(&s, "; %s: the key of %s, which is sent\n%s\n", l.Host, l.Subject, l.Text)
		case OfRoot:
			fmt.Fprintf(&s, "; %s: the root %s is not sent, so its record cannot match (RFC 7671,\n; section 5.2.2); mailu-hook install --append-root auto sends it\n; %s\n", l.Host, l.Subject, l.Text)
		case OfNext:
			fmt.Fprintf(&s, "; %s: the prepared key\n%s\n", l.Host, l.Text)
		}
	}
	for _, h := range hosts {
		fmt.Fprintf(&s, "; %s: %s", h.Host, h.State)
		switch {
		case h.Matches != "":
			fmt.Fprintf(&s, " (%s, TTL %s)", h.Matches, time.Duration(h.TTL)*time.Second)
		case h.Error == "" && len(h.Records) > 0:
			fmt.Fprintf(&s, " (%s)", say.Names(h.Records))
		}
		s.WriteString("\n")
	}
	return s.String()
}
