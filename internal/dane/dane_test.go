package dane

import (
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// issuer is a CA and what a server of it sends.
type issuer struct {
	ca   *mint.CA
	leaf *x509.Certificate
	key  crypto.Signer
}

func newPKI(t testing.TB, leaf mint.Leaf) issuer {
	t.Helper()
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	pair, err := ca.Issue(leaf)
	require.NoError(t, err)
	return issuer{ca, pair.Cert, pair.Key}
}

func (p issuer) sent() []*x509.Certificate { return []*x509.Certificate{p.leaf, p.ca.Issuer} }

// record is the record of c with these fields.
func record(usage, selector, matching uint8, c *x509.Certificate) Record {
	r := Record{Usage: usage, Selector: selector, Matching: matching, Data: c.Raw}
	if selector == SPKI {
		r.Data = c.RawSubjectPublicKeyInfo
	}
	switch matching {
	case SHA256:
		r.Data = sum256(r.Data)
	case SHA512:
		r.Data = sum512(r.Data)
	}
	return r
}

func sum256(data []byte) []byte { sum := sha256.Sum256(data); return sum[:] }
func sum512(data []byte) []byte { sum := sha512.Sum512(data); return sum[:] }

// parse reads a record as a zone file has it (RFC 6698, section 2.2).
func parse(t testing.TB, text string) Record {
	t.Helper()
	var r Record
	var data string
	_, err := fmt.Sscanf(text, "%d %d %d %s", &r.Usage, &r.Selector, &r.Matching, &data)
	require.NoError(t, err)
	r.Data, err = hex.DecodeString(data)
	require.NoError(t, err)
	return r
}

// judgement is a case that the RFCs decide; OpenSSL decides it too, in
// oracle_test.go.
type judgement struct {
	records []Record
	chain   []*x509.Certificate
	want    Verdict
}

// judgements also returns the keys of the leaves, by the leaf.
func judgements(t *testing.T) (map[string]judgement, map[string]crypto.Signer) {
	t.Helper()
	p, other := newPKI(t, mint.Leaf{}), newPKI(t, mint.Leaf{})
	sent, withRoot := p.sent(), append(p.sent(), p.ca.Root)
	expired := newPKI(t, mint.Leaf{NotAfter: time.Now().Add(-time.Hour)})
	elsewhere := newPKI(t, mint.Leaf{Names: []string{"www.example.org"}})
	contradicting := newPKI(t, mint.Leaf{Edit: func(c *x509.Certificate) { // another authority key (RFC 5280, section 4.2.1.1)
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 35}, Value: []byte{48, 6, 128, 4, 1, 2, 3, 4}}}
	}})
	one := func(r Record) []Record { return []Record{r} }
	cases := map[string]judgement{
		"no record": {nil, sent, None},

		"another leaf":                  {one(OfLeaf(other.leaf)), sent, Mismatch},
		"usage 3 of the issuer":         {one(record(EE, SPKI, SHA256, p.ca.Issuer)), sent, Mismatch},
		"usage 2 of the leaf":           {one(record(TA, SPKI, SHA256, p.leaf)), sent, Mismatch},
		"usage 2 of the leaf, in full":  {one(record(TA, Cert, Full, p.leaf)), sent, Mismatch},
		"usage 3, expired":              {one(OfLeaf(expired.leaf)), expired.sent(), Match},
		"usage 3, other name":           {one(OfLeaf(elsewhere.leaf)), elsewhere.sent(), Match},
		"usage 2, expired":              {one(OfIssuer(expired.ca.Issuer)), expired.sent(), Mismatch},
		"usage 2, other name":           {one(OfIssuer(elsewhere.ca.Issuer)), elsewhere.sent(), Mismatch},
		"key, not certificate":          {one(Record{EE, Cert, SHA256, sum256(p.leaf.RawSubjectPublicKeyInfo)}), sent, Mismatch},
		"root not sent":                 {one(OfIssuer(p.ca.Root)), sent, Mismatch},
		"root's certificate not sent":   {one(record(TA, Cert, SHA256, p.ca.Root)), sent, Mismatch},
		"root sent":                     {one(OfIssuer(p.ca.Root)), withRoot, Match},
		"root in full, not sent":        {one(record(TA, Cert, Full, p.ca.Root)), sent, Match},
		"root's key, not sent":          {one(record(TA, SPKI, Full, p.ca.Root)), sent, Match},
		"another root in full":          {one(record(TA, Cert, Full, other.ca.Root)), sent, Mismatch},
		"another root's key":            {one(record(TA, SPKI, Full, other.ca.Root)), sent, Mismatch},
		"issuer sent":                   {one(OfIssuer(p.ca.Issuer)), sent, Match},
		"issuer that is contradicted":   {one(OfIssuer(contradicting.ca.Issuer)), contradicting.sent(), Mismatch},
		"issuer not sent":               {one(OfIssuer(p.ca.Issuer)), sent[:1], Mismatch},
		"issuer's key, not sent":        {one(record(TA, SPKI, Full, p.ca.Issuer)), sent[:1], Match},
		"root in full, issuer missing":  {one(record(TA, Cert, Full, p.ca.Root)), sent[:1], Mismatch},
		"a CA that is sent for nothing": {one(OfIssuer(other.ca.Issuer)), append(p.sent(), other.ca.Issuer), Mismatch},

		"usage 0":                 {one(record(0, SPKI, SHA256, p.ca.Issuer)), sent, Unusable},
		"usage 1":                 {one(record(1, SPKI, SHA256, p.leaf)), sent, Unusable},
		"usage 4":                 {one(record(4, SPKI, SHA256, p.leaf)), sent, Unusable},
		"usage 255":               {one(record(255, SPKI, SHA256, p.leaf)), sent, Unusable},
		"selector 2":              {one(Record{EE, 2, SHA256, sum256(p.leaf.Raw)}), sent, Unusable},
		"matching type 3":         {one(Record{EE, SPKI, 3, sum256(p.leaf.RawSubjectPublicKeyInfo)}), sent, Unusable},
		"digest a byte short":     {one(Record{EE, SPKI, SHA256, make([]byte, 31)}), sent, Unusable},
		"digest a byte long":      {one(Record{EE, SPKI, SHA256, make([]byte, 33)}), sent, Unusable},
		"SHA-256 as SHA-512":      {one(Record{EE, SPKI, SHA512, make([]byte, 32)}), sent, Unusable},
		"no data":                 {one(Record{EE, SPKI, SHA256, nil}), sent, Unusable},
		"no certificate in full":  {one(Record{TA, Cert, Full, []byte("x")}), sent, Unusable},
		"no key in full":          {one(Record{TA, SPKI, Full, nil}), sent, Unusable},
		"one of them usable":      {[]Record{record(1, SPKI, SHA256, p.leaf), OfLeaf(p.leaf)}, sent, Match},
		"the usable one is wrong": {[]Record{record(1, SPKI, SHA256, p.leaf), OfLeaf(other.leaf)}, sent, Mismatch},
		"one of them right":       {[]Record{OfLeaf(other.leaf), OfLeaf(p.leaf)}, sent, Match},

		"a stronger digest that is wrong":          {[]Record{OfLeaf(p.leaf), record(EE, SPKI, SHA512, other.leaf)}, sent, Mismatch},
		"a stronger digest that is right":          {[]Record{OfLeaf(other.leaf), record(EE, SPKI, SHA512, p.leaf)}, sent, Match},
		"a stronger digest of the other selector":  {[]Record{OfLeaf(p.leaf), record(EE, Cert, SHA512, other.leaf)}, sent, Match},
		"a stronger digest of the other usage":     {[]Record{OfLeaf(p.leaf), record(TA, SPKI, SHA512, other.leaf)}, sent, Match},
		"a stronger digest that is malformed":      {[]Record{OfLeaf(p.leaf), {EE, SPKI, SHA512, make([]byte, 63)}}, sent, Match},
		"a digest beside the data":                 {[]Record{OfLeaf(other.leaf), record(EE, SPKI, Full, p.leaf)}, sent, Match},
		"a stronger digest beside the weaker data": {[]Record{record(EE, SPKI, Full, p.leaf), record(EE, SPKI, SHA512, other.leaf)}, sent, Match},
	}
	for _, matching := range []uint8{Full, SHA256, SHA512} {
		for _, selector := range []uint8{Cert, SPKI} {
			cases[fmt.Sprintf("3 %d %d", selector, matching)] = judgement{one(record(EE, selector, matching, p.leaf)), sent, Match}
			cases[fmt.Sprintf("2 %d %d", selector, matching)] = judgement{one(record(TA, selector, matching, p.ca.Issuer)), sent, Match}
			cases[fmt.Sprintf("3 %d %d, another", selector, matching)] = judgement{one(record(EE, selector, matching, other.leaf)), sent, Mismatch}
			cases[fmt.Sprintf("2 %d %d, another", selector, matching)] = judgement{one(record(TA, selector, matching, other.ca.Issuer)), sent, Mismatch}
		}
	}
	keys := map[string]crypto.Signer{}
	for _, p := range []issuer{p, other, expired, elsewhere, contradicting} {
		keys[string(p.leaf.Raw)] = p.key
	}
	return cases, keys
}

