package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// assertHarmless holds what is true of every output of every run.
func assertHarmless(t *testing.T, r ran) {
	t.Helper()
	for name, out := range map[string]string{"stdout": r.stdout, "stderr": r.stderr} {
		assert.True(t, utf8.ValidString(out), "%s is not UTF-8, which certbot takes for a failed renewal: %q", name, out)
		assert.NotContains(t, out, "-----BEGIN", "%s: PEM", name)
		assert.NotContains(t, out, secretKey, "%s: the front's environment", name)
		shown := unicode.IsPrint
		if strings.HasPrefix(out, "{") { // JSON has escapes for the rest
			shown = func(c rune) bool { return !unicode.IsControl(c) }
		}
		assert.False(t, strings.ContainsFunc(out, func(c rune) bool { return c != '\n' && !shown(c) }), "%s has control characters: %q", name, out)
		assert.Less(t, len(out), 24<<10, "%s: foreign text is cut", name)
	}
	if r.status != 0 {
		complaint := r.stderr
		if i := strings.Index(complaint, "mailu-hook: error: "); strings.HasPrefix(complaint, "Usage:\n") && i > 0 {
			complaint = complaint[i:]
		}
		for line := range strings.Lines(complaint) {
			assert.Regexp(t, `^mailu-hook: (error|hint|warning): .`, line, "a line that somebody else may have written")
		}
	}
}

const (
	controls = "\x1b[31m\r\nmailu-hook\x07: done\u202e\x00"
	longText = 32 << 10
)

func TestHostileIssuerDoesNoHarm(t *testing.T) {
	for name, issuer := range map[string]string{
		"controls": "Evil" + controls,
		"long":     strings.Repeat("Evil ", longText/5),
		"PEM":      "Evil -----BEGIN PRIVATE KEY-----MIIE",
		"markup":   `Evil <b>"%s%n\`,
	} {
		ca, err := mint.NewCA(mint.CAOptions{Name: issuer})
		require.NoError(t, err)
		for _, output := range []string{"text", "json"} {
			t.Run(name+" "+output, func(t *testing.T) {
				t.Parallel()
				w := newWorldOf(t, ca, mint.Leaf{})
				w.env["MAILU_HOOK_HOSTNAME"] = "mail.example.com"
				w.env["MAILU_HOOK_OUTPUT"] = output
				trusted := w.env["MAILU_HOOK_ROOTS"]
				delete(w.env, "MAILU_HOOK_ROOTS")
				r := w.hook()
				assert.Equal(t, exitRejected, r.status)
				assert.Contains(t, r.stderr, "Evil")
				w.env["MAILU_HOOK_ROOTS"] = trusted
				assert.Equal(t, exitPending, w.hook().status)
			})
		}
	}
}

func TestHostileNamesInACertificateDoNoHarm(t *testing.T) {
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	many := []string{"mail.example.com"}
	for range 100 {
		many = append(many, strings.Repeat("a", 200)+".example.com")
	}
	for name, names := range map[string][]string{
		"controls": {"mail.example.com", "x" + strings.ReplaceAll(controls, "\u202e", "")},
		"PEM":      {"mail.example.com", "-----BEGIN CERTIFICATE-----"},
		"many":     many,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorldOf(t, ca, mint.Leaf{Names: names})
			w.env["MAILU_HOOK_HOSTNAME"] = "other.example.com"
			r := w.install()
			assert.Equal(t, exitRejected, r.status)
			assert.Contains(t, r.stderr, "it covers mail.example.com")
			assert.Equal(t, exitOK, w.hook().status, "not ours")
			w.env["MAILU_HOOK_HOSTNAME"] = "mail.example.com"
			assert.Equal(t, exitPending, w.install().status)
		})
	}
}

func TestHostilePathOfALineageDoesNoHarm(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	hostile := filepath.Join(t.TempDir(), "ev\nil\x1b\xff")
	require.NoError(t, os.Rename(w.lineage, hostile))
	require.NoError(t, os.Symlink(hostile, w.lineage)) // the links inside it are relative
	for _, name := range []string{"fullchain.pem", "privkey.pem"} {
		require.NoError(t, os.Remove(filepath.Join(hostile, name)))
	}
	require.NoError(t, os.WriteFile(filepath.Join(hostile, "fullchain.pem"), w.pair.Chain, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(hostile, "privkey.pem"), w.pair.KeyPEM, 0o600))
	w.lineage = hostile
	r := w.hook()
	assert.Equal(t, exitOK, r.status)
	assert.Equal(t, 1, strings.Count(r.stdout, "\n"), "%q", r.stdout)
	w.env["MAILU_HOOK_HOSTNAME"] = "other.example.com"
	assert.Equal(t, exitRejected, w.install().status)
}

func TestHostileArgumentsDoNoHarm(t *testing.T) {
	w := newWorld(t)
	for _, args := range [][]string{
		{"x\x1b\n\xff"}, {"--x\x1b\n\xff"}, {"install", "x\x1b\n\xff"}, {"help", "x\x1b\n\xff"}, {"--output", "x\x1b\n\xff"},
		{"install", "--lineage", "/x\x1b\n\xff", "--cert", "y"}, {"--config", "/x\x1b\n\xff"}, {"--timeout", "x\x1b\n\xff"},
		{"install", "--cert", "/x\x1b\n\xff", "--key", "/y"},
	} {
		assert.NotEqual(t, exitOK, w.run(args...).status, "%q", args)
	}
}

func TestHostileEnvironmentOfTheFrontDoesNoHarm(t *testing.T) {
	for name, c := range map[string]map[string]string{
		"hostname":               {"TLS_FLAVOR": "cert", "HOSTNAMES": "evil" + controls + ".example.com"},
		"flavor":                 {"TLS_FLAVOR": "evil" + controls},
		"names":                  {"TLS_FLAVOR": "cert", "HOSTNAMES": "mail.example.com", "TLS_CERT_FILENAME": "evil" + controls + ".pem"},
		"letsencrypt with names": {"TLS_FLAVOR": "letsencrypt", "TLS_CERT_FILENAME": "evil" + controls + ".pem"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			front := w.stopped()
			front.env = c
			w.engine(front)
			w.hook()
			w.install()
			w.install("--output", "json")
		})
	}
}
