package cli

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// put writes a file below Mailu's root and returns its name.
func (w *world) put(name string, data []byte) string {
	w.t.Helper()
	name = filepath.Join(w.dir, name)
	require.NoError(w.t, os.MkdirAll(filepath.Dir(name), 0o700))
	require.NoError(w.t, os.WriteFile(name, data, 0o600))
	return name
}

func (w *world) traefik(name string, pairs ...*mint.Pair) string {
	w.t.Helper()
	var all []any
	for _, pair := range pairs {
		all = append(all, map[string]any{"certificate": pair.Chain, "key": pair.KeyPEM})
	}
	data, err := json.Marshal(map[string]any{"le": map[string]any{"Certificates": all}})
	require.NoError(w.t, err)
	return w.put(name, data)
}

func TestEverySourceIsInstalledAndFollowedBySync(t *testing.T) {
	for name, put := range map[string]func(w *world, pair *mint.Pair) string{
		"a directory": func(w *world, pair *mint.Pair) string {
			w.put("acme/mail.example.com.key", pair.KeyPEM)
			return filepath.Dir(w.put("acme/fullchain.cer", pair.Chain))
		},
		"a PEM file": func(w *world, pair *mint.Pair) string {
			return w.put("mail.pem", append(bytes.Clone(pair.Chain), pair.KeyPEM...))
		},
		"acme.json": func(w *world, pair *mint.Pair) string {
			www, _ := w.issue("www.example.com", mint.Leaf{Names: []string{"www.example.com"}})
			return w.traefik("acme.json", www, pair)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.engine(w.stopped())
			first, _ := w.issue("mail.example.com", mint.Leaf{})
			r := w.run("install", "--dry-run", put(w, first))
			require.Equal(t, exitOK, r.status, r.stderr)
			assert.Contains(t, r.stdout, "note: the source is a")
			assert.Equal(t, name == "acme.json", bytes.Contains([]byte(r.stdout), []byte("with 2 certificates, of which the one for mail.example.com was chosen")))

			r = w.run("install", put(w, first), "--output", "json")
			require.Equal(t, exitOK, r.status, r.stderr)
			assert.Equal(t, put(w, first), r.document(t)["lineage"])
			assert.True(t, w.installed(first))

			renewed, _ := w.issue("mail.example.com", mint.Leaf{})
			put(w, renewed)
			require.Equal(t, exitOK, w.run("sync").status)
			assert.True(t, w.installed(renewed), "sync has read it again")
			assert.Equal(t, "unchanged", w.run("sync", "--output", "json").document(t)["outcome"])
		})
	}
}

func TestAPasswordFileInTheSettingsIsForPKCS12Only(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	w.env["MAILU_HOOK_PASSWORD_FILE"] = filepath.Join(w.dir, "password")
	w.stdin = string(w.pair.KeyPEM) + string(w.pair.Chain)
	r := w.run("install", "-")
	assert.Equal(t, exitOK, r.status, r.stderr)
	r = w.run("install", "--cert", filepath.Join(w.lineage, "fullchain.pem"), "--key", filepath.Join(w.lineage, "privkey.pem"))
	assert.Equal(t, exitOK, r.status, r.stderr)
}

func TestPasswordOfPKCS12InAVariableIsUsedAndNeverKept(t *testing.T) {
	const password, variable = "correct #horse", "MAILU_HOOK_PASSWORD"
	w := newWorld(t)
	w.engine(w.stopped())
	export := func(pair *mint.Pair) string {
		out := filepath.Join(w.dir, "mail.p12")
		text, err := exec.Command("openssl", "pkcs12", "-export", "-in", w.put("p12/chain.pem", pair.Chain), "-inkey", w.put("p12/key.pem", pair.KeyPEM), "-passout", "pass:"+password, "-out", out).CombinedOutput()
		require.NoError(t, err, "%s", text)
		return out
	}
	file := export(w.pair)
	assert.Equal(t, exitUsage, w.run("install", file, "--password", password).status, "no flag takes it")
	w.env[variable] = "wrong"
	r := w.run("install", file)
	assert.Equal(t, exitRejected, r.status)
	assert.Contains(t, r.stderr, file+": the password in MAILU_HOOK_PASSWORD is not the right one")
	w.env[variable] = password
	r = w.run("install", file, "--log-level", "debug", "--output", "json")
	require.Equal(t, exitOK, r.status, r.stderr)
	assert.True(t, w.installed(w.pair))
	assert.NotContains(t, r.stdout+r.stderr, "horse")

	renewed, _ := w.issue("mail.example.com", mint.Leaf{})
	export(renewed)
	delete(w.env, variable)
	r = w.run("sync")
	assert.Contains(t, r.stdout+r.stderr, file+": it is protected by a password", "sync says what it needs")
	assert.True(t, w.installed(w.pair))
	found := strings.Join(strings.Fields(w.run("status").stdout), " ")
	assert.Contains(t, found, "no certificate can be read from the lineage "+file+": "+file+": it is protected by a password do: name the file", "so does status")

	w.env["MAILU_HOOK_CONFIG"] = w.file(variable + "='" + password + "'\n")
	require.Equal(t, exitOK, w.run("sync").status)
	assert.True(t, w.installed(renewed), "the configuration file tells sync")
	for _, dir := range []string{w.certs, w.env["MAILU_HOOK_STATE_DIR"]} {
		assert.Empty(t, filesWith(t, dir, "horse"))
	}
}

