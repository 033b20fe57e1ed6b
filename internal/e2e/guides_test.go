package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// guide is a document whose commands are run in their order.
type guide struct {
	file string
	// scenes are what has happened before a line, in shell.
	scenes map[string]string
	// exits are the exit statuses of lines that do not end with 0.
	exits map[string]int
	// after looks at what the guide promises.
	after func(t *testing.T, s *stranger, output string)
}

// notRun are the lines that no test runs here, each with the reason.
var notRun = map[string]string{
	"git clone <this repository> && cd mailu-hook": "there is no other repository than this one",
	"make build":               "it has built the program that the guides call",
	"docker compose pull":      "there is no registry",
	"docker compose up -d":     "a scene does it by docker restart: the front is not Compose's here",
	"journalctl -t mailu-hook": "no journal where systemd is not the first process; TestHookLeavesItsResultInSyslog reads what is sent",
	"journalctl -u mailu-hook-sync.service -u mailu-hook-watch.service": "likewise",
	"mailu-hook install SOURCE":                                         "a form: the lines below it are calls",
	"DNSUPDATE_NAMESERVER=192.0.2.53 DNSUPDATE_TSIG_FILE=/etc/mailu-hook/tsig.key mailu-hook renew --agree-tos     --challenge dns --dns-provider rfc2136 --hostname '*.example.com' --hostname example.com": "TestWildcardAndApexAreValidatedByDynamicUpdate does it with Knot",
	"mailu-hook renew --agree-tos --server https://acme.zerossl.com/v2/DV90 --eab-kid ID --eab-hmac-file /etc/mailu-hook/eab":                                                                                "TestExternalAccountIsBoundOrItsAbsenceExplained does it with Pebble",
}

// onlyShown are the blocks that are no commands, by how they begin, each with the reason.
var onlyShown = map[string]string{
	"$ certbot renew":                        "a screen; the demo plays it",
	"$ mailu-hook status":                    "a screen: TestGuideShowsTheScreenThatThereReallyIs",
	"nagios ALL=(root) NOPASSWD: ":           "a line of sudoers",
	"Nov 27 ":                                "a log: logsAreReal",
	"2026/11/27 ":                            "a log: logsAreReal",
	"MAILU_HOOK_CERTS_DIR=/srv/mail/certs\n": "settings",
	"MAILU_HOOK_PROJECT=mailu\n":             "a setting",
	"/mailu/certs/cert.pem -> ":              "a directory",
	"/var/lib/mailu-hook/deployed/":          "a file",
}

// isShown is how a block begins that is no command.
func (b snippet) isShown() (prefix string) {
	for prefix := range onlyShown {
		if strings.HasPrefix(b.text, prefix) {
			return prefix
		}
	}
	return ""
}

// byOthers are documents whose commands other tests run.
var byOthers = map[string]string{
	"docs/testing.md": "make test is what runs this",
	"docs/compose.md": "compose_test.go runs each example",
	"docs/install.md": "the tests of the packages do it in roots of their own",
	"docs/engines.md": "the tests of the engines",
	"docs/nodes.md":   "the tests of the nodes",
}

// All that the guides say is done, each on a host of its own, with three fronts
// between them.
func TestWhatTheGuidesSayIsDone(t *testing.T) {
	for _, guides := range [][]guide{withCertbot, withOtherClients, withoutCertbot} {
		t.Run(strings.TrimSuffix(filepath.Base(guides[0].file), ".md"), func(t *testing.T) {
			s := aStranger(t)
			s.keeps()
			for _, g := range guides {
				s.sub(g.file, func(t *testing.T) {
					output := s.follows(g)
					if g.after != nil {
						g.after(t, s, output)
					}
				})
			}
		})
	}
}

func TestNoLineOfAGuideIsLeftOut(t *testing.T) {
	t.Parallel()
	root, err := rig.RepositoryRoot()
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	followed := map[string]bool{}
	for _, guides := range [][]guide{withCertbot, withOtherClients, withoutCertbot} {
		for _, g := range guides {
			followed[g.file] = true
		}
	}
	lines := map[string]bool{}
	for _, file := range append(files, filepath.Join(root, "README.md")) {
		name, err := filepath.Rel(root, file)
		require.NoError(t, err)
		for _, b := range blocks(t, name) {
			for _, line := range b.commands() {
				lines[comment.ReplaceAllString(line, "")] = true
			}
			lines[b.isShown()] = true
			assert.True(t, followed[name] || byOthers[name] != "" || b.isShown() != "", "%s:%d: nothing runs this", name, b.number)
		}
	}
	for line := range notRun {
		assert.True(t, lines[line], "no guide says: %s", line)
	}
	for line := range onlyShown {
		assert.True(t, lines[line], "no guide shows %s", line)
	}
}

