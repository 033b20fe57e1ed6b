package mailu

import (
	"crypto/x509"
	"errors"
)

// Endpoint is what one TLS port showed when it was asked.
type Endpoint struct {
	Port
	Leaf  string              // SHA-256 of the leaf it showed, lower-case hex; "" without a handshake
	Chain []*x509.Certificate // as it was sent, leaf first; nil without a handshake
	Err   error               // why there was no handshake; nil if Leaf is set
}

// What an Endpoint's Err may wrap. Any other error means that the port could not be
// reached, hung, or broke off.
var (
	ErrClosed  = errors.New("connection refused") // nothing listens there
	ErrSilent  = errors.New("no answer")          // it took the connection, and then said nothing in time
	ErrWithout = errors.New("no TLS")             // the server declined STARTTLS
)

// Answers reports whether the port completed a TLS handshake.
func (e Endpoint) Answers() bool { return e.Leaf != "" }

// AnyAnswers reports whether at least one port did.
func AnyAnswers(endpoints []Endpoint) bool {
	for _, e := range endpoints {
		if e.Answers() {
			return true
		}
	}
	return false
}

// OfFront returns the answers of the front that one of them is of: see Port.Of.
func OfFront(endpoints []Endpoint, of string) (its []Endpoint) {
	for _, e := range endpoints {
		if e.Of == of {
			its = append(its, e)
		}
	}
	return its
}

// Refusal is the front's verdict on the installed pair: it would not load it, or was
// told to load it and serves something else. Any other error of the front's driver
// means that the front could not be told or asked, which is no verdict.
type Refusal struct{ Err error }

func (r *Refusal) Error() string { return r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }
