package acme

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/say"
)

// programOf is an exec provider in raw mode, which needs no DNS.
func programOf(t *testing.T, script string) (p *program, dir string) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, "dns.sh")
	write := exec.Command("sh", "-c", "cat >"+path+" && chmod 700 "+path) // by another process: golang/go#22315
	write.Stdin = strings.NewReader("#!/bin/sh\ncd " + dir + "\n" + script)
	require.NoError(t, write.Run())
	variables := map[string]string{"EXEC_PATH": path, "EXEC_MODE": "RAW", "EXEC_SEQUENCE_INTERVAL": "7"}
	p, err := newProgram(func(name string) string { return variables[name] })
	require.NoError(t, err)
	assert.Equal(t, 7*time.Second, p.Sequential())
	return p, dir
}

func TestTheProgramEndsWithItsChildrenWhenTheTimeIsUp(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"a child":              "sleep 1000 &\necho $! >pid\nwait\n",
		"one that is stubborn": "trap '' TERM\n(trap '' TERM; sleep 1000) &\necho $! >pid\nwait\nwait\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, dir := programOf(t, script)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			failed := make(chan error, 1)
			go func() { failed <- p.present(ctx, "mail.example.com", "token", "key") }()
			var pid int
			require.Eventually(t, func() bool {
				data, _ := os.ReadFile(filepath.Join(dir, "pid"))
				pid, _ = strconv.Atoi(strings.TrimSpace(string(data)))
				return pid > 0
			}, 10*time.Second, 5*time.Millisecond)
			cancel(errors.New("the time is up"))
			select {
			case err := <-failed:
				require.ErrorContains(t, err, "the time is up")
			case <-time.After(20 * time.Second):
				require.Fail(t, "the program was not ended")
			}
			assert.Eventually(t, func() bool { return !alive(pid) }, 10*time.Second, 5*time.Millisecond)
		})
	}
}

// alive reports whether a process runs; one that nobody has waited for does not.
func alive(pid int) bool {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && !strings.Contains(string(data), ") Z ") && syscall.Kill(pid, 0) == nil
}

func TestTheOutputOfAProgramThatFailsIsReported(t *testing.T) {
	t.Parallel()
	p, _ := programOf(t, "echo asking >&2; printf 'no such zone\\033[2J\\n'; exit 3\n")
	err := p.present(t.Context(), "mail.example.com", "token", "key")
	require.ErrorContains(t, err, `exit status 3: "asking no such zone [2J"`)
	p, _ = programOf(t, "yes aaaaaaaa | head -c 1000000; exit 1\n")
	err = p.present(t.Context(), "mail.example.com", "token", "key")
	require.Error(t, err)
	assert.Less(t, len(err.Error()), 1000)
	p, dir := programOf(t, `printf '%s\n' "$@" >>called`)
	require.NoError(t, p.Present("mail.example.com", "token", "key"))
	require.NoError(t, p.CleanUp("mail.example.com", "token", "key"))
	called, err := os.ReadFile(filepath.Join(dir, "called"))
	require.NoError(t, err)
	assert.Equal(t, "present\n--\nmail.example.com\ntoken\nkey\ncleanup\n--\nmail.example.com\ntoken\nkey\n", string(called))
}

func TestRecordsOfOneNameAreKeptApartAsTheProviderWants(t *testing.T) {
	t.Parallel()
	p, _ := programOf(t, "exit 0\n")
	p.sequence = 300 * time.Millisecond
	s := &dnsSolver{provider: p, removed: map[string]time.Time{}}
	require.Equal(t, 1, s.width())
	apex, other := answerTo{name: "example.com", token: "a"}, answerTo{name: "other.example", token: "b"}
	require.NoError(t, s.present(t.Context(), apex))
	require.NoError(t, s.cleanUp(t.Context(), apex))
	removed := time.Now()
	require.NoError(t, s.present(t.Context(), other))
	assert.Less(t, time.Since(removed), p.sequence, "another name does not wait")
	require.NoError(t, s.present(t.Context(), answerTo{name: "example.com", token: "wildcard"}))
	assert.GreaterOrEqual(t, time.Since(removed), p.sequence-10*time.Millisecond)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the time is up"))
	s.removed["example.com"] = time.Now().Add(time.Hour)
	require.ErrorContains(t, s.present(ctx, apex), "the time is up")
}

// Not parallel: it looks at the environment of the process.
func TestDNSProvidersTakeTheirVariablesFromTheLookupOnly(t *testing.T) {
	t.Setenv("CLOUDFLARE_DNS_API_TOKEN", "of the process")
	t.Setenv("HETZNER_API_TOKEN", "of the process")
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("token\n"), 0o600))
	variables := map[string]string{"CF_DNS_API_TOKEN_FILE": secret, "CLOUDFLARE_PROPAGATION_TIMEOUT": "77"}
	get := func(name string) string { return variables[name] }
	s, err := DNSProvider("cloudflare", "", get, true)
	require.NoError(t, err)
	timeout, _ := s.(*dnsSolver).provider.(interface {
		Timeout() (timeout, interval time.Duration)
	}).Timeout()
	assert.Equal(t, 77*time.Second, timeout)
	_, err = DNSProvider("hetzner", "", get, true)
	require.ErrorContains(t, err, "HETZNER_API_TOKEN")
	assert.Contains(t, say.HintOf(err), "(HETZNER_…)")
	for name, want := range map[string]string{"CLOUDFLARE_DNS_API_TOKEN": "of the process", "HETZNER_API_TOKEN": "of the process", "CF_DNS_API_TOKEN_FILE": "", "CLOUDFLARE_PROPAGATION_TIMEOUT": ""} {
		assert.Equal(t, want, os.Getenv(name), name)
	}
}

// lego documents the variables of each provider in a file beside it.
func TestEveryVariableThatLegoDocumentsReachesItsProvider(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/go-acme/lego/v4").Output()
	require.NoError(t, err)
	documented := regexp.MustCompile(`(?m)^\s+([A-Z0-9]+_[A-Z0-9_]+) = "`)
	for name, p := range providers {
		if name == "exec" || name == "rfc2136" { // take them as they come
			continue
		}
		dir := strings.ReplaceAll(name, "-", "")
		doc, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "providers/dns", dir, dir+".toml"))
		require.NoError(t, err)
		asked := map[string]bool{}
		_, _ = p.open(func(variable string) string { asked[variable] = true; return "" })
		found := documented.FindAllStringSubmatch(string(doc), -1)
		assert.NotEmpty(t, found, name)
		for _, m := range found {
			assert.True(t, asked[m[1]] && asked[m[1]+fileSuffix], "%s: %s", name, m[1])
		}
	}
}
