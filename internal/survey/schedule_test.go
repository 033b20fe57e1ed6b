package survey

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/health"
	"mailu-hook/internal/mint"
)

// hostWith is a file system with these files.
func hostWith(t *testing.T, files map[string]string) Host {
	t.Helper()
	h := Host{Root: t.TempDir()}
	for name, content := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(h.path(name)), 0o755))
		require.NoError(t, os.WriteFile(h.path(name), []byte(content), 0o644))
	}
	return h
}

const (
	systemd       = "/run/systemd/system/x"
	debianCrontab = "# certbot renew\n0 */12 * * * root test -x /usr/bin/certbot -a \\! -d /run/systemd/system && certbot -q renew\n"
	wants         = "/etc/systemd/system/timers.target.wants/"
)

func TestTimersAreFoundWhereTheyAreArranged(t *testing.T) {
	for name, c := range map[string]struct {
		files         map[string]string
		certbot, sync string
	}{
		"nothing at all":           {nil, "", ""},
		"systemd timers":           {map[string]string{systemd: "", wants + "certbot.timer": "", wants + "mailu-hook-sync.timer": ""}, "certbot.timer", "mailu-hook-sync.timer"},
		"the snap's timer":         {map[string]string{systemd: "", wants + "snap.certbot.renew.timer": ""}, "snap.certbot.renew.timer", ""},
		"timers without systemd":   {map[string]string{wants + "certbot.timer": "", wants + "mailu-hook-sync.timer": ""}, "", ""},
		"units that nobody wants":  {map[string]string{systemd: "", "/lib/systemd/system/certbot.timer": ""}, "", ""},
		"Debian's crontab":         {map[string]string{"/etc/cron.d/certbot": debianCrontab}, "/etc/cron.d/certbot", ""},
		"it steps back of systemd": {map[string]string{systemd: "", "/etc/cron.d/certbot": debianCrontab}, "", ""},
		"our example": {map[string]string{"/etc/cron.d/mailu-hook": "# sync\n*/15 * * * * root mailu-hook sync >/dev/null\n"},
			"", "/etc/cron.d/mailu-hook"},
		"a crontab with comments only": {map[string]string{"/etc/cron.d/mailu-hook": "#*/15 * * * * root mailu-hook sync\n"}, "", ""},
		"root's own crontab":           {map[string]string{"/var/spool/cron/crontabs/root": "@daily certbot renew -q\n*/5 * * * * mailu-hook sync\n"}, "/var/spool/cron/crontabs/root", "/var/spool/cron/crontabs/root"},
		"scripts that run daily":       {map[string]string{"/etc/cron.daily/renew": "#!/bin/sh\n/usr/bin/certbot renew\n"}, "/etc/cron.daily/renew", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := hostWith(t, c.files).Schedule()
			assert.Equal(t, c.certbot, s.Certbot.By)
			assert.Equal(t, c.sync, s.Sync.By)
		})
	}
}

func TestRenewIsToldFromCertbotThatCallsUs(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		renew string
	}{
		"certbot calls us": {map[string]string{"/etc/crontab": "@daily root certbot renew --deploy-hook mailu-hook\n"}, ""},
		"our example":      {map[string]string{"/etc/cron.d/mailu-hook-renew": "37 * * * * root mailu-hook renew >/dev/null\n"}, "/etc/cron.d/mailu-hook-renew"},
		"our timer":        {map[string]string{systemd: "", wants + "mailu-hook-renew.timer": ""}, "mailu-hook-renew.timer"},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.renew, hostWith(t, c.files).Schedule().Renew.By) })
	}
}

func TestTimerThatFiredIsKnownByItsStamp(t *testing.T) {
	h := hostWith(t, map[string]string{systemd: "", wants + "certbot.timer": "", "/var/lib/systemd/timers/stamp-certbot.timer": ""})
	at := time.Now().Add(-100 * time.Hour).Truncate(time.Second)
	require.NoError(t, os.Chtimes(h.path("/var/lib/systemd/timers/stamp-certbot.timer"), at, at))
	assert.Equal(t, at, h.Schedule().Certbot.Last)
}

// What certbot 2.1 logs of renew, less what does not matter here.
const (
	certbotRun     = "2026-11-24 03:12:01,123:DEBUG:certbot._internal.main:certbot version: 2.1.0\n"
	certbotNotDue  = "2026-11-24 03:12:02,123:DEBUG:certbot._internal.display.obj:Notifying user: Processing /etc/letsencrypt/renewal/NAME.conf\n"
	certbotFailure = certbotNotDue + "2026-11-24 03:12:09,123:ERROR:certbot._internal.renewal:Failed to renew certificate NAME with error: timeout during connect\n"
	certbotEnd     = "2026-11-24 03:12:09,123:ERROR:certbot._internal.log:1 renew failure(s), 0 parse failure(s)\n"
	certbotSaved   = "2026-11-24 03:12:09,123:DEBUG:certbot._internal.storage:Writing new config /etc/letsencrypt/renewal/NAME.conf.new.\n"
	certbotOld     = "2026-11-24 03:12:09,123:WARNING:certbot.renewal:Attempting to renew cert (NAME) from /etc/letsencrypt/renewal/NAME.conf produced an unexpected error: timeout during connect. Skipping.\n"
)

