package health

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/hook"
	"mailu-hook/internal/dane"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
	"mailu-hook/internal/tlsa"
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
		FrontPaused:     {func(s *scene) { s.stop("paused") }, Critical, "the front mailu-front-1 is paused and answers nobody"},
		FrontRestarting: {func(s *scene) { s.stop("restarting") }, Critical, "the front mailu-front-1 keeps restarting"},
		FrontMissing: {func(s *scene) { s.stop(""); s.NoFront = say.Hint(errors.New("no front container found"), "look") },
			Critical, "no front container found"},
		EngineUnseen: {func(s *scene) {
			s.f.State, s.f.Inside, s.EngineDown, s.NoFront = "", nil, true, say.Hint(errors.New("cannot query the container engine"), "look")
		}, Unknown, "cannot query the container engine"},
		FrontUnhealthy: {func(s *scene) { s.f.Health = "unhealthy" }, Warning, "Docker reports the front mailu-front-1 as unhealthy"},
		NotMailu: {func(s *scene) {
			s.f.Flavor, s.f.Unsuitable = "", say.Hint(errors.New("mailu-front-1: it has no TLS_FLAVOR"), "name another")
		},
			Critical, "it has no TLS_FLAVOR"},
		CertsMount: {func(s *scene) {
			s.f.Unsuitable = say.Hint(errors.New("/certs/cert.pem is mounted as a single file"), "mount")
		},
			Warning, "mounted as a single file"},
		InsideUnseen: {func(s *scene) { s.f.Inside, s.f.InsideErr = nil, errors.New("ps: no") }, Unknown, "cannot see what runs in mailu-front-1: ps: no"},
		NginxDown:    {func(s *scene) { s.f.Inside.Daemons[0].Runs = false; s.refuse(errClosed) }, Critical, "nginx does not run in mailu-front-1"},
		DovecotDown: {func(s *scene) {
			s.f.Inside.Daemons[1] = mailu.Daemon{Name: "dovecot", Pid: "unseen"}
			s.refuse(errClosed, dovecot...)
		},
			Critical, "dovecot does not run in mailu-front-1, so ports 465, 993, 995 and 4190 are closed"},
		PidFileLost:    {func(s *scene) { s.f.Inside.Daemons[0].Pid = "lost" }, Warning, "pid files are missing or wrong in mailu-front-1 (/run/nginx.pid)"},
		WatcherStopped: {func(s *scene) { s.f.Inside.WatcherStopped = true }, Warning, "the certificate watcher in mailu-front-1 is stopped, probably by a deploy that was killed"},
		ChallengeLeft: {func(s *scene) { s.f.Leftover = "/mailu/overrides/nginx/mailu-hook-acme.conf" }, Warning,
			"a run of mailu-hook renew that was killed left /mailu/overrides/nginx/mailu-hook-acme.conf"},
		FrontTLSOff: {func(s *scene) { s.refuse(errClosed, 443); s.refuse(errPlain, 25) }, Critical, "TLS is off in mailu-front-1"},
		PortSilent:  {func(s *scene) { s.refuse(errHangs, 993) }, Critical, "no TLS on port 993 (imaps) of mailu-front-1: no answer within 3s"},
		PortsUnseen: {func(s *scene) { s.refuse(errHangs) }, Unknown, "no port of mailu-front-1 could be reached: port 25 (smtp): no answer within 3s"},
		PairMismatch: {func(s *scene) { s.serve(s.older(), nginx...); s.refuse(errPlain, dovecot...) },
			Critical, "cert.pem and key.pem in /mailu/certs do not appear to match"},
		OutOfStep: {func(s *scene) { s.serve(s.older(), dovecot...) },
			Warning, "mailu-front-1 serves different certificates: nginx the installed one (25 and 443), dovecot an older one (465, 993, 995 and 4190)"},
		NotServed: {func(s *scene) { s.serve(s.older()) }, Warning, "mailu-front-1 serves the certificate issued on "},
		CertExpired: {func(s *scene) { s.everywhere(s.issue(mint.Leaf{NotAfter: s.now.Add(-day24)})) },
			Critical, "the installed certificate, which every port serves, expired on "},
		CertNotYetValid: {func(s *scene) { s.everywhere(s.issue(mint.Leaf{NotBefore: s.now.Add(time.Hour)})) }, Critical, "which is in the future: a clock is wrong"},
		NamesMissing: {func(s *scene) { s.everywhere(s.issue(mint.Leaf{Names: []string{"mail.example.com"}})) },
			Warning, "does not cover imap.example.com (it covers mail.example.com)"},
		HostnamesUnknown: {func(s *scene) { s.f.Hostnames = nil }, Unknown, "no hostname of the mail server is known"},
		ChainIncomplete:  {func(s *scene) { s.everywhere(s.f.Directory.Chain[:1]) }, Critical, `is sent without its issuer "CN=mint intermediate", so most mail clients and servers reject it`},
		CertUnread: {func(s *scene) {
			odd, err := s.ca.Odd(mint.Leaf{NotBefore: s.now.Add(-day24), NotAfter: s.now.Add(80 * day24)})
			require.NoError(s.t, err)
			s.everywhere([]*x509.Certificate{pki.Outline(odd.Chain)})
		}, Warning, "and programs in Go, this one too, do not"},
		ChainUntrusted: {func(s *scene) { s.Roots = x509.NewCertPool() }, Critical, `is not trusted: its chain ends at "CN=mint root", which is not a root of this system`},
		RootsUnseen:    {func(s *scene) { s.Roots, s.RootsErr = nil, errors.New("no roots") }, Unknown, "cannot check whether clients trust the chain: no roots"},
		CertsDirUnseen: {func(s *scene) { s.f.Directory = Directory{Path: "/mailu/certs", Err: fs.ErrPermission} }, Unknown, "cannot look at the certs directory: "},
		InstalledUnseen: {func(s *scene) { s.f.Directory.Chain, s.f.Directory.ChainErr = nil, fs.ErrPermission },
			Unknown, "cannot read the installed certificate: "},
		FileMissing:  {func(s *scene) { s.f.Directory.Key.Kind = Missing }, Critical, "there is no key.pem in /mailu/certs: when the front restarts, TLS will be off"},
		LinkDangling: {func(s *scene) { s.f.Directory.Key = File{"key.pem", Dangling, "gone.pem", nil} }, Critical, "key.pem in /mailu/certs points to gone.pem, which does not exist: when the front restarts, TLS will be off"},
		LinkOutward:  {func(s *scene) { s.f.Directory.Key = File{"key.pem", Outward, "/etc/x.pem", nil} }, Critical, "key.pem in /mailu/certs points to /etc/x.pem, which is outside the directory and does not exist in the container"},
		CertDamaged: {func(s *scene) { s.f.Directory.Chain, s.f.Directory.ChainErr = nil, errors.New("no certificate in it") },
			Critical, "cert.pem in /mailu/certs contains no certificate: no certificate in it"},
		LinksReplaced: {func(s *scene) { s.f.Directory.Cert.Kind = Plain }, Warning, "mailu-hook's links were replaced: cert.pem and key.pem in /mailu/certs may not match"},
		WrittenThrough: {func(s *scene) { s.f.Directory.Live = "20261123T150536Z-3076aa61" }, Warning,
			"something wrote through mailu-hook's link cert.pem: the certificate installed as 3076aa61 was overwritten with "},
		NotAdopted: {func(s *scene) {
			s.f.Directory.Used, s.f.Directory.Cert.Kind, s.f.Directory.Key.Kind = false, Plain, Link
		},
			Warning, "/mailu/certs holds a certificate that mailu-hook did not install"},
		StateUnseen:  {func(s *scene) { s.f.MemoryErr = fmt.Errorf("opening: %w", fs.ErrPermission) }, Unknown, "cannot see whether a deploy is unfinished"},
		StateDamaged: {func(s *scene) { s.f.MemoryErr = errors.New("state.json: damaged") }, Warning, "the state of earlier deploys cannot be read: state.json: damaged"},
		DeployPending: {func(s *scene) { s.f.Memory.Pending = &hook.Pending{Since: s.now, Reason: "nginx objects", Next: s.now} },
			Warning, "a deploy has been unfinished since "},
		DeployFailed: {func(s *scene) {
			s.f.Memory.Last.Outcome, s.f.Memory.Last.Error, s.f.Memory.Pending = hook.OutcomeRollbackFailed, "port 993", &hook.Pending{}
		}, Critical, "failed, and so did its rollback: port 993"},
		LineageNewer: {func(s *scene) { s.f.Lineages[0].Chain = s.issue(mint.Leaf{NotBefore: s.now.Add(-time.Minute)}) },
			Warning, "/live/mail was renewed on "},
		LineageGone: {func(s *scene) {
			s.f.Lineages[0] = Lineage{Path: "/live/mail", Err: fs.ErrNotExist, Gone: true, Last: true}
		}, Warning, "the lineage /live/mail, which the installed certificate came from, no longer exists"},
		LineageUnseen:  {func(s *scene) { s.f.Lineages[0] = Lineage{Path: "/live/mail", Err: fs.ErrPermission} }, Unknown, "cannot read the lineage: "},
		LineageDamaged: {func(s *scene) { s.f.Lineages[0] = Lineage{Path: "/live/mail", Err: errors.New("no PEM")} }, Warning, "no certificate can be read from the lineage /live/mail: no PEM"},
		TLSAMismatch: {func(s *scene) {
			s.f.DANE = []tlsa.Host{s.host("mail.example.com", true, dane.OfLeaf(s.f.Directory.Chain[0])), s.host("imap.example.com", false, dane.OfLeaf(s.older()[0])), s.host("mx.example.com", true, dane.OfLeaf(s.older()[0]))}
		}, Critical, "no TLSA record of mx.example.com matches what port 25 serves, so mail servers that check DANE do not deliver"},
		TLSAUnseen: {func(s *scene) {
			s.f.Memory.Published, s.f.DANE = true, []tlsa.Host{{Name: "mx.example.com", Err: errors.New("SERVFAIL")}}
		},
			Unknown, "the TLSA records of mx.example.com could not be checked: SERVFAIL"},
		ClockSkew: {func(s *scene) { s.Engine.Ahead = -2 * time.Minute }, Warning, "the clocks of the Docker engine and of this host differ by 2m0s"},
		CertbotTimerMissing: {func(s *scene) { s.Schedule.Certbot = Timer{} },
			Warning, "no timer or cron job on this host runs certbot renew, so no certificate is renewed"},
		CertbotTimerIdle: {func(s *scene) { s.Schedule.Certbot.Last = s.now.Add(-4 * day24) }, Warning, "certbot.timer should run certbot renew, but has not since "},
		CertbotFailing: {func(s *scene) {
			s.Schedule.CertbotFailed = map[string]string{"mail": "timeout during connect", "www": "another site's"}
		}, Warning, `certbot could not renew /live/mail: "timeout during connect"`},
		CertbotHookMissing: {func(s *scene) { s.f.Lineages[0].Hooked = false }, Warning,
			"certbot does not call mailu-hook after renewing /live/mail, so a renewal is installed only by the next mailu-hook sync"},
		SyncTimerMissing: {func(s *scene) { s.Schedule.Sync = Timer{} }, Warning, "no timer or cron job on this host runs mailu-hook sync, so a failed deploy would not be retried"},
		SyncTimerIdle: {func(s *scene) { s.f.Memory.LastSync = s.now.Add(-25 * time.Hour) }, Warning,
			"mailu-hook-sync.timer should run mailu-hook sync, but sync has not completed since "},
		RenewTimerMissing: {func(s *scene) { s.f.Planned = &Renewal{}; s.Schedule.Renew = Timer{} }, Warning,
			"no timer or cron job on this host runs mailu-hook renew, so no certificate is renewed"},
		RenewTimerIdle: {func(s *scene) { s.f.Planned = &Renewal{Ran: s.now.Add(-4 * day24)} }, Warning,
			"mailu-hook-renew.timer should run mailu-hook renew, but renew has not looked at the certificate since "},
		RenewFailing: {func(s *scene) { s.f.Planned = &Renewal{Failures: 3, Failure: "rateLimited"} }, Warning,
			"the last 3 runs of mailu-hook renew failed: rateLimited"},
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

