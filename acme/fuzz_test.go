package acme

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
)

// FuzzRetryAfter: whatever the header says, it is no time in the past, and no
// overflow puts what is due after it before now.
func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "0", "120", "-1", "1.5", "2147483648", "99999999999999999999", "Tue, 24 Nov 2026 07:10:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "Sat, 01 Jan 0000 00:00:00 GMT", "\x00"} {
		f.Add(seed)
	}
	now := at("2026-11-24T07:00:00Z")
	f.Fuzz(func(t *testing.T, value string) {
		wait := retryAfter(http.Header{"Retry-After": {value}}, now)
		assert.GreaterOrEqual(t, wait, time.Duration(0))
		assert.False(t, now.Add(wait).Before(now))
		l := &Lineage{}
		l.limit(Request{}, &Problem{Type: "rateLimited", Until: now.Add(wait)}, now)
		assert.LessOrEqual(t, l.Limits[""].Until.Sub(now), longestLimit)
		assert.GreaterOrEqual(t, clamp(wait), leastInterval)
		assert.LessOrEqual(t, clamp(wait), longestInterval)
	})
}

// FuzzChain: what is taken for a chain is one, and is written as it was read.
func FuzzChain(f *testing.F) {
	ca, err := testCA()
	if err != nil {
		f.Fatal(err)
	}
	pair, err := ca.Issue(mint.Leaf{})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{nil, pair.Chain, pair.LeafPEM, pair.KeyPEM, append([]byte("text\n"), pair.Chain...), bytes.ReplaceAll(pair.Chain, []byte("\n"), []byte("\r\n")), pair.Chain[:len(pair.Chain)-40]} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		chain, err := pki.ParseChain(data)
		if err != nil {
			assert.Nil(t, chain)
			return
		}
		assert.NotEmpty(t, chain)
		written := pki.EncodeChain(chain...)
		again, err := pki.ParseChain(written)
		assert.NoError(t, err)
		assert.Equal(t, written, pki.EncodeChain(again...))
		missing(chain[0], []string{"mail.example.com"})
	})
}

// FuzzNames: a name that is accepted is safe as the name of a file, of a lineage
// and of a host, and is the same however often it is made canonical.
func FuzzNames(f *testing.F) {
	for _, seed := range []string{"mail.example.com", "*.example.com", "MÄIL.example.com", "192.0.2.1", "2001:DB8::1", "fe80::1%eth0", "..", "a/b", "*.", "::ffff:1.2.3.4", "*.192.0.2.1", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, given string) {
		names := CanonicalNames([]string{given})
		for _, method := range []Method{Front, DNS} {
			for _, private := range []bool{false, true} {
				if CheckNames(names, method, "shortlived", private) != nil {
					continue
				}
				assert.Equal(t, names, CanonicalNames(names))
				lineage := Request{Names: names}.LineageName()
				assert.NotEmpty(t, lineage)
				assert.False(t, strings.ContainsAny(lineage, "/\x00*\\ %") || strings.HasPrefix(lineage, "."), "%q", lineage)
			}
		}
	})
}

// FuzzToken: what is taken for a token is safe as the name of a file and in a URL.
func FuzzToken(f *testing.F) {
	for _, seed := range []string{"", "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA", "..", "a/b", "a\n", "a\x00", strings.Repeat("a", 201)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if base64url().MatchString(token) {
			assert.Regexp(t, `\A[A-Za-z0-9_-]{1,200}\z`, token)
		}
	})
}

// FuzzRecordOnDisk: whatever is remembered of a lineage, nobody waits for longer
// than the longest time, and nothing overflows.
func FuzzRecordOnDisk(f *testing.F) {
	f.Add([]byte(`{"failures":-5,"next":"2026-11-24T07:00:00Z","limited":"9999-12-31T00:00:00Z","renewal_info":{"leaf":"x","draw":"0001-01-01T00:00:00Z"}}`))
	f.Add([]byte(`{"failures":9223372036854775807}`))
	f.Add([]byte(`null`))
	state, err := OpenState(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(state.Close)
	ca, err := testCA()
	if err != nil {
		f.Fatal(err)
	}
	pair, err := ca.Issue(mint.Leaf{})
	if err != nil {
		f.Fatal(err)
	}
	now := time.Now()
	f.Fuzz(func(t *testing.T, data []byte) {
		dir, err := state.make(renewalName, "mail.example.com")
		assert.NoError(t, err)
		defer dir.Close()
		assert.NoError(t, dir.Replace(recordFile, data, 0o600))
		l, err := state.Lineage("mail.example.com")
		if err != nil {
			return
		}
		l.Leaf = pair.Cert
		want := Request{Directory: l.Directory, Names: append([]string{"mail.example.com"}, l.Names...), Key: EC256, Profile: l.Profile}
		for _, force := range []bool{false, true} {
			due := l.Due(want, now, force)
			assert.LessOrEqual(t, l.Wait(due, want, DefaultInterval, now).Until.Sub(now), longestLimit)
		}
		l.fail(want, ErrFailed, now)
		assert.Positive(t, l.Failures)
		assert.True(t, l.Next.After(now))
	})
}