// filesWith are the files below dir that hold the text.
func filesWith(t *testing.T, dir, text string) (names []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(text)) {
			names = append(names, path)
		}
		return err
	}))
	return names
}

func TestALineageInTheSettingsDoesNotKeepAnotherFromBeingNamed(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	other, _ := w.issue("other", mint.Leaf{})
	w.env["MAILU_HOOK_LINEAGE"] = w.lineage
	r := w.run("install", w.put("other.pem", append(bytes.Clone(other.Chain), other.KeyPEM...)))
	require.Equal(t, exitOK, r.status, r.stderr)
	assert.True(t, w.installed(other))
	r = w.run("install", "--cert", filepath.Join(w.lineage, "fullchain.pem"), "--key", filepath.Join(w.lineage, "privkey.pem"))
	require.Equal(t, exitOK, r.status, r.stderr)
	assert.True(t, w.installed(w.pair))
	assert.Equal(t, exitUsage, w.run("install", "--lineage", "/a", "/b").status)
}

func TestStandardInputIsInstalledAndStaysWithoutASource(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	w.stdin = string(w.pair.KeyPEM) + string(w.pair.Chain)
	r := w.run("install", "-")
	require.Equal(t, exitOK, r.status, r.stderr)
	assert.True(t, w.installed(w.pair))
	assert.Contains(t, r.stdout, "installed standard input")
	assert.Equal(t, "unchanged", w.run("sync", "--output", "json").document(t)["outcome"])

	w.stdin = ""
	r = w.run("install", "-")
	assert.Equal(t, exitRejected, r.status)
	assert.Contains(t, r.stderr, "standard input: ")

	w.stdin = strings.Repeat("x", 1<<20+1)
	r = w.run("install", "-")
	assert.Equal(t, exitUsage, r.status)
	assert.Contains(t, r.stderr, "it is too large")
}

func TestSourceWithoutACertificateForTheMailServerIsRefused(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	www, _ := w.issue("www.example.com", mint.Leaf{Names: []string{"www.example.com"}})
	r := w.run("install", w.traefik("acme.json", www))
	assert.Equal(t, exitRejected, r.status)
	assert.Contains(t, r.stderr, "it does not cover mail.example.com, the main hostname of the mail server (it covers www.example.com)")
	weak, err := w.ca.Issue(mint.Leaf{Names: []string{"www.example.com"}, Key: mint.P224})
	require.NoError(t, err)
	assert.Equal(t, exitOK, w.run("install", w.traefik("acme.json", w.pair, weak)).status, "what is wrong with another site's is none of our business")
	assert.True(t, w.installed(w.pair))
	r = w.run("install", filepath.Join(w.dir, "nowhere"))
	assert.Equal(t, exitRejected, r.status)
	assert.Contains(t, r.stderr, filepath.Join(w.dir, "nowhere")+": cannot be read: no such file or directory")
}

func TestAChainInAFileOfItsOwnIsInstalledAndABadOneRefused(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	leaf, issuers := pem.Decode(w.pair.Chain)
	args := []string{"install", "--cert", w.put("cert.pem", pem.EncodeToMemory(leaf)), "--key", w.put("key.pem", w.pair.KeyPEM), "--chain"}
	r := w.run(append(args, w.put("key.pem", w.pair.KeyPEM))...)
	assert.Equal(t, exitRejected, r.status)
	assert.Contains(t, r.stderr, filepath.Join(w.dir, "key.pem")+": ")
	assert.Contains(t, r.stderr, "name a file of certificates in PEM")
	r = w.run(append(args, filepath.Join(w.dir, "nowhere"))...)
	assert.Equal(t, exitRejected, r.status)
	assert.Contains(t, r.stderr, filepath.Join(w.dir, "nowhere")+": cannot be read: no such file or directory")
	r = w.run(append(args, w.put("chain.pem", issuers))...)
	require.Equal(t, exitOK, r.status, r.stderr)
	assert.True(t, w.installed(w.pair))
}

