package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// environment is a front's, with pairs of name and value on top.
func environment(pairs ...string) map[string]string {
	env := map[string]string{"HOSTNAMES": "mail.example.com,imap.example.com", "TLS_FLAVOR": "cert"}
	for pair := range slices.Chunk(pairs, 2) {
		env[pair[0]] = pair[1]
	}
	return env
}

func settingsOf(t *testing.T, pairs ...string) *settings {
	t.Helper()
	s, err := newSettings(environment(pairs...))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func portsOf(set map[string]bool) string {
	return strings.Join(slices.Sorted(maps.Keys(set)), " ")
}

func TestEnvironmentMeansWhatSocrateMakesOfIt(t *testing.T) {
	for _, c := range []struct {
		name              string
		env               []string
		ports, tls, proxy string
	}{
		{"defaults", nil, "25 4190 443 465 80 993 995", "443 465 993 995", ""},
		{"notls", []string{"TLS_FLAVOR", "notls"}, "25 4190 80", "", ""},
		{"ports leave TLS alone", []string{"PORTS", "25,587"}, "25 587", "443 465 993 995", ""},
		{"TLS knows four ports", []string{"PORTS", "25", "TLS", "25,993"}, "25", "993", ""},
		{"items are not trimmed", []string{"PORTS", "25, 143"}, " 143 25", "443 465 993 995", ""},
		{"proxy by number", []string{"PORTS", "25", "PROXY_PROTOCOL", "25,,443"}, "25", "443 465 993 995", "25 443"},
		{"proxy for mail", []string{"PORTS", "25", "PROXY_PROTOCOL", "mail"}, "25", "443 465 993 995",
			"110 143 25 4190 465 587 993 995"},
		{"proxy for all but http", []string{"PORTS", "25", "PROXY_PROTOCOL", "all-but-http"}, "25", "443 465 993 995",
			"110 143 25 4190 443 465 587 993 995"},
		{"proxy for all", []string{"PORTS", "25", "PROXY_PROTOCOL", "all"}, "25", "443 465 993 995",
			"110 143 25 4190 443 465 587 80 993 995"},
		{"2.0 heeds neither list", []string{"FRONT_VARIANT", "2.0", "PORTS", "25", "TLS", "443", "PROXY_PROTOCOL", "http"},
			"110 143 25 4190 443 465 587 80 993 995", "443 465 993 995", "443 80"},
		{"2.0 knows no port numbers", []string{"FRONT_VARIANT", "2.0", "PROXY_PROTOCOL", "443"},
			"110 143 25 4190 443 465 587 80 993 995", "443 465 993 995", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := settingsOf(t, c.env...)
			if got := portsOf(s.ports); got != c.ports {
				t.Errorf("PORT_n: %q, want %q", got, c.ports)
			}
			if got := portsOf(s.tls); got != c.tls {
				t.Errorf("TLS_n: %q, want %q", got, c.tls)
			}
			if got := portsOf(s.proxy); got != c.proxy {
				t.Errorf("PROXY_PROTOCOL_n: %q, want %q", got, c.proxy)
			}
		})
	}
}

func TestEnvironmentThatMailuDiesOfIsAnError(t *testing.T) {
	for _, pair := range [][]string{
		{"PROXY_PROTOCOL", "443,none"}, {"PROXY_PROTOCOL", "25, 443"}, {"TLS_FLAVOR", ""}, {"TLS_FLAVOR", "certs"},
	} {
		if _, err := newSettings(environment(pair...)); err == nil {
			t.Errorf("%q was accepted", pair)
		}
	}
}

func TestFlavorDecidesWhichFilesAreRead(t *testing.T) {
	own := []string{"TLS_CERT_FILENAME", "sub/c.pem", "TLS_KEYPAIR_FILENAME", "k.pem"}
	for flavor, cert := range map[string]string{
		"cert": "/certs/sub/c.pem", "mail": "/certs/sub/c.pem", "notls": "",
		"letsencrypt": "/certs/letsencrypt/live/mailu/nginx-chain.pem",
	} {
		if s := settingsOf(t, append(own, "TLS_FLAVOR", flavor)...); s.Cert != cert {
			t.Errorf("%s reads %q, want %q", flavor, s.Cert, cert)
		}
	}
}