func TestRecordsAreJudgedAsTheRFCsHaveIt(t *testing.T) {
	cases, _ := judgements(t)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			verdict, by := Judge(c.records, c.chain, []string{"mail.example.com"}, time.Now())
			assert.Equal(t, c.want, verdict)
			if verdict == Match {
				assert.Contains(t, c.records, by)
			} else {
				assert.Zero(t, by)
			}
		})
	}
}

func TestAnyOfTheNamesWillDoForUsage2(t *testing.T) {
	p := newPKI(t, mint.Leaf{Names: []string{"mx.example.net"}})
	records := []Record{OfIssuer(p.ca.Issuer)}
	verdict, _ := Judge(records, p.sent(), []string{"mail.example.com", "mx.example.net"}, time.Now())
	assert.Equal(t, Match, verdict)
	verdict, _ = Judge(records, p.sent(), nil, time.Now())
	assert.Equal(t, Mismatch, verdict)
}

// Whatever is published, what we tell people to add makes the chain match.
func TestWhatIsToBePublishedMakesTheChainMatch(t *testing.T) {
	cases, _ := judgements(t)
	for name, c := range cases {
		add := ToPublish(c.records, c.chain, []string{"mail.example.com"}, time.Now())
		verdict, _ := Judge(append(c.records, add), c.chain, []string{"mail.example.com"}, time.Now())
		assert.Equal(t, Match, verdict, "%s: %s", name, add)
	}
}