func TestAFrontWithoutACertificateIsOneFinding(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*scene)
		remedy  string
	}{
		"certbot has one":     {func(s *scene) { s.f.Available = "/etc/letsencrypt/live/mail" }, "run: mailu-hook install /etc/letsencrypt/live/mail"},
		"renew has got one":   {func(s *scene) { s.f.Planned = &Renewal{} }, "run: mailu-hook renew --now"},
		"nobody has got any":  {func(*scene) {}, "mailu-hook renew --agree-tos"},
		"a front that is old": {func(s *scene) { s.f.Inside.NginxOnly = true }, "mailu-hook renew --agree-tos"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.f.Directory = Directory{Path: "/mailu/certs", Cert: File{Name: "cert.pem", Kind: Missing}, Key: File{Name: "key.pem", Kind: Missing}}
			s.f.Lineages, s.f.Memory = nil, hook.State{}
			s.f.Inside.Daemons[1] = mailu.Daemon{Name: "dovecot", Pid: mailu.PidUnseen}
			s.refuse(errClosed)
			s.refuse(errPlain, 25)
			c.prepare(s)
			findings := Judge(s.Look, thresholds)
			require.Len(t, findings, 1, "%+v", findings)
			assert.Equal(t, FileMissing, findings[0].Code)
			assert.Equal(t, Critical, findings[0].Severity)
			assert.Equal(t, "there is no certificate in /mailu/certs yet, so the front has no TLS", findings[0].Text)
			assert.Contains(t, findings[0].Remedy, c.remedy)
		})
	}
}

