package acme

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	lego "github.com/go-acme/lego/v4/acme"

	"mailu-hook/internal/say"
)

// Problem is an error reported by a CA in a problem document (RFC 9457; RFC 8555,
// section 6.7).
type Problem struct {
	Type       string // without its namespace: rateLimited, unauthorized, …
	Detail     string
	Identifier string    // the name concerned; may be ""
	Status     int       // HTTP status of a refused request; 0 for an error inside an order or a challenge
	Until      time.Time // before which the CA wants no other try; zero if it did not say
}

func (p *Problem) Error() string {
	about := ""
	if p.Identifier != "" {
		about = " for " + say.Plain(p.Identifier)
	}
	text := fmt.Sprintf("the CA answered %s%s: %s", say.Plain(p.Type), about, say.Foreign(p.Detail))
	if !p.Until.IsZero() {
		text += ", until " + say.Time(p.Until)
	}
	return text
}

// hints are the remedies for the common problem types (RFC 8555, section 6.7; RFC
// 8659; the profiles draft).
var hints = map[string]string{
	"dns":                     "the CA could not look up the name: check that it has an A or AAAA record (the TXT record with --challenge dns) and that all its name servers answer",
	"connection":              "the CA could not connect: check that port 80 (443 with tls-alpn) is open to the Internet and that every A and AAAA record of the name points to this host",
	"unauthorized":            "the CA connected but did not get the challenge response: check that every A and AAAA record of the name points to this front and that no proxy is in between",
	"incorrectResponse":       "the CA connected but did not get the challenge response: check that every A and AAAA record of the name points to this front and that no proxy is in between",
	"caa":                     "a CAA record of the name or of a parent domain allows only other CAs: add this one, or remove the record",
	"rateLimited":             "the CA limits requests, and the next run waits as long as it asked; meanwhile test with --staging",
	"rejectedIdentifier":      "the CA does not issue for this name: correct HOSTNAMES in mailu.env, or set the names with --hostname",
	"unsupportedIdentifier":   "the CA does not issue for this type of name; an IP address needs a profile (Let's Encrypt: --profile shortlived)",
	"externalAccountRequired": "the CA needs an external account: pass --eab-kid ID and --eab-hmac-file FILE with the values from its website",
	"invalidProfile":          "the CA does not know this --profile; its documentation lists the valid ones",
	"userActionRequired":      "the terms of service have changed: read them, then run again with --agree-tos",
	"accountDoesNotExist":     noAccount,
	"badCSR":                  "the CA does not accept this key or this set of names: try another --key-type",
	"serverInternal":          "this is an error at the CA, and the next run tries again; its status page may say more",
}

const noAccount = "the CA does not know the account or has deactivated it: mailu-hook account deactivate removes it; the next renew --agree-tos creates a new one"

// Hint returns the remedy, "" if none is known for the type.
func (p *Problem) Hint() string {
	if p.Type == "unauthorized" && p.Status != 0 { // the account, not a name (RFC 8555, section 7.3.6)
		return noAccount
	}
	return hints[p.Type]
}

func problemOf(doc *lego.ProblemDetails, identifier string) *Problem {
	p := &Problem{Type: kindOf(doc.Type), Detail: doc.Detail, Identifier: identifier}
	for _, sub := range doc.SubProblems { // the first explains as well as all
		if p.Identifier == "" {
			p.Identifier = sub.Identifier.Value
		}
		if p.Type == "compound" || p.Type == "malformed" {
			p.Type = kindOf(sub.Type)
		}
		p.Detail += "; " + sub.Identifier.Value + ": " + sub.Detail
	}
	return p
}

func kindOf(urn string) string {
	if i := strings.LastIndexByte(urn, ':'); i >= 0 {
		return urn[i+1:]
	}
	return urn
}

// explain turns an error of lego into one of ours: a *Problem if the CA sent one,
// and never the text of a whole page.
func (c *Client) explain(err error, doing, identifier string) error {
	if err == nil {
		return nil
	}
	err = c.unmask(err)
	var doc *lego.ProblemDetails
	var page *pageError
	var syntax *json.SyntaxError
	var shape *json.UnmarshalTypeError
	switch {
	case c.ctx.Err() != nil:
		err = c.stopped(doing)
	case errors.As(err, &doc):
		p := problemOf(doc, identifier)
		if p.Status = doc.HTTPStatus; p.Type == "rateLimited" || p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable {
			p.Until = c.http.until(doc.URL)
		}
		err = fmt.Errorf("%s: %w", doing, p)
	case errors.As(err, &page):
		err = say.Hint(fmt.Errorf("%s: %w", doing, page), "check that %s is the URL of an ACME directory and that no proxy is in between; otherwise this is an error at the CA, and the next run tries again", c.o.Directory)
	case errors.As(err, &syntax), errors.As(err, &shape):
		err = say.Hint(fmt.Errorf("%s: the server does not speak ACME: %s", doing, say.Foreign(err.Error())),
			"check that --server is the URL of an ACME directory and that no proxy is in between: %s", c.o.Directory)
	default:
		err = say.Hint(fmt.Errorf("%s: %s", doing, say.Plain(err.Error())),
			"check that this host can reach %s and that it is an ACME directory; a private CA needs --ca-file", c.o.Directory)
	}
	return err
}

// unmask returns what the CA said first if lego gave up on a fault of the CA's.
func (c *Client) unmask(err error) error {
	var doc *lego.ProblemDetails
	if !errors.As(err, &doc) || doc.Type != lego.BadNonceErr {
		return err
	}
	first := c.http.firstFault(doc.URL)
	switch {
	case first == nil:
		return err
	case first.err != nil:
		return first.err
	}
	said := &lego.ProblemDetails{}
	whole := first.response.Body.(answer).whole
	if json.Unmarshal(whole, said) != nil {
		return &pageError{first.response.Status, string(whole), c.http.until(doc.URL)}
	}
	said.URL, said.HTTPStatus = doc.URL, first.response.StatusCode
	return said
}

// stopped is the error of a run that timed out or was told to end.
func (c *Client) stopped(doing string) error {
	err := fmt.Errorf("%s: %w", doing, c.cause())
	if errors.Is(c.ctx.Err(), context.Canceled) {
		return say.Hint(err, "the next run continues from here and does not wait")
	}
	return say.Hint(err, "%s may be slow or down; the next run continues from here", c.o.Directory)
}

// isProblem reports whether err is a problem of that type.
func isProblem(err error, kind string) bool {
	var p *Problem
	return errors.As(err, &p) && p.Type == kind
}
