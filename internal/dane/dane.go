// Package dane judges TLSA records against the chain that a mail server sends
// on port 25, as a sending server does that implements RFC 6698, 7671 and 7672.
// It does no lookups; package resolve does.
//
// A mail server that wants senders to insist on TLS, and on its own certificate
// rather than on any certificate from any CA, publishes TLSA records in a zone
// signed with DNSSEC, under _25._tcp of its name. Four fields say what must be
// found in the handshake:
//
//   - the usage: 3 (DANE-EE), that the leaf is this one; 2 (DANE-TA), that the
//     chain leads to this issuer. 0 and 1 also require a CA that the sender
//     trusts; between mail servers there is no agreed list of those, so such
//     records are unusable (RFC 7672, section 3.1.3).
//   - the selector: 0, the whole certificate; 1, its public key alone, which
//     survives a renewal that keeps the key.
//   - the matching type: 0, the data itself; 1, its SHA-256; 2, its SHA-512.
//   - the data.
//
// A sender accepts the server if one usable record matches. If there are usable
// records and none matches, it does not deliver: the mail waits in its queue for
// days and then bounces, while everything looks fine from here. If all records
// are unusable it delivers over unauthenticated TLS (RFC 7672, section 2.2); if
// there are none, or they are not validated, it delivers as to any other server.
//
// With usage 3 neither the names nor the dates of the certificate matter (RFC
// 7671, section 5.1). With usage 2 both do, and the issuer's own certificate must
// be in what the server sends, because a sender has only a digest of it
// (section 5.2.2). Roots are usually not sent, so a record of a root matches
// nothing, which is the most common mistake. The exceptions are records that
// contain the issuer itself: its certificate (2 0 0) or its key (2 1 0, section
// 5.2.3).
//
// Of several digests with the same usage and selector a sender uses only the
// strongest kind (section 9). So adding 3 1 1 of the new key to 3 1 2 of the old
// one does not help.
package dane

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"mailu-hook/internal/pki"
	"slices"
	"time"
)

// The values of a record's fields that mean anything on port 25 (RFC 7218 gives
// them these names).
const (
	TA = 2 // usage: an issuer in the chain
	EE = 3 // usage: the leaf

	Cert = 0 // selector: the whole certificate
	SPKI = 1 // selector: its public key

	Full   = 0 // matching type: the data itself
	SHA256 = 1
	SHA512 = 2
)

// Record is the data of one TLSA record.
type Record struct {
	Usage, Selector, Matching uint8
	Data                      []byte
}

// String is the record as a zone file has it after the type.
func (r Record) String() string {
	return fmt.Sprintf("%d %d %d %s", r.Usage, r.Selector, r.Matching, hex.EncodeToString(r.Data))
}

// Equal reports whether both records are the same.
func (r Record) Equal(other Record) bool {
	return r.Usage == other.Usage && r.Selector == other.Selector && r.Matching == other.Matching && bytes.Equal(r.Data, other.Data)
}

// Owner is the name of the records of a host's port 25 (RFC 6698, section 3),
// with the root's dot.
func Owner(host string) string { return "_25._tcp." + host + "." }

// OfLeaf is the record to publish for a leaf: 3 1 1 lasts as long as its key
// (RFC 7671, section 5.1).
func OfLeaf(c *x509.Certificate) Record { return OfKey(c.RawSubjectPublicKeyInfo) }

// OfKey is the record of a leaf that does not exist yet, by its public key in
// DER (SubjectPublicKeyInfo).
func OfKey(spki []byte) Record { return digest(EE, spki) }

// OfIssuer is the record of a CA whose certificate the server sends: 2 1 1
// lasts as long as the CA issues with that key.
func OfIssuer(c *x509.Certificate) Record { return digest(TA, c.RawSubjectPublicKeyInfo) }

func digest(usage uint8, spki []byte) Record {
	sum := sha256.Sum256(spki)
	return Record{usage, SPKI, SHA256, sum[:]}
}

// Usable reports whether a sender can use the record at all. It ignores one that
// is malformed or has an unknown field value (RFC 6698, section 4.1; RFC 7672,
// section 3.1).
func (r Record) Usable() bool {
	if r.Usage != TA && r.Usage != EE || r.Selector != Cert && r.Selector != SPKI {
		return false
	}
	switch r.Matching {
	case SHA256:
		return len(r.Data) == sha256.Size
	case SHA512:
		return len(r.Data) == sha512.Size
	case Full:
		var err error
		if r.Selector == Cert {
			_, err = x509.ParseCertificate(r.Data)
		} else {
			_, err = x509.ParsePKIXPublicKey(r.Data)
		}
		return err == nil
	}
	return false
}

