package e2e

import (
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

func TestLegoAndDehydratedCallTheHook(t *testing.T) {
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
	lineage := filepath.Join(base, "certs", mailName)
	served := leafOf(t, filepath.Join(lineage, "fullchain.pem"))
	i.showsEverywhere(served)

	i.client(exec.Command("dehydrated", "--config", config, "--cron", "--domain", mailName)) // not due: it calls unchanged_cert
	doc := i.sync().doc
	assert.Equal(t, "unchanged", doc.Outcome)
	assert.Equal(t, lineage, doc.Lineage, "its directory is remembered")
	i.healthyAndReloadable()
}

// client runs an ACME client whose hook is the binary, and returns its output.
func (i *issuer) client(cmd *exec.Cmd, env ...string) string {
	i.t.Helper()
	cmd.Env = append(append(os.Environ(), i.env...), env...)
	out, err := cmd.CombinedOutput()
	require.NoError(i.t, err, "%s: %s", strings.Join(cmd.Args, " "), out)
	return string(out)
}

func leafOf(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	return sha256OfPEM(t, data)
}
