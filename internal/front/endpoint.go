package front

// Endpoint is what one TLS port showed when it was asked.
type Endpoint struct {
	Port
	Leaf string // SHA-256 of the leaf it showed, lower-case hex; "" if it completed no handshake
	Err  error  // why it did not; nil when Leaf is set
}

// Answers tells whether the port completed a TLS handshake.
func (e Endpoint) Answers() bool { return e.Leaf != "" }

// AnyAnswers tells whether at least one port did.
func AnyAnswers(endpoints []Endpoint) bool {
	for _, e := range endpoints {
		if e.Answers() {
			return true
		}
	}
	return false
}

// Refusal is the front's verdict on the installed pair: it would not load it,
// or was told to and serves something else. Any other error of the front's
// driver means that it could not be told or asked, and is no verdict.
type Refusal struct{ Err error }

func (r *Refusal) Error() string { return r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }
