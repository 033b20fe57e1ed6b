package source

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/pki"
)

// pairFor is a pair for one name; the later ones are newer.
func pairFor(t *testing.T, name string, age time.Duration) *mint.Pair {
	t.Helper()
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	pair, err := ca.Issue(mint.Leaf{Names: []string{name}, NotBefore: time.Now().Add(-age)})
	require.NoError(t, err)
	return pair
}

// tidy writes files below a new directory.
func tidy(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700))
		writeFile(t, filepath.Join(dir, name), data)
	}
	return dir
}

// split is the leaf of a chain and the rest of it, in PEM.
func split(t *testing.T, chain []byte) (leaf, rest []byte) {
	t.Helper()
	block, rest := pem.Decode(chain)
	require.NotNil(t, block)
	return pem.EncodeToMemory(block), rest
}

// The layouts are those of the clients' own manuals and sources.
func TestEveryClientsDirectoryIsRead(t *testing.T) {
	pair := pairFor(t, "mail.example.com", time.Hour)
	leaf, rest := split(t, pair.Chain)
	account := issue(t).KeyPEM // an ACME client keeps the key of its account beside
	for name, files := range map[string]map[string][]byte{
		"acme.sh": {"mail.example.com.cer": leaf, "ca.cer": rest, "fullchain.cer": pair.Chain, "mail.example.com.key": pair.KeyPEM,
			"mail.example.com.conf": []byte("Le_Domain='mail.example.com'\n"), "mail.example.com.csr": []byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n")},
		"lego":           {"mail.example.com.crt": pair.Chain, "mail.example.com.issuer.crt": rest, "mail.example.com.key": pair.KeyPEM, "mail.example.com.json": []byte("{}")},
		"Caddy":          {"acme-v02.api.letsencrypt.org-directory/mail.example.com/mail.example.com.crt": pair.Chain, "acme-v02.api.letsencrypt.org-directory/mail.example.com/mail.example.com.key": pair.KeyPEM},
		"dehydrated":     {"cert-1.pem": leaf, "chain-1.pem": rest, "fullchain-1.pem": pair.Chain, "privkey-1.pem": pair.KeyPEM},
		"getssl":         {"mail.example.com.crt": leaf, "chain.crt": rest, "mail.example.com.key": pair.KeyPEM, "account.key": account},
		"acme-companion": {"fullchain.pem": pair.Chain, "cert.pem": leaf, "chain.pem": rest, "key.pem": pair.KeyPEM},
		"leaf and chain": {"cert.pem": leaf, "ca.pem": rest, "key.pem": pair.KeyPEM},
		"in one file":    {"haproxy.pem": append(bytes.Clone(pair.Chain), pair.KeyPEM...)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tidy(t, files)
			content, err := Read(t.Context(), At(dir))
			require.NoError(t, err)
			assert.Equal(t, "a directory of PEM files", content.Kind)
			require.Len(t, content.Pairs, 1)
			p := content.Pairs[0]
			assert.Equal(t, pair.SHA256(), pki.Fingerprint(p.Leaf))
			assert.Equal(t, string(pair.Chain), string(p.Cert), "with its chain")
			assert.Equal(t, pair.SHA256(), pki.Fingerprint(leafOf(t, p)))
			assert.Equal(t, dir, p.Lineage)
			assert.FileExists(t, p.CertFile)
			assert.FileExists(t, p.KeyFile)
			assert.Empty(t, ChainFile(At(dir)))
		})
	}
}

func TestSecretOfKubernetesIsReadByItsLinks(t *testing.T) {
	pair := issue(t)
	dir := tidy(t, map[string][]byte{"..2027_01/tls.crt": pair.Chain, "..2027_01/tls.key": pair.KeyPEM})
	require.NoError(t, os.Symlink("..2027_01", filepath.Join(dir, "..data")))
	for _, name := range []string{"tls.crt", "tls.key"} {
		require.NoError(t, os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
	}
	content, err := Read(t.Context(), At(dir))
	require.NoError(t, err)
	require.Len(t, content.Pairs, 1)
	assert.Equal(t, filepath.Join(dir, "tls.key"), content.Pairs[0].KeyFile)
}

// traefik writes an acme.json as Traefik does, with one resolver for each pair.
func traefik(t *testing.T, pairs map[string]*mint.Pair) []byte {
	t.Helper()
	type certificate struct {
		Domain           map[string]any `json:"domain"`
		Certificate, Key []byte
		Store            string
	}
	file := map[string]any{}
	for resolver, pair := range pairs {
		file[resolver] = map[string]any{
			"Account":      map[string]any{"Email": "admin@example.com", "PrivateKey": []byte("none of ours")},
			"Certificates": []any{certificate{map[string]any{"main": resolver}, pair.Chain, pair.KeyPEM, "default"}},
		}
	}
	data, err := json.MarshalIndent(file, "", "  ")
	require.NoError(t, err)
	return data
}

func TestBestOfSeveralCoversMostAndIsTheNewest(t *testing.T) {
	pairs := map[string]*mint.Pair{"old": pairFor(t, "mail.example.com", 48*time.Hour), "new": pairFor(t, "mail.example.com", 24*time.Hour), "other": pairFor(t, "www.example.com", time.Hour)}
	v1, err := json.Marshal(map[string]any{"Account": map[string]any{}, "Certificates": []any{
		map[string]any{"Domain": map[string]any{"Main": "mail.example.com"}, "Certificate": pairs["new"].Chain, "Key": pairs["new"].KeyPEM},
		map[string]any{"Domain": map[string]any{"Main": "www.example.com"}, "Certificate": pairs["other"].Chain, "Key": pairs["other"].KeyPEM},
	}, "HTTPChallenges": map[string]any{}})
	require.NoError(t, err)
	var all []byte
	files := map[string][]byte{}
	for name, pair := range pairs {
		all = append(append(all, pair.Chain...), pair.KeyPEM...)
		files[name+".crt"], files[name+".key"] = pair.Chain, pair.KeyPEM
	}
	dir := tidy(t, map[string][]byte{"acme.json": traefik(t, pairs), "v1.json": v1, "all.pem": all})
	for name, c := range map[string]struct {
		src  Source
		kind string
	}{
		"Traefik":           {At(filepath.Join(dir, "acme.json")), "an acme.json of Traefik"},
		"Traefik 1":         {At(filepath.Join(dir, "v1.json")), "an acme.json of Traefik"},
		"a PEM file":        {At(filepath.Join(dir, "all.pem")), "a PEM file"},
		"standard input":    {Shown("standard input", all), "PEM on standard input"},
		"lego's for all":    {At(tidy(t, files)), "a directory of PEM files"},
		"a link to a file":  {At(link(t, filepath.Join(dir, "all.pem"))), "a PEM file"},
		"a link to the dir": {At(link(t, tidy(t, files))), "a directory of PEM files"},
	} {
		t.Run(name, func(t *testing.T) {
			content, err := Read(t.Context(), c.src)
			require.NoError(t, err)
			assert.Equal(t, c.kind, content.Kind)
			assert.GreaterOrEqual(t, len(content.Pairs), 2)
			best := func(name string) string {
				return pki.Fingerprint(content.Best(covers(name)).Leaf)
			}
			assert.Equal(t, pairs["new"].SHA256(), best("mail.example.com"))
			assert.Equal(t, pairs["other"].SHA256(), best("www.example.com"))
			assert.Equal(t, pairs["other"].SHA256(), best("imap.example.com"), "none covers it: the newest")
			for _, p := range content.Pairs {
				assert.Equal(t, p.Leaf.Raw, leafOf(t, p).Raw, "each with its own key")
			}
		})
	}
}

// link is a link to path, elsewhere.
func link(t *testing.T, path string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(path, name))
	return name
}

// pkcs12Of has OpenSSL export a pair.
func pkcs12Of(t *testing.T, pair *mint.Pair, password string, args ...string) string {
	t.Helper()
	dir := tidy(t, map[string][]byte{"chain.pem": pair.Chain, "key.pem": pair.KeyPEM, "password": []byte(password + "\n")})
	out := filepath.Join(dir, "mail.p12")
	cmd := exec.Command("openssl", append([]string{"pkcs12", "-export", "-in", filepath.Join(dir, "chain.pem"), "-inkey", filepath.Join(dir, "key.pem"),
		"-passout", "pass:" + password, "-out", out}, args...)...)
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", text)
	return out
}

func TestPKCS12IsReadWithItsPassword(t *testing.T) {
	pair := issue(t)
	for name, args := range map[string][]string{"of today": nil, "of Windows": {"-legacy"}, "with a friendly name": {"-name", "mail"}} {
		t.Run(name, func(t *testing.T) {
			file := pkcs12Of(t, pair, "correct horse", args...)
			src := At(file)
			_, err := Read(t.Context(), src)
			require.ErrorContains(t, err, file+": it is protected by a password")
			assert.Contains(t, remedyOf(t, err), "--password-file")
			assert.Contains(t, remedyOf(t, err), "MAILU_HOOK_PASSWORD")

			content, err := Read(WithPassword(t.Context(), "correct horse"), src)
			require.NoError(t, err)
			assert.Equal(t, pair.SHA256(), pki.Fingerprint(leafOf(t, content.Pairs[0])))
			assert.Equal(t, file, content.Pairs[0].Lineage)
			assert.NotContains(t, fmt.Sprintf("%+v", content.Pairs[0].Source), "horse", "it is no part of the source")
			_, err = Read(WithPassword(t.Context(), "wrong"), src)
			require.ErrorContains(t, err, "the password in MAILU_HOOK_PASSWORD is not the right one")

			src.Password = filepath.Join(filepath.Dir(file), "password")
			content, err = Read(WithPassword(t.Context(), "of another source"), src)
			require.NoError(t, err)
			assert.Equal(t, "a PKCS#12 file", content.Kind)
			p := content.Pairs[0]
			assert.Equal(t, string(pair.Chain), string(p.Cert))
			assert.Equal(t, pair.SHA256(), pki.Fingerprint(leafOf(t, p)))
			assert.Equal(t, src.Password, p.Password, "to be remembered")

			writeFile(t, src.Password, []byte("wrong"))
			_, err = Read(t.Context(), src)
			assert.ErrorContains(t, err, "the password in "+src.Password+" is not the right one")
			assert.NotContains(t, err.Error(), "wrong")
		})
	}
	for _, ctx := range []context.Context{t.Context(), WithPassword(t.Context(), "of another source")} {
		content, err := Read(ctx, At(pkcs12Of(t, pair, "")))
		require.NoError(t, err, "without a password")
		assert.Equal(t, pair.SHA256(), pki.Fingerprint(content.Pairs[0].Leaf))
	}
}

func remedyOf(t *testing.T, err error) string {
	t.Helper()
	var lack *LackError
	require.ErrorAs(t, err, &lack)
	return lack.Remedy
}

func TestAcmeJSONThatIsHalfWrittenIsReadAgain(t *testing.T) {
	whole := traefik(t, map[string]*mint.Pair{"le": issue(t)})
	for name, part := range map[string][]byte{"half": whole[:len(whole)/2], "empty": nil} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(tidy(t, map[string][]byte{"acme.json": part}), "acme.json")
			synctest.Test(t, func(t *testing.T) {
				time.AfterFunc(switchWait/2, func() { _ = os.WriteFile(file, whole, 0o600) })
				content, err := Read(t.Context(), At(file))
				require.NoError(t, err)
				assert.Len(t, content.Pairs, 1)
			})
		})
	}
}

func TestDirectoryWhoseKeyIsReplacedFirstIsReadAgain(t *testing.T) {
	old, renewed := issue(t), issue(t)
	dir := tidy(t, map[string][]byte{"mail.crt": old.Chain, "mail.key": renewed.KeyPEM})
	synctest.Test(t, func(t *testing.T) {
		time.AfterFunc(switchWait/2, func() { _ = os.WriteFile(filepath.Join(dir, "mail.crt"), renewed.Chain, 0o600) })
		p, err := readOne(t.Context(), At(dir))
		require.NoError(t, err)
		assert.Equal(t, renewed.SHA256(), pki.Fingerprint(leafOf(t, p)))
	})
}

