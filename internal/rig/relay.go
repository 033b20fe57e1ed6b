package rig

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Relay stands between ACME clients and a CA, so that a test can count, spoil or
// withhold what passes. Pebble builds its URLs from the Host of a request, so all
// that a client learns from it leads through the Relay.
type Relay struct {
	DirectoryURL string

	server *http.Server
	client *http.Client

	mu     sync.Mutex
	ca     *url.URL
	meddle func(*Exchange)
	seen   []*Exchange
	spent  map[string]bool // nonces of signed requests, whatever became of them
}

// Exchange is a request on its way through a Relay, and its answer.
type Exchange struct {
	N       int    // of this request, from 1 on since the last call of Meddle
	Kind    string // what it is for: see kinds
	Request *http.Request
	Body    []byte
	Status  int // that the CA answered; 0 if the request did not come to it

	relay *Relay
	w     http.ResponseWriter
}

// Answer is what the CA, or a test in its place, says.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// kinds are Pebble's paths, whose names are its own.
var kinds = map[string]string{
	"dir": "directory", "nonce-plz": "nonce", "sign-me-up": "newAccount", "my-account": "account", "order-plz": "newOrder", "my-order": "order",
	"authZ": "authorization", "chalZ": "challenge", "finalize-order": "finalize", "certZ": "certificate", "draft-ietf-acme-ari-03": "renewalInfo",
}

// StartRelay starts a Relay with the CA's own TLS certificate. Whoever starts one
// must Close it.
func StartRelay(ca *CA) (*Relay, error) {
	pair, err := tls.LoadX509KeyPair(ca.file("directory.pem"), ca.file("directory-key.pem"))
	if err != nil {
		return nil, fmt.Errorf("starting a relay: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting a relay: %w", err)
	}
	r := &Relay{DirectoryURL: "https://" + listener.Addr().String() + "/dir", spent: map[string]bool{}}
	if err := r.LeadTo(ca); err != nil {
		return nil, err
	}
	r.server = &http.Server{Handler: r, ErrorLog: log.New(io.Discard, "", 0)}
	go r.server.Serve(tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}}))
	return r, nil
}

// LeadTo makes ca the one that requests are forwarded to from now on.
func (r *Relay) LeadTo(ca *CA) error {
	to, err := url.Parse(ca.DirectoryURL)
	if err != nil {
		return fmt.Errorf("leading a relay: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ca, r.client = to, ca.client
	return nil
}

// Meddle lets meddle deal with each exchange from now on, in place of passing it,
// and forgets those that were seen; nil passes all.
func (r *Relay) Meddle(meddle func(*Exchange)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.meddle, r.seen = meddle, nil
}

// Count reports how many requests of these kinds came since the last call of Meddle,
// of all kinds if none is given.
func (r *Relay) Count(kinds ...string) int {
	return r.count(func(x *Exchange) bool {
		for _, kind := range kinds {
			if x.Kind == kind {
				return true
			}
		}
		return len(kinds) == 0
	})
}

// Created reports how many things of a kind the CA made since the last call of Meddle.
func (r *Relay) Created(kind string) int {
	return r.count(func(x *Exchange) bool { return x.Kind == kind && x.Status == http.StatusCreated })
}

func (r *Relay) count(match func(*Exchange) bool) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.seen {
		if match(x) {
			n++
		}
	}
	return n
}

// Close ends the Relay and what hangs in it.
func (r *Relay) Close() { r.server.Close() }

func (r *Relay) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(request.URL.Path, "/"), "/")
	x := &Exchange{Kind: kinds[first], Request: request, Body: body, relay: r, w: w}
	r.mu.Lock()
	r.seen = append(r.seen, x)
	x.N = len(r.seen)
	meddle := r.meddle
	nonce := nonceOf(body)
	spent := r.spent[nonce]
	if nonce != "" {
		r.spent[nonce] = true
	}
	r.mu.Unlock()
	switch {
	case spent: // the CA may not have seen the first (RFC 8555, section 6.5)
		x.refuseNonce()
		return
	case meddle == nil:
		meddle = (*Exchange).Pass
	}
	meddle(x)
}

// nonceOf is the nonce of a signed request, "" if it is not one.
func nonceOf(body []byte) string {
	var jws struct{ Protected string }
	var header struct{ Nonce string }
	if json.Unmarshal(body, &jws) != nil {
		return ""
	}
	data, _ := base64.RawURLEncoding.DecodeString(jws.Protected)
	_ = json.Unmarshal(data, &header)
	return header.Nonce
}

func (x *Exchange) refuseNonce() {
	x.Reply(Answer{http.StatusBadRequest, http.Header{"Content-Type": {"application/problem+json"}},
		[]byte(`{"type":"urn:ietf:params:acme:error:badNonce","detail":"the nonce is spent","status":400}`)})
}

// Pass lets the CA answer.
func (x *Exchange) Pass() { x.Reply(x.Forward()) }

// Forward asks the CA. Its answer has not been given yet. The client may go away
// meanwhile.
func (x *Exchange) Forward() Answer {
	x.relay.mu.Lock()
	to, client := *x.relay.ca, x.relay.client
	x.relay.mu.Unlock()
	to.Path, to.RawQuery = x.Request.URL.Path, x.Request.URL.RawQuery
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.Request.Context()), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, x.Request.Method, to.String(), bytes.NewReader(x.Body))
	if err != nil {
		x.HangUp()
	}
	request.Header, request.Host = x.Request.Header.Clone(), x.Request.Host
	response, err := client.Do(request)
	if err != nil { // there is no CA any more
		x.HangUp()
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		x.HangUp()
	}
	x.relay.mu.Lock()
	x.Status = response.StatusCode
	x.relay.mu.Unlock()
	return Answer{response.StatusCode, response.Header, answer}
}

// Reply answers the client.
func (x *Exchange) Reply(a Answer) {
	x.begin(a)
	_, _ = x.w.Write(a.Body) // who went away wants no answer
}

func (x *Exchange) begin(a Answer) {
	for name, values := range a.Header {
		x.w.Header()[name] = values
	}
	if x.Request.Method != http.MethodHead {
		x.w.Header().Set("Content-Length", strconv.Itoa(len(a.Body)))
	}
	x.w.WriteHeader(a.Status)
}

// Truncate begins an answer, and hangs up in the middle of it.
func (x *Exchange) Truncate(a Answer) {
	x.begin(a)
	_, _ = x.w.Write(a.Body[:len(a.Body)/2])
	panic(http.ErrAbortHandler)
}

// HangUp closes the connection without an answer. It does not return.
func (x *Exchange) HangUp() { panic(http.ErrAbortHandler) }

// Reset breaks the connection off. It does not return.
func (x *Exchange) Reset() {
	if conn, _, err := x.w.(http.Hijacker).Hijack(); err == nil {
		if tcp, ok := conn.(*tls.Conn).NetConn().(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // and so sends RST
			tcp.Close()
		}
	}
	panic(http.ErrAbortHandler)
}

// Hang gives no answer as long as the client waits for one. It does not return.
func (x *Exchange) Hang() {
	<-x.Request.Context().Done()
	panic(http.ErrAbortHandler)
}

// Payload decodes what the request says, without looking at its signature.
func (x *Exchange) Payload(into any) error {
	var jws struct{ Payload string }
	if err := json.Unmarshal(x.Body, &jws); err != nil {
		return fmt.Errorf("reading a request: %w", err)
	}
	data, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	if err != nil {
		return fmt.Errorf("reading a request: %w", err)
	}
	return json.Unmarshal(data, into)
}
