package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	lego "github.com/go-acme/lego/v4/acme"

	"mailu-hook/internal/say"
	"mailu-hook/internal/wait"
)

const (
	requestLimit = 30 * time.Second // one try of one request, including its body
	tries        = 5                // of a request that meets a temporary fault
	firstPause   = 500 * time.Millisecond
	longestPause = 10 * time.Second
	maxBody      = 1 << 20 // bytes
)

// transport sends the requests of lego, which have no context and are not retried:
// each is bound to ctx and to 30 seconds, and sent again after a temporary fault of
// the network or of the server (5xx). It also records the last Retry-After of each
// URL, since lego passes on too little of it.
//
// A signed request has spent its nonce (RFC 8555, section 6.5), also if the CA
// answered with a 5xx. lego is told badNonce then, so that it signs again; what went
// wrong first is what it gets in the end.
//
// A request whose response was lost may have been carried out. Its nonce is then
// spent, the CA answers badNonce, and lego signs again; so an order may be placed
// twice, which costs nothing, but no certificate is issued twice (see
// Client.finalize).
type transport struct {
	ctx   context.Context
	agent string // User-Agent for requests that lego sends without: those for renewal information
	base  http.RoundTripper
	pause time.Duration // before the second try, roughly; doubled before each further one

	mu     sync.Mutex
	after  map[string]time.Time // by URL: the last Retry-After
	faults map[string]*fault    // by URL: of signed requests
}

// fault is the first of the temporary faults that requests to one URL met in a row.
type fault struct {
	response *http.Response
	err      error
	times    int
}

// RoundTrip returns a response whose body has been read completely. A refusal that is
// not a problem document, such as one from a proxy, is an error.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.persist(request)
	if err != nil || response.StatusCode < http.StatusBadRequest {
		return response, err
	}
	if body := bytes.TrimSpace(response.Body.(answer).whole); !bytes.HasPrefix(body, []byte("{")) { // lego panics at the JSON null
		return nil, &pageError{response.Status, string(body), t.until(request.URL.String())}
	}
	return response, nil
}

// pageError is a refusal that is not an ACME problem document.
type pageError struct {
	status, body string
	until        time.Time // as Retry-After says; zero if it does not
}

func (e *pageError) Error() string {
	text := "the server answered " + say.Plain(e.status)
	if e.body != "" {
		text += " without a problem document: " + say.Foreign(e.body)
	}
	return text
}

// persist sends the request until the response is final.
func (t *transport) persist(request *http.Request) (*http.Response, error) {
	if request.Method == http.MethodPost {
		return t.persistSigned(request)
	}
	for try := 1; ; try++ {
		response, err := t.once(request)
		if !passing(response, err) || try == tries || !t.pauseFor(response, try) {
			return response, err
		}
		if request.GetBody != nil {
			if request.Body, err = request.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// pauseFor waits before the next try; false if there is to be none, because the run
// ends or because the CA wants it much later, which the caller records.
func (t *transport) pauseFor(response *http.Response, try int) bool {
	pause := min(t.pause<<(try-1), longestPause)
	pause = pause/2 + rand.N(pause)
	if response != nil {
		asked := retryAfter(response.Header, time.Now())
		if asked > longestPause {
			return false
		}
		pause = max(pause, asked)
	}
	return wait.For(t.ctx, pause) == nil
}

func (t *transport) persistSigned(request *http.Request) (*http.Response, error) {
	url := request.URL.String()
	response, err := t.once(request)
	times := t.fault(url, response, err)
	switch {
	case times == 0:
		return response, err
	case times == tries || !t.pauseFor(response, times):
		if t.ctx.Err() != nil {
			return nil, context.Cause(t.ctx)
		}
		first := t.firstFault(url)
		return first.response, first.err
	}
	return badNonce(request, response), nil
}

// fault counts a fault and returns how many there were in a row; 0 if it is not
// temporary. badNonce after one belongs to it.
func (t *transport) fault(url string, response *http.Response, err error) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.faults[url]
	switch {
	case passing(response, err) && f == nil:
		f = &fault{response: response, err: err}
		t.faults[url] = f
	case passing(response, err):
	case f == nil || err != nil || response.StatusCode != http.StatusBadRequest || !bytes.Contains(response.Body.(answer).whole, []byte(lego.BadNonceErr)):
		delete(t.faults, url)
		return 0
	}
	f.times++
	return f.times
}

// firstFault returns the first of the faults that have not passed, nil if there is
// none, and forgets them.
func (t *transport) firstFault(url string) *fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.faults[url]
	if delete(t.faults, url); f != nil && f.response != nil {
		whole := f.response.Body.(answer).whole
		f.response.Body = answer{bytes.NewReader(whole), whole}
	}
	return f
}

// badNonce makes lego sign the request again. It stands for a response of the CA,
// which may be nil.
func badNonce(request *http.Request, of *http.Response) *http.Response {
	body := []byte(`{"type":"` + lego.BadNonceErr + `","status":400}`)
	header := http.Header{"Content-Type": {"application/problem+json"}}
	if of != nil && of.Header.Get("Replay-Nonce") != "" {
		header.Set("Replay-Nonce", of.Header.Get("Replay-Nonce"))
	}
	return &http.Response{Status: "400 Bad Request", StatusCode: http.StatusBadRequest, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: answer{bytes.NewReader(body), body}, ContentLength: int64(len(body)), Request: request}
}

func (t *transport) once(request *http.Request) (*http.Response, error) {
	t.forget(request.URL.String())
	ctx, cancel := context.WithTimeoutCause(t.ctx, requestLimit, errors.New("no response within "+requestLimit.String()))
	defer cancel()
	request = request.Clone(ctx)
	if request.UserAgent() == "" {
		request.Header.Set("User-Agent", t.agent) // RFC 8555, section 6.1
	}
	response, err := t.base.RoundTrip(request)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(io.LimitReader(response.Body, maxBody+1))
		response.Body.Close()
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	case len(body) > maxBody:
		return nil, errTooLong
	}
	response.Body = answer{bytes.NewReader(body), body}
	t.note(request.URL.String(), response)
	return response, nil
}

var errTooLong = fmt.Errorf("a response of more than %d bytes", maxBody)

// answer is a body that has been read and can be read again.
type answer struct {
	*bytes.Reader
	whole []byte
}

func (answer) Close() error { return nil }

// passing reports whether the same request may succeed soon. A CA may also enforce a
// rate limit with a 503, and then wants no other request soon.
func passing(response *http.Response, err error) bool {
	var certificate *tls.CertificateVerificationError
	var name *net.DNSError
	if err != nil {
		return !errors.Is(err, errTooLong) && !errors.As(err, &certificate) && !(errors.As(err, &name) && name.IsNotFound)
	}
	switch response.StatusCode {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return !bytes.Contains(response.Body.(answer).whole, []byte(lego.RateLimitedErr))
	}
	return false
}

func (t *transport) forget(url string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.after, url)
}

func (t *transport) note(url string, response *http.Response) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); response.Header.Get("Retry-After") != "" {
		t.after[url] = now.Add(retryAfter(response.Header, now))
	}
}

// until is the time given by the Retry-After in the last response of url, zero if
// there was none.
func (t *transport) until(url string) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.after[url]
}

// retryAfter reads Retry-After, in seconds or as a date (RFC 9110, section
// 10.2.3); 0 if it is absent, in the past or invalid.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
