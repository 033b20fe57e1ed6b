package e2e

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// once meddles with the first request of a kind.
func once(kind string, meddle func(*rig.Exchange)) func(*rig.Exchange) {
	done := false
	return on(kind, func(x *rig.Exchange) {
		if done {
			x.Pass()
			return
		}
		done = true
		meddle(x)
	})
}

// edited lets the CA answer, and changes what it says.
func edited(t *testing.T, edit func(doc map[string]any)) func(*rig.Exchange) {
	return func(x *rig.Exchange) {
		a := x.Forward()
		doc := map[string]any{}
		if assert.NoError(t, json.Unmarshal(a.Body, &doc)) {
			edit(doc)
		}
		a.Body, _ = json.Marshal(doc)
		x.Reply(a)
	}
}

func TestCAThatRefusesToReplaceIsAskedAgainWithoutReplacing(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	for kind, status := range map[string]int{"malformed": 400, "alreadyReplaced": 409, "serverInternal": 500, "unauthorized": 403} {
		if status == 500 && !soak {
			continue // is asked five times before
		}
		s.obtained()
		before, with, without := s.issued(), 0, 0
		s.relay.Meddle(on("newOrder", func(x *rig.Exchange) {
			var order struct{ Replaces string }
			assert.NoError(t, x.Payload(&order))
			if order.Replaces == "" {
				without++
				x.Pass()
				return
			}
			with++
			x.Reply(problem(status, kind, "no such certificate"))
		}))
		require.Equal(t, 0, s.renew("--force", "--min-interval", "1ns").code, kind)
		s.settled(kind)
		assert.Equal(t, before+1, s.issued(), kind)
		assert.NotZero(t, with, kind)
		assert.Equal(t, 1, without, kind)
	}
}

// What a CA does against the protocol or the request is refused, and the next run
// ends well. The short version tries half of it.
func TestWrongResponsesOfTheCAAreRefused(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	other, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	cases := map[string]struct {
		kind   string
		meddle func(*rig.Exchange)
		texts  []string
	}{
		"an order for other names": {"newOrder", edited(t, func(doc map[string]any) {
			doc["identifiers"] = []map[string]string{{"type": "dns", "value": "mail.example.com"}}
		}), []string{"identifiers"}},
		"a certificate of another key": {"certificate", func(x *rig.Exchange) {
			pair, err := other.Issue(mint.Leaf{Names: spoiledNames})
			assert.NoError(t, err)
			x.Reply(rig.Answer{Status: 200, Body: pair.Chain})
		}, []string{"another key"}},
		"no certificate":           {"certificate", always(page(200)), []string{"certificate"}},
		"an empty certificate":     {"certificate", always(rig.Answer{Status: 200}), []string{"no PEM certificate in it"}},
		"half a certificate":       {"certificate", func(x *rig.Exchange) { a := x.Forward(); a.Body = a.Body[:300]; x.Reply(a) }, []string{"certificate"}},
		"a refused finalize":       {"finalize", always(problem(403, "caa", "CAA of mail.example.com forbids it")), []string{"CAA of mail.example.com", "add this one"}},
		"a refused key":            {"finalize", always(problem(400, "badCSR", "this key is weak")), []string{"this key is weak"}},
		"a vanished order":         {"finalize", always(rig.Answer{Status: 404}), []string{"404"}},
		"an order that is invalid": {"order", edited(t, func(doc map[string]any) { invalid(doc, "the CAA check failed") }), []string{"the CAA check failed"}},
		"and gives no reason":      {"order", edited(t, func(doc map[string]any) { doc["status"] = "invalid" }), []string{"gave no reason"}},
		"an expired authorization": {"authorization", edited(t, func(doc map[string]any) { doc["status"] = "expired" }), []string{"expired", "mail.example.com"}},
		"a failed authorization": {"authorization", edited(t, func(doc map[string]any) {
			doc["status"] = "invalid"
			invalid(doc["challenges"].([]any)[0].(map[string]any), "it was not there")
		}), []string{"it was not there", "mail.example.com"}},
		"no challenge of the kind": {"authorization", edited(t, func(doc map[string]any) { doc["challenges"] = []any{} }), []string{"offers no http-01", "--challenge"}},
		"a token that is a path": {"authorization", edited(t, func(doc map[string]any) {
			for _, c := range doc["challenges"].([]any) {
				c.(map[string]any)["token"] = "../../../etc/passwd"
			}
		}), []string{"token"}},
		"an account without a name": {"newAccount", func(x *rig.Exchange) { a := x.Forward(); a.Header.Del("Location"); x.Reply(a) }, []string{"Location"}},
	}
	for _, name := range sampled(sortedKeys(cases), 2, 0) {
		c := cases[name]
		s.afresh()
		s.relay.Meddle(on(c.kind, c.meddle))
		s.failed(s.renew(), 6, c.texts...)
		assert.Empty(t, s.live(), name)

		s.relay.Meddle(nil)
		require.Equal(t, 0, s.renew("--now").code, name)
		s.settled(name)
	}
}

func invalid(doc map[string]any, detail string) {
	doc["status"] = "invalid"
	doc["error"] = map[string]any{"type": "urn:ietf:params:acme:error:unauthorized", "detail": detail, "status": 403}
}

