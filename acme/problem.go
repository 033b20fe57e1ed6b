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

// Problem is what a CA said against a request, as a problem document (RFC 9457,
// RFC 8555 section 6.7).
type Problem struct {
	Type       string // without its namespace: rateLimited, unauthorized, …
	Detail     string
	Identifier string    // the name that it concerns, "" if none
	Status     int       // of HTTP, where a request was refused; 0 for what came inside an order or a challenge
	Until      time.Time // before which the CA wants no other try; zero if it did not say
}

func (p *Problem) Error() string {
	about := ""
	if p.Identifier != "" {
		about = " for " + say.Plain(p.Identifier)
	}
	text := fmt.Sprintf("the CA answered %s%s: %s", say.Plain(p.Type), about, say.Foreign(p.Detail))
	if !p.Until.IsZero() {
		text += ", until " + p.Until.UTC().Format(time.RFC3339)
	}
	return text
}

// hints are the remedies for the common types of problem (RFC 8555, section 6.7;
// RFC 8659; the profiles draft).
var hints = map[string]string{
	"dns":                     "the CA could not look the name up: does it have an A or AAAA record (for --challenge dns, the TXT record), and do all its name servers answer?",
	"connection":              "the CA could not connect to the name: are port 80 (for tls-alpn 443) open to the Internet, and does every A and AAAA record lead to this host?",
	"unauthorized":            "the CA connected, and did not find the answer: does each A and AAAA record of the name lead to this front, and is there no proxy before it?",
	"incorrectResponse":       "the CA connected, and did not find the answer: does each A and AAAA record of the name lead to this front, and is there no proxy before it?",
	"caa":                     "a CAA record of the name, or of a domain above it, allows other CAs only: add this one, or remove the record",
	"rateLimited":             "the CA counts requests; the next run waits as long as it said. Try with --staging meanwhile",
	"rejectedIdentifier":      "the CA does not issue for this name: correct HOSTNAMES in mailu.env, or name the right ones with --hostname",
	"unsupportedIdentifier":   "the CA does not issue for names of this kind; an IP address needs --profile, at Let's Encrypt shortlived",
	"externalAccountRequired": "the CA wants an account of its own: --eab-kid ID --eab-hmac-file FILE, as its website gives them",
	"invalidProfile":          "the CA does not know this --profile; its documentation lists them",
	"userActionRequired":      "the terms of service have changed: read them, and run again with --agree-tos",
	"accountDoesNotExist":     noAccount,
	"badCSR":                  "the CA does not accept this key or this set of names: try another --key-type",
	"serverInternal":          "the fault is the CA's: the next run tries again; its status page may tell more",
}

const noAccount = "the CA does not know the account, or has ended it: 'mailu-hook account deactivate' makes room for a new one, which the next renew --agree-tos makes"

// Hint is the remedy, "" for a type of which none is known.
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

// explain turns an error of lego into one of ours: a *Problem where the CA sent
// one, and never the text of a whole page.
func (c *Client) explain(err error, doing, identifier string) error {
	if err == nil {
		return nil
	}
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
		err = say.Hint(fmt.Errorf("%s: %w", doing, page), "is %s the URL of an ACME directory, and no proxy in between? If it is: the fault is the CA's, and the next run tries again", c.o.Directory)
	case errors.As(err, &syntax), errors.As(err, &shape):
		err = say.Hint(fmt.Errorf("%s: the server does not speak ACME: %s", doing, say.Foreign(err.Error())),
			"is --server the URL of an ACME directory, and no proxy in between? %s", c.o.Directory)
	default:
		err = say.Hint(fmt.Errorf("%s: %s", doing, say.Plain(err.Error())),
			"can this host reach %s, and is that an ACME directory? (a CA of your own needs --ca-file)", c.o.Directory)
	}
	return err
}

// stopped is the error of a run whose time is up, or that was told to end.
func (c *Client) stopped(doing string) error {
	err := fmt.Errorf("%s: %w", doing, c.cause())
	if errors.Is(c.ctx.Err(), context.Canceled) {
		return say.Hint(err, "the next run goes on from here, and need not wait")
	}
	return say.Hint(err, "is %s slow or down? The next run goes on from here", c.o.Directory)
}

// isProblem tells whether err is a problem of that type.
func isProblem(err error, kind string) bool {
	var p *Problem
	return errors.As(err, &p) && p.Type == kind
}