func TestARecordOfTheLeafIsAdvisedUnlessAllAreOfIssuers(t *testing.T) {
	p, other := newPKI(t, mint.Leaf{}), newPKI(t, mint.Leaf{})
	leaf, issuer := OfLeaf(other.leaf), OfIssuer(other.ca.Issuer)
	for _, c := range []struct {
		published []Record
		want      Record
	}{
		{nil, OfLeaf(p.leaf)},
		{[]Record{leaf}, OfLeaf(p.leaf)},
		{[]Record{leaf, issuer}, OfLeaf(p.leaf)},
		{[]Record{issuer}, OfIssuer(p.ca.Issuer)},
		{[]Record{issuer, record(1, SPKI, SHA256, other.leaf)}, OfIssuer(p.ca.Issuer)},
		{[]Record{record(TA, SPKI, SHA512, other.ca.Root)}, record(TA, SPKI, SHA512, p.ca.Issuer)},
	} {
		assert.Equal(t, c.want, ToPublish(c.published, p.sent(), []string{"mail.example.com"}, time.Now()), "%v", c.published)
	}
}

func TestAnIssuerThatExpiresFirstEndsUsage2(t *testing.T) {
	ca, err := mint.NewCA(mint.CAOptions{NotAfter: time.Now().Add(24 * time.Hour)})
	require.NoError(t, err)
	pair, err := ca.Issue(mint.Leaf{})
	require.NoError(t, err)
	sent := []*x509.Certificate{pair.Cert, ca.Issuer}
	for at, want := range map[time.Duration]Verdict{0: Match, 48 * time.Hour: Mismatch} {
		verdict, _ := Judge([]Record{OfIssuer(ca.Issuer)}, sent, []string{"mail.example.com"}, time.Now().Add(at))
		assert.Equal(t, want, verdict, "in %s", at)
	}
}