func TestTheLastLookOfCertbotDecidesWhetherALineageFails(t *testing.T) {
	mail := func(lines ...string) string {
		return strings.ReplaceAll(strings.Join(lines, ""), "NAME", "mail.example.com")
	}
	www := func(lines ...string) string {
		return strings.ReplaceAll(strings.Join(lines, ""), "NAME", "www.example.com")
	}
	fails := map[string]string{"mail.example.com": "timeout during connect"}
	for name, c := range map[string]struct {
		log  string
		want map[string]string
	}{
		"no log":                          {"", map[string]string{}},
		"not due":                         {mail(certbotRun, certbotNotDue), map[string]string{}},
		"a failure":                       {mail(certbotRun, certbotFailure, certbotEnd), fails},
		"a failure of an old certbot":     {mail(certbotRun, certbotOld), map[string]string{"mail.example.com": "timeout during connect. Skipping."}},
		"and then a run without one":      {mail(certbotRun, certbotFailure, certbotEnd, certbotRun, certbotNotDue), map[string]string{}},
		"and then one that is not renew":  {mail(certbotRun, certbotFailure, certbotEnd, certbotRun), fails},
		"and then one issued by hand":     {mail(certbotRun, certbotFailure, certbotEnd, certbotRun, certbotSaved), map[string]string{}},
		"a failure after a run that went": {mail(certbotRun, certbotNotDue, certbotRun, certbotFailure), fails},
		"one of two sites":                {mail(certbotRun, certbotFailure) + www(certbotNotDue) + certbotEnd, fails},
	} {
		t.Run(name, func(t *testing.T) {
			h := hostWith(t, map[string]string{"/var/log/letsencrypt/letsencrypt.log": c.log})
			assert.Equal(t, c.want, h.Schedule().CertbotFailed)
		})
	}
}

func TestLineageIsCertbotsWhenItHasARenewalConfiguration(t *testing.T) {
	for name, c := range map[string]struct {
		files           map[string]string
		certbot, hooked bool
	}{
		"of no certbot":       {nil, false, false},
		"without a hook":      {map[string]string{"renewal/mail.conf": "renew_hook = reload-web\n# mailu-hook\n"}, true, false},
		"with a renewal hook": {map[string]string{"renewal/mail.conf": "[renewalparams]\nrenew_hook = mailu-hook --project mailu\n"}, true, true},
		"with cli.ini":        {map[string]string{"renewal/mail.conf": "", "cli.ini": "deploy-hook = /usr/local/bin/mailu-hook\n"}, true, true},
		"with a hook file":    {map[string]string{"renewal/mail.conf": "", "renewal-hooks/deploy/mail": "#!/bin/sh\nexec mailu-hook\n"}, true, true},
		"with the program":    {map[string]string{"renewal/mail.conf": "", "renewal-hooks/deploy/mailu-hook": "\x7fELF"}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := hostWith(t, c.files)
			l := health.Lineage{Path: filepath.Join(h.Root, "live", "mail")}
			Certbot(&l)
			assert.Equal(t, c.certbot, l.Certbot)
			assert.Equal(t, c.hooked, l.Hooked)
		})
	}
}

func TestTheNewestLineageOfTheMainNameIsAvailable(t *testing.T) {
	certbot := t.TempDir()
	assert.Empty(t, available(t.Context(), certbot, []string{"mail.example.com"}))
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	for name, leaf := range map[string]mint.Leaf{
		"mail":      {Names: []string{"mail.example.com"}, NotBefore: time.Now().Add(-48 * time.Hour)},
		"mail-0001": {Names: []string{"mail.example.com"}, NotBefore: time.Now().Add(-24 * time.Hour)},
		"www":       {Names: []string{"www.example.com"}},
	} {
		pair, err := ca.Issue(leaf)
		require.NoError(t, err)
		_, err = pair.WriteLineage(certbot, name, 1)
		require.NoError(t, err)
	}
	assert.Equal(t, filepath.Join(certbot, "live", "mail-0001"), available(t.Context(), certbot, []string{"mail.example.com", "imap.example.com"}))
	assert.Empty(t, available(t.Context(), certbot, []string{"imap.example.com"}))
	assert.Empty(t, available(t.Context(), certbot, nil))
}
