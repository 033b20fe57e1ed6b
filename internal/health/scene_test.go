package health

import (
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"mailu-hook/hook"
	"mailu-hook/internal/dane"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/resolve"
	"mailu-hook/internal/tlsa"
)

const day24 = 24 * time.Hour

var thresholds = Options{Warn: DefaultWarn, Crit: DefaultCrit}

// scene is a look at a healthy host, to be spoilt by tests.
type scene struct {
	t   *testing.T
	ca  *mint.CA
	now time.Time
	Look
	f *Front
}

func newScene(t *testing.T) *scene {
	t.Helper()
	ca, err := mint.NewCA(mint.CAOptions{NotBefore: time.Now().Add(-400 * day24)})
	require.NoError(t, err)
	s := &scene{t: t, ca: ca, now: time.Now()}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Root)
	facts := mailu.ParseEnvironment(func(name string) string {
		return map[string]string{"HOSTNAMES": "mail.example.com,imap.example.com", "TLS_FLAVOR": "cert"}[name]
	})
	facts.Container, facts.Project, facts.CertsDir = "mailu-front-1", "mailu", "/mailu/certs"
	chain := s.issue(mint.Leaf{})
	s.Look = Look{
		At: s.now, Roots: roots, Engine: Clock{Seen: true},
		Schedule: Schedule{Certbot: Timer{By: "certbot.timer", Last: s.now}, Sync: Timer{By: "mailu-hook-sync.timer", Last: s.now},
			Renew: Timer{By: "mailu-hook-renew.timer", Last: s.now}},
		Setup: Setup{Program: "/usr/bin/mailu-hook", Examples: "examples", Systemd: true},
		Fronts: []Front{{
			Facts: facts, State: "running", Health: "healthy",
			Inside: &mailu.Inside{Watching: true, Daemons: []mailu.Daemon{{Name: "nginx", PidFile: "/run/nginx.pid", Pid: mailu.PidIntact, Runs: true}, {Name: "dovecot", PidFile: "/run/dovecot/master.pid", Pid: mailu.PidIntact, Runs: true}}},
			Directory: Directory{
				Path: "/mailu/certs", Used: true, Chain: chain, Live: generation(chain),
				Cert: File{Name: "cert.pem", Kind: Ours}, Key: File{Name: "key.pem", Kind: Ours},
			},
			Memory:   hook.State{LastSync: s.now, Last: &hook.Last{At: s.now, Outcome: hook.OutcomeInstalled, Lineage: "/live/mail"}},
			Lineages: []Lineage{{Path: "/live/mail", Chain: chain, Last: true, Certbot: true, Hooked: true}},
		}},
	}
	s.f = &s.Fronts[0]
	s.serve(chain)
	return s
}

// issue makes a chain for both names; its leaf began an hour ago, if not told.
func (s *scene) issue(leaf mint.Leaf) []*x509.Certificate {
	s.t.Helper()
	if leaf.Names == nil {
		leaf.Names = []string{"mail.example.com", "imap.example.com"}
	}
	pair, err := s.ca.Issue(leaf)
	require.NoError(s.t, err)
	return []*x509.Certificate{pair.Cert, s.ca.Issuer}
}

// serve makes the ports show the chain, by default all of them.
func (s *scene) serve(chain []*x509.Certificate, ports ...int) {
	s.answer(ports, func(e *mailu.Endpoint) { e.Chain, e.Leaf, e.Err = chain, pki.Fingerprint(chain[0]), nil })
}

func (s *scene) refuse(err error, ports ...int) {
	s.answer(ports, func(e *mailu.Endpoint) { e.Chain, e.Leaf, e.Err = nil, "", err })
}

func (s *scene) answer(ports []int, change func(*mailu.Endpoint)) {
	if s.f.Endpoints == nil {
		for _, p := range s.f.Ports {
			s.f.Endpoints = append(s.f.Endpoints, mailu.Endpoint{Port: p})
		}
	}
	for i := range s.f.Endpoints {
		for _, p := range ports {
			if s.f.Endpoints[i].Number == p {
				change(&s.f.Endpoints[i])
			}
		}
		if ports == nil {
			change(&s.f.Endpoints[i])
		}
	}
}

// generation is the name under which a deploy installs a chain.
func generation(chain []*x509.Certificate) hook.Generation {
	return hook.Generation("20261123T150536Z-" + pki.Fingerprint(chain[0])[:8])
}

// everywhere installs and serves a chain.
func (s *scene) everywhere(chain []*x509.Certificate) {
	s.f.Directory.Chain, s.f.Directory.Live = chain, generation(chain)
	s.f.Lineages[0].Chain = chain
	s.serve(chain)
}

var (
	dovecot   = []int{465, 993, 995, 4190}
	nginx     = []int{25, 443}
	errClosed = fmt.Errorf("%w at 172.18.0.4:443", mailu.ErrClosed)
	errPlain  = fmt.Errorf("speaking smtp: %w", mailu.ErrWithout)
	errHangs  = errors.New("no answer within 3s")
)

// stop makes the front one that does not run, and was not asked.
func (s *scene) stop(state string) {
	s.f.State, s.f.Inside, s.f.Endpoints = state, nil, nil
}

// older is what was installed before.
func (s *scene) older() []*x509.Certificate {
	return s.issue(mint.Leaf{NotBefore: s.now.Add(-30 * day24)})
}

func codesOf(findings []Finding) (codes []Code) {
	for _, f := range findings {
		codes = append(codes, f.Code)
	}
	return codes
}

// host is one that publishes these records, compared with what is served.
func (s *scene) host(name string, validated bool, records ...dane.Record) tlsa.Host {
	found := resolve.TLSA{Base: name, Owner: dane.Owner(name), Records: records, Secure: validated}
	return tlsa.Compare(name, found, s.f.ShownAt(25), s.now)
}