func TestARecordReadsAsInAZoneFile(t *testing.T) {
	p := newPKI(t, mint.Leaf{})
	for _, r := range []Record{OfLeaf(p.leaf), OfIssuer(p.ca.Issuer), OfKey(p.leaf.RawSubjectPublicKeyInfo)} {
		assert.True(t, r.Usable())
		assert.Equal(t, r, parse(t, r.String()))
	}
	assert.True(t, strings.HasPrefix(OfLeaf(p.leaf).String(), "3 1 1 "))
	assert.True(t, strings.HasPrefix(OfIssuer(p.leaf).String(), "2 1 1 "))
	assert.Equal(t, OfLeaf(p.leaf), OfKey(p.leaf.RawSubjectPublicKeyInfo))
	assert.Equal(t, "_25._tcp.mail.example.com.", Owner("mail.example.com"))
	assert.True(t, OfLeaf(p.leaf).Equal(OfLeaf(p.leaf)))
	assert.False(t, OfLeaf(p.leaf).Equal(OfIssuer(p.leaf)))
}

// FuzzJudge: whatever a zone publishes, the verdict is one that its own records
// explain, and a record that nobody can use changes nothing.
func FuzzJudge(f *testing.F) {
	p := newPKI(f, mint.Leaf{})
	for _, c := range []*x509.Certificate{p.leaf, p.ca.Issuer, p.ca.Root} {
		for _, usage := range []uint8{0, 1, 2, 3, 255} {
			for _, matching := range []uint8{Full, SHA256, SHA512, 3} {
				f.Add(usage, uint8(Cert), matching, record(usage, Cert, matching, c).Data)
				f.Add(usage, uint8(SPKI), matching, record(usage, SPKI, matching, c).Data)
			}
		}
	}
	f.Add(uint8(EE), uint8(SPKI), uint8(SHA256), []byte{})
	f.Add(uint8(TA), uint8(Cert), uint8(Full), p.ca.Root.Raw[:len(p.ca.Root.Raw)-1])
	names := []string{"mail.example.com"}
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		r := Record{usage, selector, matching, data}
		for _, chain := range [][]*x509.Certificate{p.sent(), p.sent()[:1], append(p.sent(), p.ca.Root), nil} {
			verdict, by := Judge([]Record{r}, chain, names, time.Now())
			if !r.Usable() {
				require.Equal(t, Unusable, verdict)
			} else {
				require.Equal(t, verdict == Match, r.Equal(by) && len(chain) > 0 && verdict != Mismatch)
			}
			if len(chain) == 0 {
				continue
			}
			beside, _ := Judge([]Record{r, OfLeaf(chain[0])}, chain, names, time.Now())
			if overruled := r.Usable() && usage == EE && selector == SPKI && matching == SHA512 && verdict != Match; overruled {
				require.Equal(t, Mismatch, beside)
			} else {
				require.Equal(t, Match, beside)
			}
		}
		if len(data) > 0 {
			require.Equal(t, r, parse(t, r.String()))
		}
	})
}