func TestTemplatesOpenWhatTheSettingsSay(t *testing.T) {
	for _, c := range []struct {
		name     string
		env      []string
		tlsError bool
		template string
		has      []string
		hasNot   []string
	}{
		{"flavor cert", nil, false, "nginx.conf.tmpl",
			[]string{"listen 80;", "return 301", "listen 443 ssl;", "starttls on;", "include /overrides/", "pid /var/run/nginx.pid;"},
			[]string{"return 403", "proxy_protocol", "listen 993", "set_real_ip_from"}},
		{"files missing", nil, true, "nginx.conf.tmpl",
			[]string{"listen 25;", "return 403", "listen 127.0.0.1:10204;"},
			[]string{"listen 443", "tls.conf", "starttls", "overrides"}},
		{"files missing behind a proxy", []string{"TLS_FLAVOR", "mail"}, true, "nginx.conf.tmpl",
			[]string{"listen 80;", "include /overrides/"}, []string{"return 403", "return 301", "listen 443"}},
		{"no port 80", []string{"PORTS", "25"}, false, "nginx.conf.tmpl",
			[]string{"listen 443 ssl;"}, []string{"listen 80", "return 301"}},
		{"no TLS on 443", []string{"TLS", "993"}, false, "nginx.conf.tmpl",
			[]string{"starttls on;", "include /overrides/"}, []string{"listen 443"}},
		{"proxies", []string{"PROXY_PROTOCOL", "25,443", "REAL_IP_FROM", "10.0.0.1,10.1.0.0/16"}, false, "nginx.conf.tmpl",
			[]string{"listen 25 proxy_protocol;", "listen 443 ssl proxy_protocol;", "listen 80;",
				"real_ip_header proxy_protocol;", "set_real_ip_from 10.1.0.0/16;"}, nil},
		{"IPv6", []string{"SUBNET6", "fd00::/64"}, false, "nginx.conf.tmpl",
			[]string{"listen 443 ssl; listen [::]:443 ssl;"}, nil},
		{"2.0", []string{"FRONT_VARIANT", "2.0", "PROXY_PROTOCOL", "mail"}, false, "nginx.conf.tmpl",
			[]string{"listen 443 ssl;", "listen 993 ssl proxy_protocol;", "listen 587 proxy_protocol;", "starttls only;"},
			[]string{"listen 4190"}},
		{"2.0, files missing", []string{"FRONT_VARIANT", "2.0"}, true, "nginx.conf.tmpl",
			[]string{"listen 25;"}, []string{"listen 143", "listen 993"}},
		{"dovecot", nil, false, "dovecot.conf.tmpl",
			[]string{"ssl_cert = </certs/cert.pem", "port = 993", "port = 995", "port = 465", "port = 4190"},
			[]string{"port = 143", "port = 110", "port = 587", "haproxy = yes"}},
		{"dovecot, files missing", nil, true, "dovecot.conf.tmpl", []string{"ssl = required", "ssl_cert = <"}, nil},
		{"dovecot, notls", []string{"TLS_FLAVOR", "notls"}, false, "dovecot.conf.tmpl",
			[]string{"ssl = no", "port = 4190"}, []string{"ssl_cert", "port = 993", "port = 465"}},
		{"dovecot, 995 needs both lists", []string{"PORTS", "143,110,587"}, false, "dovecot.conf.tmpl",
			[]string{"port = 143", "port = 110", "port = 587", "port = 993", "port = 465"},
			[]string{"port = 995", "port = 4190"}},
		{"dovecot, proxies", []string{"PROXY_PROTOCOL", "mail", "REAL_IP_FROM", "10.0.0.1,10.1.0.0/16"}, false, "dovecot.conf.tmpl",
			[]string{"haproxy = yes", "haproxy_trusted_networks = 10.0.0.1 10.1.0.0/16\n"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := settingsOf(t, c.env...)
			s.TLSError = c.tlsError
			out, err := render(c.template, s)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.has {
				if !strings.Contains(string(out), want) {
					t.Errorf("%q is not in:\n%s", want, out)
				}
			}
			for _, unwanted := range c.hasNot {
				if strings.Contains(string(out), unwanted) {
					t.Errorf("%q is in:\n%s", unwanted, out)
				}
			}
		})
	}
}

