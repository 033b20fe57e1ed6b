package e2e

import (
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

func TestHookIsCalledByLego4Lego5AcmeShAndDehydrated(t *testing.T) {
	rig.Need(t, rig.NeedLego5)
	i := newIssuer(t, rig.CAOptions{})
	i.writePlain(i.issue(mint.Leaf{NotBefore: time.Now().Add(-24 * time.Hour)}), "cert.pem", "key.pem")
	i.start(rig.FrontOptions{})
	i.waitServing()
	i.address = loopback()
	i.lead(i.address, mailName, "www.example.com")

	lego := func(name string) string {
		return i.client(exec.Command("lego", "--path", filepath.Join(i.root, "lego"), "--server", i.acme.DirectoryURL, "--accept-tos", "--email", "admin@example.com",
			"--http", "--http.port", i.address+":80", "--domains", name, "run", "--run-hook", binary), "LEGO_CA_CERTIFICATES="+i.acme.DirectoryCAFile)
	}
	assert.Contains(t, lego("www.example.com"), "not Mailu's: it does not cover "+mailName)
	lego(mailName)
	i.showsEverywhere(leafOf(t, filepath.Join(i.root, "lego", "certificates", mailName+".crt")))

	i.lego5(mailName, "--deploy-hook", binary)
	i.showsEverywhere(leafOf(t, filepath.Join(i.root, "lego5", "certificates", mailName+".crt")))

	lineage := i.acmeSh()
	assert.Equal(t, lineage, i.sync().doc.Lineage, "its directory is remembered")
	require.NoError(t, os.RemoveAll(lineage)) // so that another client may take over

	base := filepath.Join(i.root, "dehydrated")
	wellKnown := filepath.Join(base, "well-known")
	require.NoError(t, os.MkdirAll(wellKnown, 0o755))
	config := filepath.Join(base, "config")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "CA=%s\nBASEDIR=%s\nWELLKNOWN=%s\nHOOK=%s\nCURL_OPTS=\"--cacert %s\"\n",
		i.acme.DirectoryURL, base, wellKnown, binary, i.acme.DirectoryCAFile), 0o600))
	listener, err := net.Listen("tcp", i.address+":80")
	require.NoError(t, err)
	server := &http.Server{Handler: http.StripPrefix("/.well-known/acme-challenge/", http.FileServer(http.Dir(wellKnown)))}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	i.client(exec.Command("dehydrated", "--config", config, "--register", "--accept-terms"))
	i.client(exec.Command("dehydrated", "--config", config, "--cron", "--domain", mailName))
	lineage = filepath.Join(base, "certs", mailName)
	served := leafOf(t, filepath.Join(lineage, "fullchain.pem"))
	i.showsEverywhere(served)

	i.client(exec.Command("dehydrated", "--config", config, "--cron", "--domain", mailName)) // not due: it calls unchanged_cert
	doc := i.sync().doc
	assert.Equal(t, "unchanged", doc.Outcome)
	assert.Equal(t, lineage, doc.Lineage, "its directory is remembered")
	i.healthyAndReloadable()
}

// lego5 has lego 5 obtain a certificate, and returns its output.
func (i *issuer) lego5(name string, args ...string) string {
	i.t.Helper()
	program, err := rig.Tool("lego5")
	require.NoError(i.t, err)
	return i.client(exec.Command(program, append([]string{"run", "--path", filepath.Join(i.root, "lego5"), "--server", i.acme.DirectoryURL,
		"--accept-tos", "--email", "admin@example.com", "--http", "--http.address", i.address + ":80", "--domains", name}, args...)...),
		"LEGO_CA_CERTIFICATES="+i.acme.DirectoryCAFile)
}

// acmeSh does what acme.sh does at the end of an issuance, and returns the directory of
// the certificate. Debian does not have acme.sh; this is how its _installcert runs
// --reloadcmd: in that directory, with these variables.
func (i *issuer) acmeSh() string {
	i.t.Helper()
	i.lego5(mailName, "--renew-force", "--no-random-sleep")
	read := func(suffix string) []byte {
		data, err := os.ReadFile(filepath.Join(i.root, "lego5", "certificates", mailName+suffix))
		require.NoError(i.t, err)
		return data
	}
	chain := read(".crt")
	leaf, issuers := pem.Decode(chain)
	dir := filepath.Join(i.root, ".acme.sh", mailName+"_ecc")
	require.NoError(i.t, os.MkdirAll(dir, 0o700))
	for name, data := range map[string][]byte{
		mailName + ".cer": pem.EncodeToMemory(leaf), "ca.cer": issuers, "fullchain.cer": chain, mailName + ".key": read(".key"),
		mailName + ".conf": []byte("Le_Domain='" + mailName + "'\n"), "account.key": i.next().KeyPEM,
	} {
		require.NoError(i.t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	const script = `
		DOMAIN_PATH=$1 domain=$2 _reload_cmd=$3
		CERT_PATH=$DOMAIN_PATH/$domain.cer CERT_KEY_PATH=$DOMAIN_PATH/$domain.key
		CA_CERT_PATH=$DOMAIN_PATH/ca.cer CERT_FULLCHAIN_PATH=$DOMAIN_PATH/fullchain.cer
		export CERT_PATH CERT_KEY_PATH CA_CERT_PATH CERT_FULLCHAIN_PATH Le_Domain=$domain
		cd "$DOMAIN_PATH" && eval "$_reload_cmd"`
	i.client(exec.Command("sh", "-c", script, "acme.sh", dir, mailName, binary))
	i.showsEverywhere(leafOf(i.t, filepath.Join(dir, "fullchain.cer")))
	return dir
}

// client runs an ACME client whose hook is the binary, and returns its output.
func (i *issuer) client(cmd *exec.Cmd, env ...string) string {
	i.t.Helper()
	cmd.Env = append(append(os.Environ(), i.env...), env...)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	i.t.Logf("%s ended after %s", filepath.Base(cmd.Args[0]), time.Since(began))
	require.NoError(i.t, err, "%s: %s", strings.Join(cmd.Args, " "), out)
	return string(out)
}

func leafOf(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	return sha256OfPEM(t, data)
}