// What is against one order for good is not met with it again and again.
func TestOrderThatCannotBeFulfilledIsGivenUp(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	for name, meddle := range map[string]func(*rig.Exchange){
		"refused key":           on("finalize", always(problem(400, "badCSR", "this key is weak"))),
		"expired authorization": on("authorization", edited(t, func(doc map[string]any) { doc["status"] = "expired" })),
	} {
		s.afresh()
		s.relay.Meddle(meddle)
		s.failed(s.renew(), 6)
		assert.Equal(t, 1, s.relay.Created("newOrder"), name)
		s.failed(s.renew("--now"), 6)
		assert.Equal(t, 2, s.relay.Created("newOrder"), "%s: the same order was tried again", name)
	}
}

func TestCertificateThatLacksANameIsRefused(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	var key crypto.PublicKey
	s.relay.Meddle(func(x *rig.Exchange) {
		if x.Kind == "finalize" {
			key = requestedKey(t, x)
		}
		if x.Kind != "certificate" {
			x.Pass()
			return
		}
		signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		assert.NoError(t, err)
		leaf := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: spoiledNames[:1], NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key, signer)
		assert.NoError(t, err)
		x.Reply(rig.Answer{Status: 200, Body: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})})
	})
	s.failed(s.renew(), 6, "left imap.example.com out")
	assert.Empty(t, s.live())
	s.relay.Meddle(nil)
	require.Equal(t, 0, s.renew("--now").code)
	s.settled("the whole")
}

// requestedKey is the key that a finalize asks a certificate for.
func requestedKey(t *testing.T, x *rig.Exchange) crypto.PublicKey {
	var request struct{ CSR string }
	assert.NoError(t, x.Payload(&request))
	der, err := base64.RawURLEncoding.DecodeString(request.CSR)
	assert.NoError(t, err)
	csr, err := x509.ParseCertificateRequest(der)
	assert.NoError(t, err)
	return csr.PublicKey
}

// A chain that leads to no trusted root is what the CA issued anyway, so it
// is kept; but it is not installed, and someone is told each time.
func TestIncompleteChainIsNotInstalled(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	s.obtained()
	old, second := s.live(), time.Now().Unix()
	require.Eventually(t, func() bool { return time.Now().Unix() > second }, 2*time.Second, 50*time.Millisecond) // so that the next one is newer
	s.relay.Meddle(on("certificate", func(x *rig.Exchange) {
		a := x.Forward()
		const end = "-----END CERTIFICATE-----\n"
		leaf, _, _ := bytes.Cut(a.Body, []byte(end))
		a.Body = append(leaf, end...)
		x.Reply(a)
	}))
	for _, args := range [][]string{{"--force", "--min-interval", "1ns"}, nil} {
		s.failed(s.renew(args...), 3, "chain")
		data, err := os.ReadFile(filepath.Join(s.certs(), "cert.pem"))
		require.NoError(t, err)
		assert.Equal(t, old, sha256OfPEM(t, data))
	}
	s.relay.Meddle(nil)
	require.Equal(t, 0, s.renew("--force", "--min-interval", "1ns").code)
	s.settled("the whole chain")
}

func TestLostResponseCostsNoCertificate(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	lost := func(x *rig.Exchange) { x.Forward(); x.HangUp() }
	for _, kind := range sampled([]string{"newAccount", "newOrder", "finalize", "challenge", "order", "certificate"}, 2, 0) {
		s.afresh()
		before := s.issued()
		s.relay.Meddle(once(kind, lost))
		require.Equal(t, 0, s.renew().code, kind)
		s.settled(kind)
		assert.Equal(t, before+1, s.issued(), kind)

		s.afresh() // and if it is lost each time, the next run goes on
		before = s.issued()
		s.relay.Meddle(on(kind, lost))
		s.failed(s.renew("--issue-timeout", "3s"), 6)
		accounts := s.relay.Created("newAccount")
		s.relay.Meddle(nil)
		require.Equal(t, 0, s.renew("--now").code, kind)
		s.settled(kind)
		assert.Equal(t, before+1, s.issued(), kind)
		assert.Equal(t, 1, accounts+s.relay.Created("newAccount"), kind)
	}
}

func TestDownloadThatFailsOnceIsRetried(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	for _, name := range sampled(sortedKeys(spoils), 4, 0) {
		meddle := spoils[name]
		s.afresh()
		before := s.issued()
		s.relay.Meddle(once("certificate", meddle))
		require.Equal(t, 0, s.renew().code, name)
		s.settled(name)
		assert.Equal(t, before+1, s.issued(), name)
		assert.Equal(t, 1, s.relay.Created("newOrder"), name)
	}
}

func TestOrderThatCannotBeFetchedIsNotPlacedAgain(t *testing.T) {
	s := newSpoiled(t, rig.CAOptions{})
	faults := map[string]func(*rig.Exchange){"reset": (*rig.Exchange).Reset, "502": always(page(502)), "a page": always(page(200))}
	for _, name := range sampled(sortedKeys(faults), 2, 0) {
		meddle := faults[name]
		s.afresh()
		before := s.issued()
		s.relay.Meddle(on("certificate", always(page(200)))) // the CA has issued
		s.failed(s.renew(), 6)
		s.relay.Meddle(on("order", meddle))
		s.failed(s.renew("--now"), 6, "fetching the order of an earlier run")
		assert.Zero(t, s.relay.Count("newOrder"), name)
		s.relay.Meddle(nil)
		require.Equal(t, 0, s.renew("--now").code, name)
		s.settled(name)
		assert.Equal(t, before+1, s.issued(), name)
	}
}