func TestOnlyRegularPIDFilesAreDeleted(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"nginx.pid", "dovecot/master.pid", "dovecot/master.txt", "kept"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("kept", filepath.Join(dir, "link.pid")); err != nil {
		t.Fatal(err)
	}
	removePIDFiles(dir)
	for name, want := range map[string]bool{
		"nginx.pid": false, "dovecot/master.pid": false, "dovecot/master.txt": true, "kept": true, "link.pid": true,
	} {
		if exists(filepath.Join(dir, name)) != want {
			t.Errorf("%s: there is %v, want %v", name, !want, want)
		}
	}
}

// replies sums up what the watcher does about a change.
func replies(before, after snapshot) (reloads, runs int) {
	for _, e := range diff(before, after) {
		switch react(e, "/certs/cert.pem", "/certs/key.pem") {
		case reload:
			reloads++
		case reconfigure:
			runs++
		}
	}
	return reloads, runs
}

func TestWatcherRepliesToEachKindOfChange(t *testing.T) {
	file := func(ino uint64, mtime int64) entry { return entry{id: fileID{1, ino}, mtime: mtime} }
	pair := snapshot{"/certs/cert.pem": file(1, 1), "/certs/key.pem": file(2, 1)}
	with := func(pairs map[string]entry) snapshot {
		s := maps.Clone(pair)
		maps.Copy(s, pairs)
		return s
	}
	for _, c := range []struct {
		name          string
		before, after snapshot
		reloads, runs int
	}{
		{"nothing", pair, pair, 0, 0},
		{"another file", pair, with(snapshot{"/certs/x.pem": file(9, 1)}), 0, 0},
		{"both overwritten", pair, with(snapshot{"/certs/cert.pem": file(1, 2), "/certs/key.pem": file(2, 2)}), 2, 0},
		{"same time, other size", pair, with(snapshot{"/certs/key.pem": {id: fileID{1, 2}, mtime: 1, size: 5}}), 1, 0},
		{"link above both switched", pair, with(snapshot{"/certs/cert.pem": file(3, 1), "/certs/key.pem": file(4, 1)}), 0, 4},
		{"renamed over, seen before", with(snapshot{"/certs/new": file(3, 1)}), with(snapshot{"/certs/cert.pem": file(3, 1)}), 0, 2},
		{"moved away", pair, snapshot{"/certs/old": file(1, 1), "/certs/key.pem": file(2, 1)}, 0, 1},
		{"deleted", pair, snapshot{"/certs/key.pem": file(2, 1)}, 0, 1},
		{"created", snapshot{}, pair, 0, 2},
		{"exchanged", pair, snapshot{"/certs/cert.pem": file(2, 1), "/certs/key.pem": file(1, 1)}, 0, 2},
		{"a directory of that name", snapshot{}, snapshot{"/certs/cert.pem": {id: fileID{1, 5}, dir: true}}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			reloads, runs := replies(c.before, c.after)
			if reloads != c.reloads || runs != c.runs {
				t.Errorf("%d reloads and %d runs, want %d and %d", reloads, runs, c.reloads, c.runs)
			}
		})
	}
}

func TestWatcherLooksThroughLinks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cert.pem")
	for _, generation := range []string{"g1", "g2"} {
		if err := os.MkdirAll(filepath.Join(dir, generation), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, generation, "cert.pem"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	point := func(target string) snapshot {
		os.Remove(path)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		snap, err := take(dir)
		if err != nil {
			t.Fatal(err)
		}
		return snap
	}
	first, second, nowhere := point("g1/cert.pem"), point("g2/cert.pem"), point("g3/cert.pem")
	want := []event{{op: deleted, path: path}, {op: created, path: path}}
	if got := diff(first, second); !slices.Equal(got, want) {
		t.Errorf("switching the link: %v, want %v", got, want)
	}
	if got := diff(second, nowhere); !slices.Equal(got, want[:1]) {
		t.Errorf("a link to nowhere: %v, want %v", got, want[:1])
	}
}

func TestQueueSkipsARepeatThatStillWaits(t *testing.T) {
	q := newQueue()
	cert, key := event{op: modified, path: "cert"}, event{op: modified, path: "key"}
	for _, e := range []event{cert, cert, key, cert} {
		q.put(e)
	}
	for i, want := range []event{cert, key, cert} {
		if got := q.get(); got != want {
			t.Errorf("event %d: %v, want %v", i, got, want)
		}
	}
	go q.put(key)
	if got := q.get(); got != key {
		t.Errorf("awaited event: %v, want %v", got, key)
	}
}
