package health

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/hook"
	"mailu-hook/internal/front"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/say"
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
	facts := front.ParseEnvironment(func(name string) string {
		return map[string]string{"HOSTNAMES": "mail.example.com,imap.example.com", "TLS_FLAVOR": "cert"}[name]
	})
	facts.Container, facts.Project, facts.CertsDir = "mailu-front-1", "mailu", "/mailu/certs"
	chain := s.issue(mint.Leaf{})
	s.Look = Look{
		At: s.now, Roots: roots, Engine: Clock{Seen: true},
		Schedule: Schedule{Certbot: Timer{By: "certbot.timer", Last: s.now}, Sync: Timer{By: "mailu-hook-sync.timer", Last: s.now}},
		Fronts: []Front{{
			Facts: facts, State: "running", Health: "healthy",
			Inside: &Inside{Watching: true, Daemons: []Daemon{{"nginx", "/run/nginx.pid", "intact", true}, {"dovecot", "/run/dovecot/master.pid", "intact", true}}},
			Directory: Directory{
				Path: "/mailu/certs", Used: true, Chain: chain,
				Cert: File{Name: "cert.pem", Kind: Ours}, Key: File{Name: "key.pem", Kind: Ours},
			},
			Memory:   hook.State{Last: &hook.Last{At: s.now, Outcome: hook.Installed, Lineage: "/live/mail"}},
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
	s.answer(ports, func(e *front.Endpoint) { e.Chain, e.Leaf, e.Err = chain, Sum(chain[0]), nil })
}

func (s *scene) refuse(err error, ports ...int) {
	s.answer(ports, func(e *front.Endpoint) { e.Chain, e.Leaf, e.Err = nil, "", err })
}

func (s *scene) answer(ports []int, change func(*front.Endpoint)) {
	if s.f.Endpoints == nil {
		for _, p := range s.f.Ports {
			s.f.Endpoints = append(s.f.Endpoints, front.Endpoint{Port: p})
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

// everywhere installs and serves a chain.
func (s *scene) everywhere(chain []*x509.Certificate) {
	s.f.Directory.Chain = chain
	s.f.Lineages[0].Chain = chain
	s.serve(chain)
}

var (
	dovecot   = []int{465, 993, 995, 4190}
	nginx     = []int{25, 443}
	errClosed = fmt.Errorf("%w at 172.18.0.4:443", front.ErrClosed)
	errPlain  = fmt.Errorf("speaking smtp: %w", front.ErrWithout)
	errHangs  = errors.New("no answer within 3s")
)

func TestHealthyHostGivesNoFinding(t *testing.T) {
	s := newScene(t)
	assert.Empty(t, Judge(s.Look, thresholds))
	assert.Equal(t, OK, Worst(nil))
}

func TestEachFaultIsNamedOnceWithItsRemedy(t *testing.T) {
	for code, c := range map[Code]struct {
		spoil    func(*scene)
		severity Severity
		text     string
	}{
		FrontStopped:    {func(s *scene) { s.stop("exited") }, Critical, "the front mailu-front-1 is not running (exited)"},
		FrontPaused:     {func(s *scene) { s.stop("paused") }, Critical, "the front mailu-front-1 is paused: it answers nobody"},
		FrontRestarting: {func(s *scene) { s.stop("restarting") }, Critical, "the front mailu-front-1 is restarting over and over"},
		FrontMissing: {func(s *scene) { s.stop(""); s.NoFront = say.Hint(errors.New("no front container found"), "look") },
			Critical, "no front container found"},
		EngineUnseen: {func(s *scene) {
			s.f.State, s.f.Inside, s.EngineDown, s.NoFront = "", nil, true, say.Hint(errors.New("the Docker engine cannot be asked"), "look")
		}, Unknown, "the Docker engine cannot be asked"},
		FrontUnhealthy: {func(s *scene) { s.f.Health = "unhealthy" }, Warning, "Docker holds the front mailu-front-1 to be unhealthy"},
		NotMailu: {func(s *scene) {
			s.f.Flavor, s.f.Unsuitable = "", say.Hint(errors.New("mailu-front-1: it has no TLS_FLAVOR"), "name another")
		},
			Critical, "it has no TLS_FLAVOR"},
		CertsMount: {func(s *scene) {
			s.f.Unsuitable = say.Hint(errors.New("/certs/cert.pem is mounted as a single file"), "mount")
		},
			Warning, "mounted as a single file"},
		InsideUnseen: {func(s *scene) { s.f.Inside, s.f.InsideErr = nil, errors.New("ps: no") }, Unknown, "what runs in mailu-front-1 cannot be seen: ps: no"},
		NginxDown:    {func(s *scene) { s.f.Inside.Daemons[0].Runs = false; s.refuse(errClosed) }, Critical, "nginx does not run in mailu-front-1"},
		DovecotDown: {func(s *scene) {
			s.f.Inside.Daemons[1] = Daemon{Name: "dovecot", Pid: "unseen"}
			s.refuse(errClosed, dovecot...)
		},
			Critical, "dovecot does not run in mailu-front-1, so ports 465, 993, 995 and 4190 are closed"},
		PidFileLost: {func(s *scene) { s.f.Inside.Daemons[0].Pid = "lost" }, Warning, "/run/nginx.pid in mailu-front-1: lost or wrong"},
		FrontTLSOff: {func(s *scene) { s.refuse(errClosed, 443); s.refuse(errPlain, 25) }, Critical, "TLS is off in mailu-front-1"},
		PortSilent:  {func(s *scene) { s.refuse(errHangs, 993) }, Critical, "port 993 of mailu-front-1: no TLS: 993 (imaps): no answer within 3s"},
		PortsUnseen: {func(s *scene) { s.refuse(errHangs) }, Unknown, "none of the ports of mailu-front-1 could be asked: 25 (smtp): no answer within 3s"},
		PairMismatch: {func(s *scene) { s.serve(s.older(), nginx...); s.refuse(errPlain, dovecot...) },
			Critical, "cert.pem and key.pem in /mailu/certs seem not to belong together"},
		OutOfStep: {func(s *scene) { s.serve(s.older(), dovecot...) },
			Warning, "mailu-front-1 is out of step: nginx shows the installed certificate (25 and 443), dovecot shows an older one (465, 993, 995 and 4190)"},
		NotServed: {func(s *scene) { s.serve(s.older()) }, Warning, "mailu-front-1 shows the certificate issued on "},
		CertExpired: {func(s *scene) { s.everywhere(s.issue(mint.Leaf{NotAfter: s.now.Add(-day24)})) },
			Critical, "the installed certificate, which every port shows, expired on "},
		CertNotYetValid: {func(s *scene) { s.everywhere(s.issue(mint.Leaf{NotBefore: s.now.Add(time.Hour)})) }, Critical, "is yet to come: a clock is wrong"},
		NamesMissing: {func(s *scene) { s.everywhere(s.issue(mint.Leaf{Names: []string{"mail.example.com"}})) },
			Warning, "does not cover imap.example.com (it covers mail.example.com)"},
		HostnamesUnknown: {func(s *scene) { s.f.Hostnames = nil }, Unknown, "no hostname of the mail server is known"},
		ChainIncomplete:  {func(s *scene) { s.everywhere(s.f.Directory.Chain[:1]) }, Critical, `stands alone: its issuer "CN=mint intermediate" is not sent with it`},
		ChainUntrusted:   {func(s *scene) { s.Roots = x509.NewCertPool() }, Critical, `is trusted by nobody: its chain ends at "CN=mint root"`},
		RootsUnseen:      {func(s *scene) { s.Roots, s.RootsErr = nil, errors.New("no roots") }, Unknown, "whether clients trust the chain cannot be told: no roots"},
		CertsDirUnseen:   {func(s *scene) { s.f.Directory = Directory{Path: "/mailu/certs", Err: fs.ErrPermission} }, Unknown, "the certs directory cannot be looked at"},
		InstalledUnseen: {func(s *scene) { s.f.Directory.Chain, s.f.Directory.ChainErr = nil, fs.ErrPermission },
			Unknown, "the installed certificate cannot be read"},
		FileMissing:  {func(s *scene) { s.f.Directory.Key.Kind = Missing }, Critical, "there is no key.pem in /mailu/certs: when the front starts again, TLS is off"},
		LinkDangling: {func(s *scene) { s.f.Directory.Key = File{"key.pem", Dangling, "gone.pem", nil} }, Critical, "key.pem in /mailu/certs leads to gone.pem, which does not exist"},
		LinkOutward:  {func(s *scene) { s.f.Directory.Key = File{"key.pem", Outward, "/etc/x.pem", nil} }, Critical, "key.pem in /mailu/certs leads to /etc/x.pem, which is outside"},
		CertDamaged: {func(s *scene) { s.f.Directory.Chain, s.f.Directory.ChainErr = nil, errors.New("no certificate in it") },
			Critical, "cert.pem in /mailu/certs holds no certificate: no certificate in it"},
		LinksReplaced: {func(s *scene) { s.f.Directory.Cert.Kind = Plain }, Warning, "somebody replaced mailu-hook's links"},
		NotAdopted: {func(s *scene) {
			s.f.Directory.Used, s.f.Directory.Cert.Kind, s.f.Directory.Key.Kind = false, Plain, Link
		},
			Warning, "was not installed by mailu-hook, which never deployed here yet"},
		StateUnseen:  {func(s *scene) { s.f.MemoryErr = fmt.Errorf("opening: %w", fs.ErrPermission) }, Unknown, "whether a deploy is unfinished cannot be seen"},
		StateDamaged: {func(s *scene) { s.f.MemoryErr = errors.New("state.json: damaged") }, Warning, "what earlier deploys remembered cannot be read: state.json: damaged"},
		DeployPending: {func(s *scene) { s.f.Memory.Pending = &hook.Pending{Since: s.now, Reason: "nginx objects", Next: s.now} },
			Warning, "a deploy is unfinished since "},
		DeployFailed: {func(s *scene) {
			s.f.Memory.Last.Outcome, s.f.Memory.Last.Error, s.f.Memory.Pending = hook.RollbackFailed, "port 993", &hook.Pending{}
		}, Critical, "failed, and so did putting the old pair back: port 993"},
		LineageNewer: {func(s *scene) { s.f.Lineages[0].Chain = s.issue(mint.Leaf{NotBefore: s.now.Add(-time.Minute)}) },
			Warning, "/live/mail was renewed on "},
		LineageGone: {func(s *scene) {
			s.f.Lineages[0] = Lineage{Path: "/live/mail", Err: fs.ErrNotExist, Gone: true, Last: true}
		}, Warning, "the lineage /live/mail, where the installed certificate came from, does not exist any more"},
		LineageUnseen:  {func(s *scene) { s.f.Lineages[0] = Lineage{Path: "/live/mail", Err: fs.ErrPermission} }, Unknown, "the lineage cannot be read"},
		LineageDamaged: {func(s *scene) { s.f.Lineages[0] = Lineage{Path: "/live/mail", Err: errors.New("no PEM")} }, Warning, "the lineage /live/mail holds no certificate: no PEM"},
		TLSAMismatch: {func(s *scene) {
			s.f.DANE = []DANE{{"mail.example.com", DANEMatch, ""}, {"imap.example.com", DANEInsecure, ""}, {"mx.example.com", DANEMismatch, "3 1 1 of an old key"}}
		}, Critical, "no TLSA record of mx.example.com matches what port 25 shows, so that mail servers with DANE do not deliver: 3 1 1 of an old key"},
		TLSAUnseen: {func(s *scene) { s.f.DANE = []DANE{{"mx.example.com", DANEUnchecked, "SERVFAIL"}} },
			Unknown, "the TLSA records of mx.example.com could not be checked: SERVFAIL"},
		ClockSkew: {func(s *scene) { s.Engine.Ahead = -2 * time.Minute }, Warning, "the clock of the Docker engine and the one of this host differ by 2m0s"},
		CertbotTimerMissing: {func(s *scene) { s.Schedule.Certbot = Timer{} },
			Warning, "nothing on this host runs certbot renew from time to time: no certificate is renewed"},
		CertbotTimerIdle: {func(s *scene) { s.Schedule.Certbot.Last = s.now.Add(-4 * day24) }, Warning, "certbot.timer should run certbot renew, and has not since "},
		CertbotFailing:   {func(s *scene) { s.Schedule.CertbotFailed = "1 renew failure(s)" }, Warning, `certbot's last run failed: "1 renew failure(s)"`},
		SyncTimerMissing: {func(s *scene) { s.Schedule.Sync = Timer{} }, Warning, "nothing on this host runs mailu-hook sync from time to time"},
		SyncTimerIdle:    {func(s *scene) { s.Schedule.Sync.Last = s.now.Add(-4 * day24) }, Warning, "mailu-hook-sync.timer should run mailu-hook sync, and has not since "},
	} {
		t.Run(string(code), func(t *testing.T) {
			s := newScene(t)
			c.spoil(s)
			findings := Judge(s.Look, thresholds)
			require.Len(t, findings, 1, "%+v", findings)
			f := findings[0]
			assert.Equal(t, code, f.Code)
			assert.Equal(t, c.severity, f.Severity, f.Text)
			assert.Contains(t, f.Text, c.text)
			assert.NotEmpty(t, f.Remedy)
			assert.Contains(t, Codes, code)
			assert.Empty(t, Judge(s.Look, Options{Warn: DefaultWarn, Crit: DefaultCrit, Ignore: []Code{code}}), "it can be ignored")
		})
	}
}

// stop makes the front one that does not run, and was not asked.
func (s *scene) stop(state string) {
	s.f.State, s.f.Inside, s.f.Endpoints = state, nil, nil
}

// older is what was installed before.
func (s *scene) older() []*x509.Certificate {
	return s.issue(mint.Leaf{NotBefore: s.now.Add(-30 * day24)})
}

func TestFlavorCountsByWhatIsServed(t *testing.T) {
	for flavor, want := range map[string]Severity{"letsencrypt": Warning, "mail-letsencrypt": Warning, "notls": Critical, "certs": Critical} {
		s := newScene(t)
		s.f.Flavor = flavor
		s.f.Unsuitable = s.f.CheckFlavor()
		s.f.Directory.Cert.Kind, s.f.Directory.Chain = Missing, nil // it does not read that
		findings := Judge(s.Look, thresholds)
		require.Len(t, findings, 1, "%s: %+v", flavor, findings)
		assert.Equal(t, TLSFlavor, findings[0].Code)
		assert.Equal(t, want, findings[0].Severity, flavor)
	}
}

func TestExpiryIsJudgedByFractionOrDays(t *testing.T) {
	leaf := func(life, left time.Duration) mint.Leaf {
		now := time.Now()
		return mint.Leaf{NotBefore: now.Add(left - life), NotAfter: now.Add(left + time.Minute)}
	}
	days := func(warn, crit int) Options {
		return Options{Warn: Threshold{Left: time.Duration(warn) * day24}, Crit: Threshold{Left: time.Duration(crit) * day24}}
	}
	for _, c := range []struct {
		leaf mint.Leaf
		o    Options
		want Severity
	}{
		{leaf(90*day24, 23*day24), thresholds, OK},
		{leaf(90*day24, 22*day24), thresholds, Warning},
		{leaf(90*day24, 12*day24), thresholds, Warning},
		{leaf(90*day24, 11*day24), thresholds, Critical},
		{leaf(6*day24, 37*time.Hour), thresholds, OK},
		{leaf(6*day24, 35*time.Hour), thresholds, Warning},
		{leaf(6*day24, 17*time.Hour), thresholds, Critical},
		{leaf(90*day24, 22*day24), days(20, 7), OK},
		{leaf(90*day24, 19*day24), days(20, 7), Warning},
		{leaf(90*day24, 6*day24), days(20, 7), Critical},
		{leaf(90*day24, time.Hour), Options{}, OK},
	} {
		s := newScene(t)
		s.everywhere(s.issue(c.leaf))
		assert.Equal(t, c.want, Worst(Judge(s.Look, c.o)), "%+v with %s and %s", c.leaf, c.o.Warn, c.o.Crit)
	}
}

func TestUnseenIsWorseThanAWarningAndBetterThanCritical(t *testing.T) {
	s := newScene(t)
	s.f.Health = "unhealthy"
	s.f.MemoryErr = fs.ErrPermission
	findings := Judge(s.Look, thresholds)
	assert.Equal(t, []Code{StateUnseen, FrontUnhealthy}, []Code{findings[0].Code, findings[1].Code})
	assert.Equal(t, Unknown, Worst(findings))
	s.refuse(errHangs, 993)
	findings = Judge(s.Look, thresholds)
	assert.Equal(t, PortSilent, findings[0].Code, "the worst first")
	assert.Equal(t, Critical, Worst(findings))
}

func TestMissingMainNameIsCritical(t *testing.T) {
	s := newScene(t)
	s.everywhere(s.issue(mint.Leaf{Names: []string{"imap.example.com"}}))
	findings := Judge(s.Look, thresholds)
	require.Len(t, findings, 1)
	assert.Equal(t, Critical, findings[0].Severity)
}

func TestSentencesNameTheFrontWhereThereAreSeveral(t *testing.T) {
	s := newScene(t)
	other := *s.f
	other.Facts.Container = "other-front-1"
	other.Directory.Key = File{"key.pem", Dangling, "gone.pem", nil}
	s.Fronts = append(s.Fronts, other)
	findings := Judge(s.Look, thresholds)
	require.Len(t, findings, 1)
	assert.Equal(t, "other-front-1", findings[0].Front)
	assert.Contains(t, findings[0].Text, "other-front-1: key.pem in ")
}

func TestWhatIsPendingOrHeldIsNotAskedForAgain(t *testing.T) {
	s := newScene(t)
	newer := s.issue(mint.Leaf{NotBefore: s.now.Add(-time.Minute)})
	s.f.Lineages[0].Chain = newer
	s.f.Memory.Held = Sum(newer[0])
	assert.Empty(t, Judge(s.Look, thresholds), "a person rolled back from it")
	s.f.Memory.Held = ""
	s.f.Memory.Pending = &hook.Pending{}
	assert.Equal(t, []Code{DeployPending}, codesOf(Judge(s.Look, thresholds)), "one cause, one finding")
}

func TestHookIsMissedOnlyWhereNoTimerDoesItsWork(t *testing.T) {
	s := newScene(t)
	s.f.Lineages[0].Hooked = false
	assert.Empty(t, Judge(s.Look, thresholds))
	s.Schedule.Sync = Timer{}
	assert.ElementsMatch(t, []Code{SyncTimerMissing, CertbotHookMissing}, codesOf(Judge(s.Look, thresholds)))
}

func TestPidFilesAreNotMissedWhileTheFrontWritesItsConfiguration(t *testing.T) {
	s := newScene(t)
	s.f.Inside.Daemons[0].Pid, s.f.Inside.Configuring = "lost", true
	assert.Empty(t, Judge(s.Look, thresholds))
}

func TestClockThatWasSetBackIsNoticedByTheLastDeploy(t *testing.T) {
	s := newScene(t)
	s.f.Memory.Last.At = s.now.Add(time.Hour)
	assert.Equal(t, []Code{ClockSkew}, codesOf(Judge(s.Look, thresholds)))
}

func codesOf(findings []Finding) (codes []Code) {
	for _, f := range findings {
		codes = append(codes, f.Code)
	}
	return codes
}

func TestRenewalIsExpectedWhenCertbotDoesIt(t *testing.T) {
	for life, left := range map[time.Duration]time.Duration{90 * day24: 30 * day24, 45 * day24: 15 * day24, 6 * day24: 3 * day24} {
		s := newScene(t)
		leaf := mint.Leaf{NotBefore: s.now.Truncate(time.Second), NotAfter: s.now.Truncate(time.Second).Add(life)}
		s.f.Lineages[0].Chain = s.issue(leaf)
		r, ok := s.f.Renewal(s.Schedule)
		require.True(t, ok)
		assert.Equal(t, leaf.NotAfter.Add(-left).UTC(), r.From.UTC(), "%s", life)
	}
	s := newScene(t)
	_, ok := s.f.Renewal(Schedule{})
	assert.False(t, ok, "nobody runs certbot")
	s.f.Planned = &Renewal{From: s.now, By: "mailu-hook renew"}
	r, ok := s.f.Renewal(Schedule{})
	assert.True(t, ok)
	assert.Equal(t, *s.f.Planned, r)
}

func TestThresholdsAreDaysOrFractions(t *testing.T) {
	for text, want := range map[string]Threshold{
		"20": {Left: 20 * day24}, "20d": {Left: 20 * day24}, "1.5d": {Left: 36 * time.Hour}, "1": {Left: day24}, "0.5d": {Left: 12 * time.Hour},
		"25%": {Fraction: 0.25}, "0.25": {Fraction: 0.25}, "12.5%": {Fraction: 0.125}, "0": {}, "100%": {Fraction: 1}, "1e9d": {Left: 36500 * day24},
	} {
		got, err := ParseThreshold(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
		again, err := ParseThreshold(got.String())
		require.NoError(t, err)
		assert.Equal(t, got, again, "%s is written %s", text, got)
	}
	for _, text := range []string{"", "soon", "-1", "20h", "101%", "5%d", "NaN", "d", "%"} {
		_, err := ParseThreshold(text)
		assert.Error(t, err, text)
	}
}

func TestTimeLeftIsRoundedDown(t *testing.T) {
	for d, want := range map[time.Duration]string{
		59*day24 + 23*time.Hour: "59 days", 49 * time.Hour: "2 days", 47 * time.Hour: "47 h", 90 * time.Minute: "90 min", -5 * day24: "-5 days", -time.Minute: "-1 min",
	} {
		assert.Equal(t, want, Left(d))
	}
	assert.Equal(t, "66 %", Percent(0.669))
	assert.Equal(t, "0 %", Percent(-3))
}