func TestWhatASourceLacksIsSaid(t *testing.T) {
	pair, other := issue(t), issue(t)
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{0x30, 0}})
	many := map[string][]byte{}
	for n := range mostFiles + 1 {
		many["file"+string(rune('a'+n%26))+time.Duration(n).String()] = nil
	}
	for fact, files := range map[string]map[string][]byte{
		"it holds no certificate and no private key":                      {"notes.txt": []byte("nothing")},
		"it holds a private key and no certificate":                       {"key": pair.KeyPEM},
		"it holds 2 certificates and no private key":                      {"cert": pair.Chain},
		"none of its 1 private keys belongs to one of its 2 certificates": {"cert": pair.Chain, "key": other.KeyPEM},
		"encrypted": {"cert": pair.Chain, "key": encrypted},
		"it holds more files than that of an ACME client (over 1000, or 32 MiB": many,
	} {
		t.Run(fact, func(t *testing.T) {
			dir := tidy(t, files)
			synctest.Test(t, func(t *testing.T) {
				_, err := Read(t.Context(), At(dir))
				require.ErrorContains(t, err, fact)
				assert.NotEmpty(t, remedyOf(t, err))
				var failed *Error
				require.ErrorAs(t, err, &failed)
				assert.Equal(t, dir, failed.File)
			})
		})
	}
	for fact, data := range map[string][]byte{
		"it is not the whole of a JSON document":       []byte(`{"le": {"Certificates": [`),
		"it holds no certificate with its key":         []byte(`{"le": {"Account": {}, "Certificates": null}}`),
		"it holds 2 certificates and no private key":   pair.Chain,
		"none of its 1 private keys belongs to one of": append(bytes.Clone(pair.Chain), other.KeyPEM...),
	} {
		t.Run(fact, func(t *testing.T) {
			file := filepath.Join(tidy(t, map[string][]byte{"file": data}), "file")
			synctest.Test(t, func(t *testing.T) {
				_, err := Read(t.Context(), At(file))
				require.ErrorContains(t, err, fact)
				assert.NotEmpty(t, remedyOf(t, err))
			})
		})
	}
}

func TestDirectoryIsReadWithinItsOwnTreeOnly(t *testing.T) {
	secret, own := issue(t), issue(t)
	elsewhere := tidy(t, map[string][]byte{"cert.pem": secret.Chain, "key.pem": secret.KeyPEM})
	dir := tidy(t, map[string][]byte{"mail.crt": own.Chain, "a/b/c/too/deep.pem": append(bytes.Clone(secret.Chain), secret.KeyPEM...)})
	require.NoError(t, os.Symlink(filepath.Join(elsewhere, "key.pem"), filepath.Join(dir, "mail.key")))
	require.NoError(t, os.Symlink(elsewhere, filepath.Join(dir, "all")))
	synctest.Test(t, func(t *testing.T) {
		_, err := Read(t.Context(), At(dir))
		var outside *OutsideError
		require.ErrorAs(t, err, &outside)
	})
	require.NoError(t, os.Remove(filepath.Join(dir, "mail.key")))
	writeFile(t, filepath.Join(dir, "mail.key"), own.KeyPEM)
	content, err := Read(t.Context(), At(dir))
	require.NoError(t, err)
	require.Len(t, content.Pairs, 1)
	assert.Equal(t, own.SHA256(), pki.Fingerprint(content.Pairs[0].Leaf))
}

func TestWhatIsNotThereIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := Read(t.Context(), At("/nonexistent/mail"))
		require.ErrorIs(t, err, fs.ErrNotExist)
		assert.Zero(t, time.Since(began))
	})
}

func TestChainOfAThirdFileIsPutBehindTheLeaf(t *testing.T) {
	pair := issue(t)
	leaf, rest := split(t, pair.Chain)
	dir := tidy(t, map[string][]byte{"cert": leaf, "chain": rest, "key": pair.KeyPEM})
	in := func(name string) string { return filepath.Join(dir, name) }
	src := Files(in("cert"), in("key"))
	src.IssuersFile = in("chain")
	p, err := readOne(t.Context(), src)
	require.NoError(t, err)
	assert.Equal(t, pair.SHA256(), pki.Fingerprint(leafOf(t, p)))
	assert.Equal(t, in("cert"), p.CertFile)
	assert.Equal(t, in("key"), p.KeyFile)
	src.IssuersFile = in("key")
	_, err = Read(t.Context(), src)
	assert.ErrorContains(t, err, in("key")+": ")
}

// FuzzSource holds that nothing which anybody puts into a file panics, and that what
// is returned can be told apart.
func FuzzSource(f *testing.F) {
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(f, err)
	pair, err := ca.Issue(mint.Leaf{})
	require.NoError(f, err)
	for _, seed := range [][]byte{nil, {0x30, 0x82, 1, 0, 2, 1, 3}, []byte("{}"), []byte(`{"le":{"Certificates":[{"Certificate":"AA==","Key":"AA=="}]}}`), pair.Chain, append(bytes.Clone(pair.KeyPEM), pair.Chain...)} {
		f.Add(seed)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(dir, "source")
		require.NoError(t, os.WriteFile(file, data, 0o600))
		k := kindOf(At(file))
		pairs, err := k.read(t.Context(), At(file))
		var failed *Error
		if err != nil && !errors.As(err, &failed) {
			t.Fatalf("%T %v", err, err)
		}
		if err == nil && len(pairs) == 0 {
			t.Fatal("neither a pair nor an error")
		}
	})
}