// switchboard is where dead man's switches are called.
type switchboard struct {
	url   string
	mu    sync.Mutex
	calls []string
}

func newSwitchboard(t *testing.T) *switchboard {
	s := &switchboard{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls = append(s.calls, r.URL.String())
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

const (
	timer  = "cp examples/cron/mailu-hook /etc/cron.d/"
	obtain = `mailu-hook install pair.pem
		mkdir -p /mailu/overrides/nginx/acme
		cp examples/nginx/acme.conf /mailu/overrides/nginx/
		docker exec mailu-front-1 nginx -s reload
		certbot certonly -q --webroot -w /mailu/overrides/nginx/acme -d mail.example.com`
	// The new host is this one, without anything but what was copied.
	moved = `docker stop mailu-front-1
		rm -r /mailu/certs/* /mailu/certs/.mailu-hook /etc/letsencrypt/* /var/lib/mailu-hook/*
		cp -a /mailu/new/mailu/certs/. /mailu/certs/
		cp -a /mailu/new/letsencrypt/. /etc/letsencrypt/
		cp -a /mailu/new/state/. /var/lib/mailu-hook/
		docker start mailu-front-1
		until_ready`
)

var withCertbot = []guide{
	{file: "docs/first-certificate.md", after: func(t *testing.T, s *stranger, output string) {
		assert.Contains(t, output, "all simulated renewals succeeded")
		s.servesCertbots()
	}},
	{file: "docs/several.md", scenes: map[string]string{"mailu-hook status --output json": timer}},
	{file: "docs/monitoring.md", scenes: map[string]string{
		"mailu-hook status --output nagios": timer + "; until_ready",
		"journalctl -t mailu-hook": `sed -n 's/^ExecStart=//p' /etc/systemd/system/mailu-alert@.service | sed 's/%i/mailu-hook-sync.service/g' > /run/alert
			printf '#!/bin/sh\ncat\n' > /usr/sbin/sendmail
			chmod 755 /usr/sbin/sendmail
			sh /run/alert`,
	}, after: logsAreReal},
	{file: "docs/troubleshooting.md", scenes: map[string]string{"mailu-hook status": timer}},
	{file: "docs/upgrading.md", scenes: map[string]string{
		"docker compose up -d": timer + "; docker restart mailu-front-1; until_ready",
	}, after: func(t *testing.T, s *stranger, _ string) { s.servesCertbots() }},
	{file: "docs/faq.md", exits: map[string]int{"mailu-hook status": 2}, after: func(t *testing.T, s *stranger, _ string) { s.waitServing() }},
	{file: "docs/migrating.md", scenes: map[string]string{"docker compose up -d": timer + "; " + moved}, after: func(t *testing.T, s *stranger, _ string) { s.servesCertbots() }},
	{file: "docs/uninstall.md", scenes: map[string]string{
		"systemctl disable --now mailu-hook-sync.timer": "cp -r examples/systemd/* /etc/systemd/system/; systemctl enable mailu-hook-sync.timer mailu-hook-renew.timer; cp examples/cron/mailu-hook /etc/cron.d/",
	}, after: func(t *testing.T, s *stranger, _ string) {
		s.servesCertbots()
		assert.NoFileExists(t, filepath.Join(s.certs(), ".mailu-hook"))
		entries, err := os.ReadDir(filepath.Join(s.root, "state"))
		require.NoError(t, err)
		assert.Empty(t, entries)
	}},
}

var withOtherClients = []guide{
	{file: "docs/sources.md", scenes: map[string]string{
		"mailu-hook install --dry-run /srv/traefik/acme.json": `
			mkdir -p /srv/traefik /root/.acme.sh/mail.example.com_ecc /etc/mailu-hook /var/lib/caddy/.local/share/caddy/certificates/acme/mail.example.com
			cp acme.json /srv/traefik/
			cp key.pem /root/.acme.sh/mail.example.com_ecc/mail.example.com.key; cp fullchain.pem /root/.acme.sh/mail.example.com_ecc/fullchain.cer
			cp key.pem /var/lib/caddy/.local/share/caddy/certificates/acme/mail.example.com/mail.example.com.key
			cp fullchain.pem /var/lib/caddy/.local/share/caddy/certificates/acme/mail.example.com/mail.example.com.crt
			echo secret > /etc/mailu-hook/password
			openssl pkcs12 -export -in fullchain.pem -inkey key.pem -out mail.p12 -passout file:/etc/mailu-hook/password`,
	}},
	{file: "docs/watch.md"},
	{file: "docs/kubernetes.md", scenes: map[string]string{
		"mailu-hook status --ask mail.example.com --ports 25,465,993": "unset MAILU_HOOK_PROJECT # nobody has a front there",
		"mailu-hook install /mnt/mail-tls":                            "MAILU_HOOK_PROJECT=PROJECT; export MAILU_HOOK_PROJECT; mkdir /mnt/mail-tls; cp fullchain.pem /mnt/mail-tls/tls.crt; cp key.pem /mnt/mail-tls/tls.key",
	}},
	{file: "README.md", scenes: map[string]string{
		"ln -s /usr/local/bin/mailu-hook /etc/letsencrypt/renewal-hooks/deploy/": obtain,
		"mailu-hook install /srv/traefik/acme.json":                              "mkdir /srv/traefik; cp acme.json /srv/traefik/",
		"mailu-hook renew --agree-tos --email admin@example.com":                 "certbot delete -q --cert-name mail.example.com",
	}},
}

var withoutCertbot = []guide{
	{file: "docs/renew.md", scenes: map[string]string{
		"mailu-hook renew --agree-tos --server https://ca.internal/acme/acme/directory --ca-file /etc/ssl/my-ca.pem --roots /etc/ssl/my-ca.pem": "cat /etc/ssl/certs/ca-certificates.crt \"$MAILU_HOOK_CA_FILE\" > /etc/ssl/my-ca.pem",
	}},
	{file: "docs/dane.md", scenes: map[string]string{
		"mailu-hook tlsa --lineage /etc/letsencrypt/live/mail.example.com": "mkdir -p /etc/letsencrypt/live; cp -rL /var/lib/mailu-hook/live/mail.example.com /etc/letsencrypt/live/",
	}},
	{file: "docs/reference.md"},
}

// servesCertbots asks every port for what certbot obtained.
func (s *stranger) servesCertbots() {
	s.t.Helper()
	s.showsEverywhere(leafOf(s.t, filepath.Join(s.root, "letsencrypt", "live", mailName, "fullchain.pem")))
}

// logsAreReal holds the log lines that the guide shows to what there was in the logs.
func logsAreReal(t *testing.T, s *stranger, output string) {
	assert.Contains(t, output, "To: admin@example.net\nSubject: mailu-hook-sync.service failed\n")
	changing := regexp.MustCompile(`\d+([.:/#-]\d+)*(ms|s\b)?`)
	plain := func(text string) string {
		return changing.ReplaceAllString(strings.ReplaceAll(text, s.front.Name, "mailu-front-1"), "0")
	}
	real := plain(s.said)
	var lines int
	for _, b := range blocks(t, "docs/monitoring.md") {
		for _, line := range b.commands() {
			_, said, ours := strings.Cut(line, "]: ")
			if !ours || !strings.HasPrefix(line, "Nov ") {
				said = line
			}
			if strings.HasPrefix(line, "Nov ") || strings.HasPrefix(line, "2026/") {
				lines++
				assert.Contains(t, real, plain(strings.ReplaceAll(said, "Nov 27", "")), "%s", line)
			}
		}
	}
	assert.Equal(t, 4, lines)
}

// keeps puts a pair of the lab's CA where the stranger works, in several forms.
func (s *stranger) keeps() {
	pair := s.next()
	s.write("home/acme.json", string(traefikStore(s.t, pair)))
	s.write("home/fullchain.pem", string(pair.Chain))
	s.write("home/key.pem", string(pair.KeyPEM))
	s.write("home/cert.pem", string(pemOf(pair.Cert)))
	s.write("home/chain.pem", string(pair.Chain[len(pemOf(pair.Cert)):]))
	s.write("home/pair.pem", string(pair.Chain)+string(pair.KeyPEM))
}
