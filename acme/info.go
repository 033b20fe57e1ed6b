package acme

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	lego "github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/certificate"

	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
)

// Info is the CA's renewal information for a certificate (RFC 9773), with a random
// time picked from its window once, so that later runs do not pick another.
type Info struct {
	Leaf        string    `json:"leaf"` // SHA-256
	Start       time.Time `json:"start,omitzero"`
	End         time.Time `json:"end,omitzero"`
	Draw        time.Time `json:"draw,omitzero"` // zero: the CA sent no usable window
	Explanation string    `json:"explanation_url,omitempty"`
	Next        time.Time `json:"next"` // when to ask again
}

const (
	infoInterval    = 6 * time.Hour // between requests, if the CA sends no Retry-After
	leastInterval   = time.Minute
	longestInterval = day // RFC 9773, section 4.3.2: clients set limits of their own
)

// about reports whether there is a usable window for the leaf.
func (i *Info) about(leaf *x509.Certificate) bool {
	return i != nil && i.Leaf == pki.Fingerprint(leaf) && !i.Draw.IsZero()
}

// wakeUp is the interval of the timer in examples/systemd.
const wakeUp = time.Hour

// time is when to renew: at the picked time, or earlier in the window if the next
// run may come too late (RFC 9773, section 4.2).
func (i *Info) time() time.Time { return later(i.Start, i.Draw.Add(-wakeUp)) }

// stale reports whether to ask the CA.
func (i *Info) stale(leaf *x509.Certificate, now time.Time) bool {
	return i == nil || i.Leaf != pki.Fingerprint(leaf) || !ahead(i.Next, now, longestInterval)
}

// Refresh asks the CA for renewal information when it is time to (RFC 9773, section
// 4.3) and records it. Without a usable response the lineage keeps what it had; the
// error is for the log, since renewal then goes by the lifetime.
func (c *Client) Refresh(l *Lineage, now time.Time) error {
	if l.Leaf == nil || l.Directory != c.o.Directory || !l.Info.stale(l.Leaf, now) {
		return nil
	}
	if err := c.connect(); err != nil {
		return err
	}
	window, explanation, wait, err := c.askInfo(l.Leaf)
	if errors.Is(err, api.ErrNoARI) {
		err, wait = nil, longestInterval
	}
	next := &Info{Leaf: pki.Fingerprint(l.Leaf), Explanation: plainURL(explanation), Next: now.Add(clamp(wait)).UTC()}
	switch {
	case err != nil:
	case window == nil: // not offered
	default:
		if err = plausible(*window, l.Leaf); err == nil {
			next.Start, next.End = window.Start.UTC(), window.End.UTC()
			next.Draw = draw(*window).UTC()
		}
	}
	if old := l.Info; old.about(l.Leaf) && (err != nil || old.Start.Equal(next.Start) && old.End.Equal(next.End)) {
		next.Start, next.End, next.Draw = old.Start, old.End, old.Draw
	}
	l.Info = next
	if rerr := l.record(); rerr != nil {
		return rerr
	}
	return err
}

// askInfo returns the window. lego's own call does not check the status of the
// response.
func (c *Client) askInfo(leaf *x509.Certificate) (window *lego.Window, explanation string, wait time.Duration, err error) {
	id, err := certificate.MakeARICertID(leaf)
	if err != nil {
		return nil, "", 0, fmt.Errorf("computing the certificate's ARI identifier: %w", err)
	}
	response, err := c.core.Certificates.GetRenewalInfo(id)
	if errors.Is(err, api.ErrNoARI) {
		return nil, "", 0, err
	}
	if err != nil {
		return nil, "", 0, c.explain(err, "fetching renewal information", "")
	}
	defer response.Body.Close()
	wait = retryAfter(response.Header, time.Now())
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, say.Foreign(string(body)))
	}
	var info lego.RenewalInfoResponse
	if err == nil {
		err = json.Unmarshal(body, &info)
	}
	if err != nil {
		return nil, "", wait, fmt.Errorf("fetching renewal information: %w", err)
	}
	return &info.SuggestedWindow, info.ExplanationURL, wait, nil
}

// plausible rejects implausible windows: of zero or negative length (RFC 9773,
// section 4.2), long before the certificate was issued, or ending after it expires.
// A CA that revokes sends a window in the past, which may begin an hour or so before
// the certificate does.
func plausible(w lego.Window, leaf *x509.Certificate) error {
	if !w.Start.Before(w.End) || w.Start.Before(leaf.NotBefore.Add(-day)) || w.End.After(leaf.NotAfter) {
		return fmt.Errorf("ignored: the CA suggests renewing a certificate valid from %s to %s between %s and %s",
			say.Time(leaf.NotBefore), say.Time(leaf.NotAfter), say.Time(w.Start), say.Time(w.End))
	}
	return nil
}

// draw picks a uniformly random time in the window (RFC 9773, section 4.2), so that
// certificates issued on one day are not all renewed on one day.
func draw(w lego.Window) time.Time { return w.Start.Add(rand.N(w.End.Sub(w.Start))) }

// plainURL returns a URL that may be stored and shown, "" for anything else.
func plainURL(text string) string {
	u, err := url.Parse(text)
	if err != nil || len(text) > maxURL || u.Scheme != "https" && u.Scheme != "http" || say.Plain(text) != text {
		return ""
	}
	return text
}

func clamp(wait time.Duration) time.Duration {
	if wait == 0 {
		return infoInterval
	}
	return min(max(wait, leastInterval), longestInterval)
}