func TestPortsThatCannotBeReachedAreNotExplainedByAMissingCertificate(t *testing.T) {
	s := newScene(t)
	s.f.Directory = Directory{Path: "/mailu/certs", Cert: File{Name: "cert.pem", Kind: Missing}, Key: File{Name: "key.pem", Kind: Missing}}
	s.f.Lineages = nil
	s.refuse(errHangs)
	assert.ElementsMatch(t, []Code{FileMissing, PortsUnseen}, codesOf(Judge(s.Look, thresholds)))
	s.f.State, s.f.Inside, s.EngineDown, s.NoFront = "", nil, true, errors.New("no engine")
	s.refuse(errClosed)
	assert.ElementsMatch(t, []Code{EngineUnseen, FileMissing, PortsUnseen}, codesOf(Judge(s.Look, thresholds)), "nobody saw the front run")
}

func TestFlavorCountsByWhatIsServed(t *testing.T) {
	for flavor, want := range map[string]Severity{"letsencrypt": Warning, "mail-letsencrypt": Warning, "notls": Critical, "certs": Critical} {
		s := newScene(t)
		s.f.Flavor = flavor
		s.f.Unsuitable = s.f.CheckFlavor()
		s.f.Directory.Cert.Kind, s.f.Directory.Chain = Missing, s.older() // it does not read that
		findings := Judge(s.Look, thresholds)
		require.Len(t, findings, 1, "%s: %+v", flavor, findings)
		assert.Equal(t, TLSFlavor, findings[0].Code)
		assert.Equal(t, want, findings[0].Severity, flavor)
		assert.Equal(t, Uncompared, s.f.Shows(s.f.Endpoints[0]), "with what it does not read")
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
	s.f.Memory.RolledBackFrom = []string{pki.Fingerprint(newer[0])}
	assert.Empty(t, Judge(s.Look, thresholds), "someone rolled back from it")
	s.f.Memory.RolledBackFrom = nil
	s.f.Memory.Pending = &hook.Pending{}
	assert.Equal(t, []Code{DeployPending}, codesOf(Judge(s.Look, thresholds)), "one cause, one finding")
}

func TestHostsThatShareTheDirectoryAreJudgedByWhatTheySay(t *testing.T) {
	s := newScene(t)
	leaf := pki.Fingerprint(s.f.Directory.Chain[0])
	for name, c := range map[string]struct {
		node hook.Node
		want []Code
	}{
		"it serves the installed one": {hook.Node{Front: "f", Leaf: leaf, At: s.now}, nil},
		"it has no front":             {hook.Node{At: s.now}, nil},
		"it serves another":           {hook.Node{Front: "f", Leaf: "00", At: s.now}, []Code{NodeBehind}},
		"its engine is away":          {hook.Node{Pending: "no answer", At: s.now}, []Code{NodeBehind}},
		"nobody heard of it":          {hook.Node{Front: "f", Leaf: leaf, At: s.now.Add(-time.Hour)}, []Code{NodeDown}},
	} {
		c.node.Name = "mail2"
		s.f.Nodes = []hook.Node{c.node}
		findings := Judge(s.Look, thresholds)
		assert.Equal(t, c.want, codesOf(findings), name)
		for _, f := range findings {
			assert.Contains(t, f.Text, "mail2", name)
		}
	}
}

func TestALineageIsMissedWhereSyncWouldInstallIt(t *testing.T) {
	s := newScene(t)
	installed := s.f.Directory.Chain[0]
	s.f.Memory.Origins = map[string]string{pki.Fingerprint(installed): "/live/mail"}
	other := Lineage{Path: "/live/mail-0001", Chain: s.issue(mint.Leaf{NotBefore: s.now.Add(-time.Minute)}), Certbot: true, Hooked: true}
	s.f.Lineages = append(s.f.Lineages, other)
	assert.Empty(t, Judge(s.Look, thresholds), "a newer one of another lineage waits until the installed one is due")
	s.f.Lineages[0].Chain = s.issue(mint.Leaf{NotBefore: installed.NotBefore})
	findings := Judge(s.Look, thresholds)
	require.Equal(t, []Code{LineageNewer}, codesOf(findings), "a reissue of its own does not, whatever its dates")
	assert.Contains(t, findings[0].Text, "/live/mail was renewed on ")
	pinned := thresholds
	pinned.Pinned = "/live/mail-0001"
	findings = Judge(s.Look, pinned)
	require.Equal(t, []Code{LineageNewer}, codesOf(findings))
	assert.Contains(t, findings[0].Text, "/live/mail-0001 was renewed on ")
}

func TestCertificatesOfOtherSitesAreNeitherOlderNorNewerOnes(t *testing.T) {
	s := newScene(t)
	web := func(age time.Duration) []*x509.Certificate {
		return s.issue(mint.Leaf{Names: []string{"www.example.com"}, NotBefore: s.now.Add(-age)})
	}
	s.f.Lineages = append(s.f.Lineages, Lineage{Path: "/live/www", Chain: web(time.Minute)})
	assert.Empty(t, Judge(s.Look, thresholds), "a lineage that was named by mistake is not to be deployed")
	s.serve(web(30*day24), 443)
	assert.Equal(t, Other, s.f.Shows(s.f.Endpoints[1]))
	s.serve(s.older(), 443)
	assert.Equal(t, Older, s.f.Shows(s.f.Endpoints[1]))
}

func TestClosedPortsOfAFrontThatNobodySawAreNoProof(t *testing.T) {
	s := newScene(t)
	s.f.State, s.f.Inside, s.EngineDown, s.NoFront = "", nil, true, errors.New("no engine")
	s.refuse(errClosed)
	assert.ElementsMatch(t, []Code{EngineUnseen, PortsUnseen}, codesOf(Judge(s.Look, thresholds)))
	s = newScene(t)
	s.refuse(errClosed)
	assert.Equal(t, []Code{PortSilent}, codesOf(Judge(s.Look, thresholds)), "one that runs has closed them")
}

func TestMailu20MissesNoDovecot(t *testing.T) {
	s := newScene(t)
	s.f.Inside.NginxOnly, s.f.Inside.Daemons[1] = true, mailu.Daemon{Name: "dovecot", Pid: "unseen"}
	assert.Empty(t, Judge(s.Look, thresholds))
}

func TestAResolverThatCannotTellIsNoFindingWhereNobodyUsesDANE(t *testing.T) {
	s := newScene(t)
	unknown := tlsa.Host{Name: "mx.example.com", Err: errors.New("NOTIMP")}
	s.f.DANE = []tlsa.Host{unknown, s.host("mail.example.com", true)}
	assert.Empty(t, Judge(s.Look, thresholds))
	required := thresholds
	required.RequireDANE = true
	assert.Equal(t, []Code{TLSAUnseen}, codesOf(Judge(s.Look, required)))
	s.f.DANE = []tlsa.Host{unknown, s.host("mail.example.com", false, dane.OfLeaf(s.f.Directory.Chain[0]))}
	assert.Equal(t, []Code{TLSAUnseen}, codesOf(Judge(s.Look, thresholds)), "another host uses it")
}

func TestATimerWhoseUnitFailsEachTimeDoesNotPassForSync(t *testing.T) {
	s := newScene(t)
	s.f.Memory.LastSync = time.Time{}
	s.Schedule.Sync.Last = s.now // it fired
	assert.Empty(t, Judge(s.Look, thresholds), "the first deploy is a minute old")
	s.f.Memory.Last.At = s.now.Add(-25 * time.Hour)
	findings := Judge(s.Look, thresholds)
	require.Equal(t, []Code{SyncTimerIdle}, codesOf(findings))
	assert.Contains(t, findings[0].Text, "sync has never completed")
	assert.Equal(t, "systemctl status mailu-hook-sync.service shows why", findings[0].Remedy)
	s.Schedule.Sync = Timer{By: "/etc/cron.d/mailu-hook"}
	assert.Equal(t, "run mailu-hook sync to see why", Judge(s.Look, thresholds)[0].Remedy)
	s.f.Memory.LastSync = s.now.Add(-23 * time.Hour)
	assert.Empty(t, Judge(s.Look, thresholds), "however it ended")
}

func TestATimerThatFiresDoesNotPassForRenew(t *testing.T) {
	s := newScene(t)
	s.f.Planned = &Renewal{Ran: s.now.Add(-4 * day24)}
	s.Schedule.Renew.Last = s.now // it fired
	findings := Judge(s.Look, thresholds)
	require.Equal(t, []Code{RenewTimerIdle}, codesOf(findings))
	assert.Equal(t, "systemctl status mailu-hook-renew.service shows why", findings[0].Remedy)
	s.Schedule.Renew = Timer{By: "/etc/cron.d/mailu-hook-renew"}
	assert.Equal(t, "run mailu-hook renew to see why", Judge(s.Look, thresholds)[0].Remedy)
	s.f.Planned.Ran = s.now.Add(-2 * day24)
	assert.Empty(t, Judge(s.Look, thresholds))
}

func TestAnAgentTakesThePlaceOfTimersAndHooks(t *testing.T) {
	s := newScene(t)
	s.Schedule.Sync, s.Schedule.Renew, s.f.Planned, s.f.Lineages[0].Hooked = Timer{}, Timer{}, &Renewal{}, false
	assert.ElementsMatch(t, []Code{SyncTimerMissing, RenewTimerMissing, CertbotHookMissing}, codesOf(Judge(s.Look, thresholds)))
	s.f.Memory.SyncedBy = hook.Watch
	assert.Equal(t, []Code{RenewTimerMissing}, codesOf(Judge(s.Look, thresholds)), "it does not renew")
	s.f.Memory.SyncedBy = hook.WatchRenew
	assert.Empty(t, Judge(s.Look, thresholds))
	s.f.Memory.LastSync = s.now.Add(-25 * time.Hour)
	findings := Judge(s.Look, thresholds)
	require.Equal(t, []Code{SyncTimerIdle}, codesOf(findings))
	assert.Contains(t, findings[0].Text, "mailu-hook watch --renew should run mailu-hook sync, but sync has not completed since ")
}

func TestWithoutAHookAndATimerNothingInstallsARenewal(t *testing.T) {
	s := newScene(t)
	s.f.Lineages[0].Path, s.f.Lineages[0].Hooked = "/etc/letsencrypt/live/mail", false
	s.Schedule.Sync = Timer{}
	findings := Judge(s.Look, thresholds)
	require.ElementsMatch(t, []Code{SyncTimerMissing, CertbotHookMissing}, codesOf(findings))
	hook := findings[slices.Index(codesOf(findings), CertbotHookMissing)]
	assert.Contains(t, hook.Text, "so renewals are not installed")
	assert.Equal(t, "ln -s /usr/bin/mailu-hook /etc/letsencrypt/renewal-hooks/deploy/", hook.Remedy)
}

func TestRemedyForAMissingTimerFitsHowTheProgramWasInstalled(t *testing.T) {
	const packaged = "/usr/share/doc/mailu-hook/examples"
	for want, setup := range map[string]Setup{
		"systemctl enable --now mailu-hook-renew.timer":                                                                {Examples: packaged, Systemd: true, Units: []string{"mailu-hook-renew.timer"}},
		"cp examples/systemd/mailu-hook-renew.* /etc/systemd/system/ && systemctl enable --now mailu-hook-renew.timer": {Examples: "examples", Systemd: true, Units: []string{"mailu-hook-sync.timer"}},
		"cp " + packaged + "/cron/mailu-hook-renew /etc/cron.d/":                                                       {Examples: packaged, CronD: true, Units: []string{"mailu-hook-renew.timer"}},
		"add the last line of " + packaged + "/cron/mailu-hook-renew, without root, to root's crontab: crontab -e":     {Examples: packaged},
	} {
		s := newScene(t)
		s.f.Planned, s.Schedule.Renew, s.Setup = &Renewal{}, Timer{}, setup
		findings := Judge(s.Look, thresholds)
		require.Equal(t, []Code{RenewTimerMissing}, codesOf(findings))
		assert.Equal(t, want, findings[0].Remedy)
	}
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

func TestADeployThatIsUnderWayIsNoFindingUntilItHangs(t *testing.T) {
	s := newScene(t)
	s.f.Memory.Pending = &hook.Pending{Since: s.now, Reason: "a run began and did not finish", Deadline: s.now.Add(time.Minute)}
	s.f.Inside.WatcherStopped, s.f.Inside.Daemons[0].Pid = true, mailu.PidLost // as a deploy makes them for a while
	unfinished := []Code{PidFileLost, WatcherStopped, DeployPending}
	assert.ElementsMatch(t, unfinished, codesOf(Judge(s.Look, thresholds)), "the run that began it has died")
	s.f.Locked = true
	assert.Empty(t, Judge(s.Look, thresholds))
	s.Look.At = s.now.Add(time.Minute)
	assert.ElementsMatch(t, unfinished, codesOf(Judge(s.Look, thresholds)), "it hangs")
}
