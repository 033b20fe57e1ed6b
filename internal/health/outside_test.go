package health

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
)

// outside makes the scene's front an address that is looked at from outside.
func (s *scene) outside(address string) *Front {
	f := Front{Outside: true, Asked: []string{address}, Endpoints: slices.Clone(s.f.Endpoints)}
	f.Container, f.Hostnames = At("mail.example.com", address), []string{"mail.example.com"}
	return &f
}

func silence(e *mailu.Endpoint, err error) { e.Chain, e.Leaf, e.Err = nil, "", err }

func show(e *mailu.Endpoint, chain []*x509.Certificate) {
	e.Chain, e.Leaf, e.Err = chain, pki.Fingerprint(chain[0]), nil
}

func each(f *Front, change func(*mailu.Endpoint)) {
	for i := range f.Endpoints {
		change(&f.Endpoints[i])
	}
}

func TestWhatTheWorldSeesIsJudged(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(s *scene, f *Front)
		severity Severity
		code     Code
		says     string
	}{
		"all is well":      {func(*scene, *Front) {}, OK, "", ""},
		"a port is closed": {func(_ *scene, f *Front) { silence(&f.Endpoints[1], fmt.Errorf("%w", mailu.ErrClosed)) }, OK, "", ""},
		"a port of a list": {func(_ *scene, f *Front) { f.Named = true; silence(&f.Endpoints[1], mailu.ErrClosed) }, Critical, PortSilent, "port 443 (https) of mail.example.com[192.0.2.1] does not answer: connection refused"},
		"no STARTTLS":      {func(_ *scene, f *Front) { silence(&f.Endpoints[0], mailu.ErrWithout) }, Critical, PortSilent, "port 25 (smtp) of mail.example.com[192.0.2.1] answers without TLS: no TLS"},
		"it hangs":         {func(_ *scene, f *Front) { silence(&f.Endpoints[0], mailu.ErrSilent) }, Critical, PortSilent, "no answer"},
		"nobody is there":  {func(_ *scene, f *Front) { each(f, func(e *mailu.Endpoint) { silence(e, errors.New("i/o timeout")) }) }, Critical, PortSilent, "no port of mail.example.com[192.0.2.1] answers with TLS; port 25 (smtp): i/o timeout"},
		"no way there": {func(_ *scene, f *Front) {
			each(f, func(e *mailu.Endpoint) { silence(e, fmt.Errorf("dial: %w", syscall.ENETUNREACH)) })
		}, Unknown, PortsUnseen, "cannot be reached from this host"},
		"no address":               {func(_ *scene, f *Front) { f.Asked, f.Container = nil, "mail.example.com" }, Critical, PortSilent, "mail.example.com has no address"},
		"no answer of the DNS":     {func(_ *scene, f *Front) { f.Unresolved = errors.New("SERVFAIL") }, Unknown, PortsUnseen, "SERVFAIL"},
		"two certificates":         {func(s *scene, f *Front) { show(&f.Endpoints[2], s.issue(mint.Leaf{})) }, Warning, OutOfStep, "mail.example.com[192.0.2.1] shows different certificates: port 25 (smtp) "},
		"another than is here":     {func(s *scene, f *Front) { f.Directory.Chain = s.issue(mint.Leaf{NotBefore: s.now.Add(-time.Minute)}) }, Warning, NotServed, "shows another certificate than the front on this host"},
		"another name":             {func(_ *scene, f *Front) { f.Hostnames = []string{"smtp.example.net"} }, Critical, NamesMissing, "the certificate that every port serves does not cover smtp.example.net"},
		"it has expired":           {func(s *scene, _ *Front) { s.At = s.now.Add(365 * day24) }, Critical, CertExpired, "the certificate that every port serves expired on"},
		"no root of anybody's":     {func(s *scene, _ *Front) { s.Roots = nil; s.RootsErr = errors.New("none") }, Unknown, RootsUnseen, "cannot check whether clients trust the chain"},
		"without the intermediate": {func(s *scene, f *Front) { each(f, func(e *mailu.Endpoint) { e.Chain = e.Chain[:1] }) }, Critical, ChainIncomplete, "is sent without its issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			f := s.outside("192.0.2.1")
			c.change(s, f)
			s.Fronts = []Front{*f}
			found := Judge(s.Look, thresholds)
			if c.severity == OK {
				assert.Empty(t, found)
				return
			}
			require.NotEmpty(t, found)
			assert.Equal(t, c.severity, found[0].Severity)
			assert.Equal(t, c.code, found[0].Code)
			assert.Contains(t, found[0].Text, c.says)
			assert.NotEmpty(t, found[0].Remedy)
			assert.NotContains(t, found[0].Text, "nginx", "from outside nobody knows")
		})
	}
}

func TestAddressesOfANameShowTheSame(t *testing.T) {
	s := newScene(t)
	one, two, other := s.outside("192.0.2.1"), s.outside("2001:db8::1"), s.outside("192.0.2.9")
	s.Fronts = []Front{*one, *two}
	assert.Empty(t, Judge(s.Look, thresholds))
	stale := s.older()
	each(two, func(e *mailu.Endpoint) { show(e, stale) })
	other.Hostnames = []string{"imap.example.com"}
	s.Fronts = []Front{*one, *two, *other}
	found := Judge(s.Look, thresholds)
	require.Equal(t, []Code{OutOfStep}, codesOf(found), "another name may show another one")
	assert.Regexp(t, `^mail.example.com\[2001:db8::1\] shows another certificate \([0-9a-f]{8}\) than mail.example.com\[192.0.2.1\] \([0-9a-f]{8}\)$`, found[0].Text)
}
