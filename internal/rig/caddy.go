package rig

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Caddy is a Caddy whose acme_server issues for twelve hours and leaves a challenge
// that failed pending with the reason, as a step-ca does: both are made of one library.
type Caddy struct {
	DirectoryURL string
	RootFile     string // PEM: what its own TLS certificate and the issued ones end in

	process *process
}

// StartCaddy starts a Caddy that keeps its files in dir and meets names at address. It
// asks the system's resolver, so it has an /etc/hosts of its own. Whoever starts one
// must Close it.
func StartCaddy(ctx context.Context, dir, address string, names ...string) (*Caddy, error) {
	program, err := Tool("caddy")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	_, port, _ := strings.Cut(local(ports[0]), ":")
	c := &Caddy{DirectoryURL: "https://localhost:" + port + "/acme/local/directory", RootFile: filepath.Join(dir, "pki", "authorities", "local", "root.crt")}
	hosts, config := filepath.Join(dir, "hosts"), filepath.Join(dir, "Caddyfile")
	err = os.WriteFile(hosts, []byte("127.0.0.1 localhost\n"+address+" "+strings.Join(names, " ")+"\n"), 0o644)
	if err == nil {
		err = os.WriteFile(config, fmt.Appendf(nil, `{
	admin off
	skip_install_trust
	auto_https disable_redirects
	storage file_system %s
}
https://localhost:%s {
	bind 127.0.0.1
	tls internal
	acme_server
}
`, dir, port), 0o600)
	}
	if err == nil {
		c.process, err = startProcess(filepath.Join(dir, "caddy.log"), []string{"HOME=" + dir}, "unshare", "--mount", "sh", "-c",
			`mount --bind "$1" /etc/hosts && exec "$2" run --adapter caddyfile --config "$3"`, "sh", hosts, program, config)
	}
	if err != nil {
		return nil, fmt.Errorf("starting caddy: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := c.process.pollAlive(ctx, c.answers); err != nil {
		c.Close()
		return nil, fmt.Errorf("starting caddy: %w", err)
	}
	return c, nil
}

func (c *Caddy) answers() error {
	root, err := os.ReadFile(c.RootFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	response, err := client.Get(c.DirectoryURL)
	if err == nil {
		response.Body.Close()
	}
	return err
}

// Close ends it.
func (c *Caddy) Close() { c.process.stop() }