// heeded are the records that decide: the usable ones, without the digests that
// are overruled by a stronger one of the same usage and selector (RFC 7671,
// section 9).
func heeded(records []Record) []Record {
	usable := slices.DeleteFunc(slices.Clone(records), func(r Record) bool { return !r.Usable() })
	return slices.DeleteFunc(slices.Clone(usable), func(r Record) bool {
		return r.Matching == SHA256 && slices.ContainsFunc(usable, func(o Record) bool {
			return o.Usage == r.Usage && o.Selector == r.Selector && o.Matching == SHA512
		})
	})
}

// Verdict is what a sender makes of a set of records and a chain.
type Verdict int

// The verdicts.
const (
	None     Verdict = iota // no record: DANE is not used
	Unusable                // none that can be used: TLS without authentication
	Match
	Mismatch // mail does not arrive
)

// Judge says what a sender makes of records when the server sends chain, leaf
// first, at the time now. For usage 2 to match, the leaf must have one of names,
// those under which the sender looks for the server. The record is the one that
// matched.
func Judge(records []Record, chain []*x509.Certificate, names []string, now time.Time) (Verdict, Record) {
	if len(records) == 0 {
		return None, Record{}
	}
	deciding := heeded(records)
	if len(deciding) == 0 {
		return Unusable, Record{}
	}
	for _, r := range deciding {
		if r.matches(chain, names, now) {
			return Match, r
		}
	}
	return Mismatch, Record{}
}

func (r Record) matches(chain []*x509.Certificate, names []string, now time.Time) bool {
	switch {
	case len(chain) == 0:
		return false
	case r.Usage == EE:
		return r.describes(chain[0])
	}
	if !slices.ContainsFunc(names, func(name string) bool { return chain[0].VerifyHostname(name) == nil }) {
		return false
	}
	for _, c := range chain[1:] {
		if r.describes(c) && leadsTo(c, chain, now) {
			return true
		}
	}
	return r.Matching == Full && r.vouches(chain, now)
}

// describes reports whether the record describes c.
func (r Record) describes(c *x509.Certificate) bool {
	data := c.Raw
	if r.Selector == SPKI {
		data = c.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case SHA256:
		sum := sha256.Sum256(data)
		data = sum[:]
	case SHA512:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return bytes.Equal(r.Data, data)
}

// vouches reports whether the record itself contains the issuer, which then need
// not be sent: its certificate, or only the key that signed the topmost certificate
// (RFC 7671, sections 5.2.2 and 5.2.3).
func (r Record) vouches(chain []*x509.Certificate, now time.Time) bool {
	if r.Selector == Cert {
		anchor, err := x509.ParseCertificate(r.Data)
		return err == nil && !anchor.Equal(chain[0]) && leadsTo(anchor, chain, now)
	}
	key, err := x509.ParsePKIXPublicKey(r.Data)
	if err != nil {
		return false
	}
	top := chain[len(chain)-1]
	issuer := &x509.Certificate{PublicKey: key}
	if issuer.CheckSignature(top.SignatureAlgorithm, top.RawTBSCertificate, top.Signature) != nil {
		return false
	}
	return leadsTo(top, chain, now)
}

// leadsTo reports whether the certificates that are sent form a path from the leaf
// to anchor that is valid now and may be used for that, also for OpenSSL.
func leadsTo(anchor *x509.Certificate, chain []*x509.Certificate, now time.Time) bool {
	roots := x509.NewCertPool()
	roots.AddCert(anchor)
	paths, _ := pki.Paths(chain, roots, now)
	return slices.ContainsFunc(paths, pki.Consistent)
}

// ToPublish is the record to add to those that are published so that chain
// matches: one of the leaf; or, where all records that count are of issuers, one
// of the topmost issuer that is sent, if that is enough.
func ToPublish(published []Record, chain []*x509.Certificate, names []string, now time.Time) Record {
	deciding := heeded(published)
	of := func(usage uint8) bool {
		return slices.ContainsFunc(deciding, func(r Record) bool { return r.Usage == usage })
	}
	if top := chain[len(chain)-1]; of(TA) && !of(EE) && len(chain) > 1 {
		r := beside(deciding, OfIssuer(top), top)
		if verdict, _ := Judge([]Record{r}, chain, names, now); verdict == Match {
			return r
		}
	}
	return beside(deciding, OfLeaf(chain[0]), chain[0])
}

// beside is r with a digest that none of the others overrules.
func beside(others []Record, r Record, c *x509.Certificate) Record {
	if slices.ContainsFunc(others, func(o Record) bool { return o.Usage == r.Usage && o.Selector == r.Selector && o.Matching == SHA512 }) {
		sum := sha512.Sum512(c.RawSubjectPublicKeyInfo)
		r.Matching, r.Data = SHA512, sum[:]
	}
	return r
}