func TestEachFrontGetsItsOwnCertificateOfOneSource(t *testing.T) {
	w, production, _, other := severalFronts(t)
	w.engine(production, other)
	org, _ := w.issue("mail.example.org", mint.Leaf{Names: []string{"mail.example.org"}})
	r := w.run("install", w.traefik("acme.json", w.pair, org))
	require.Equal(t, exitOK, r.status, r.stderr)
	assert.True(t, production.holds(w.pair))
	assert.True(t, other.holds(org))
}

func TestEveryHookClientSaysWhatItRenewed(t *testing.T) {
	for name, call := range map[string]func(w *world) []string{
		"lego 4": func(w *world) []string {
			w.env["LEGO_CERT_PATH"], w.env["LEGO_CERT_KEY_PATH"] = w.put("lego/mail.crt", w.pair.Chain), w.put("lego/mail.key", w.pair.KeyPEM)
			return nil
		},
		"lego 5": func(w *world) []string {
			w.env["LEGO_HOOK_CERT_PATH"], w.env["LEGO_HOOK_CERT_KEY_PATH"] = w.put("lego/mail.crt", w.pair.Chain), w.put("lego/mail.key", w.pair.KeyPEM)
			return []string{"--output", "json"}
		},
		"acme.sh": func(w *world) []string {
			w.env["CERT_FULLCHAIN_PATH"], w.env["CERT_KEY_PATH"] = w.put("mail_ecc/fullchain.cer", w.pair.Chain), w.put("mail_ecc/mail.key", w.pair.KeyPEM)
			return nil
		},
		"dehydrated": func(w *world) []string {
			chain, key := w.put("mail/fullchain.pem", w.pair.Chain), w.put("mail/privkey.pem", w.pair.KeyPEM)
			return []string{"deploy_cert", "mail.example.com", key, filepath.Join(filepath.Dir(chain), "cert.pem"), chain, filepath.Join(filepath.Dir(chain), "chain.pem"), "1700000000"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.engine(w.stopped())
			r := w.run(call(w)...)
			require.Equal(t, exitOK, r.status, r.stderr)
			assert.True(t, w.installed(w.pair))

			w.pair, _ = w.issue("www.example.com", mint.Leaf{Names: []string{"www.example.com"}})
			r = w.run(call(w)...)
			assert.Equal(t, exitOK, r.status)
			assert.Contains(t, r.stdout, "not Mailu's", "another site of the same client")
		})
	}
}

func TestWhatAHookClientDoesNotSayIsAUsageError(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		args []string
		want string
	}{
		"lego 4 without a key": {env: map[string]string{"LEGO_CERT_PATH": "/x"}, want: "only one of LEGO_CERT_PATH and LEGO_CERT_KEY_PATH is set"},
		"lego 5 without a key": {env: map[string]string{"LEGO_HOOK_CERT_KEY_PATH": "/x"}, want: "only one of LEGO_HOOK_CERT_PATH"},
		"a relative lineage":   {env: map[string]string{"RENEWED_LINEAGE": "live/mail"}, want: "not an absolute path"},
		"dehydrated by hand":   {args: []string{"deploy_cert", "mail.example.com"}, want: "FULLCHAINFILE"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for variable, value := range c.env {
				w.env[variable] = value
			}
			r := w.run(c.args...)
			assert.Equal(t, exitUsage, r.status)
			assert.Contains(t, r.stderr, c.want)
		})
	}
}

func TestOtherHooksOfDehydratedAreIgnored(t *testing.T) {
	w := newWorld(t)
	for _, words := range [][]string{
		{"startup_hook"}, {"exit_hook", ""}, {"unchanged_cert", "a", "b", "c", "d", "e"}, {"deploy_challenge", "mail.example.com", "token", "--value"},
		{"this_hookscript_is_broken__dehydrated_is_working_fine__please_ignore_unknown_hooks_in_your_script"},
	} {
		r := w.run(words...)
		assert.Equal(t, ran{}, r, words)
	}
	r := w.run("instal")
	assert.Equal(t, exitUsage, r.status)
	assert.Contains(t, r.stderr, "did you mean")
}
