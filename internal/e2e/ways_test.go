package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

// toEngine passes requests on to the Docker engine of this machine.
func toEngine(change func(*http.Response) error) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "docker" },
		FlushInterval:  -1,
		ErrorLog:       log.New(io.Discard, "", 0),
		ModifyResponse: change,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", realSocket)
		}},
	}
}

var versioned = regexp.MustCompile(`^/v1\.(\d+)(/.*)$`)

// asDocker29 is the engine of this machine, which knows the versions that Docker 29
// knows, and refuses others in its words (moby daemon/server/middleware/version.go).
func asDocker29(t *testing.T) (env []string) {
	t.Helper()
	const oldest, newest = 44, 52
	proxy := toEngine(func(r *http.Response) error {
		r.Header.Set("Api-Version", fmt.Sprint("1.", newest))
		return nil
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if found := versioned.FindStringSubmatch(r.URL.Path); found != nil {
			version, _ := strconv.Atoi(found[1])
			refusal := ""
			if version < oldest {
				refusal = fmt.Sprintf("client version 1.%d is too old. Minimum supported API version is 1.%d, please upgrade your client to a newer version", version, oldest)
			} else if version > newest {
				refusal = fmt.Sprintf("client version 1.%d is too new. Maximum supported API version is 1.%d", version, newest)
			}
			if refusal != "" {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprintf(w, `{"message":%q}`, refusal)
				return
			}
			r.URL.Path = found[2]
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return []string{"DOCKER_HOST=tcp://" + server.Listener.Addr().String()}
}

// withTLS is the engine of this machine behind TLS, for clients with a certificate of
// its CA.
func (l *lab) withTLS() (env []string) {
	l.t.Helper()
	dir := l.t.TempDir()
	write := func(name string, data []byte) {
		require.NoError(l.t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	client := l.issue(mint.Leaf{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	write("ca.pem", l.ca.RootPEM)
	write("cert.pem", client.Chain)
	write("key.pem", client.KeyPEM)
	own := l.issue(mint.Leaf{Edit: func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }})
	certificate, err := tls.X509KeyPair(own.Chain, own.KeyPEM)
	require.NoError(l.t, err)
	trusted := x509.NewCertPool()
	require.True(l.t, trusted.AppendCertsFromPEM(l.ca.RootPEM))
	server := httptest.NewUnstartedServer(toEngine(nil))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, ClientCAs: trusted, ClientAuth: tls.RequireAndVerifyClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	l.t.Cleanup(server.Close)
	return []string{"DOCKER_HOST=tcp://" + server.Listener.Addr().String(), "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=" + dir}
}

func socketProxy(t *testing.T, allowed ...string) (env []string) {
	t.Helper()
	host, stop, err := rig.SocketProxy(t.Context(), t.TempDir(), allowed...)
	require.NoError(t, err)
	t.Cleanup(stop)
	return []string{"DOCKER_HOST=" + host}
}

// One front, and every way to its engine.
func TestEachCommandWorksByEachWayToTheEngine(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{})
	rig.Need(t, rig.NeedEngines)
	for name, way := range map[string]func() []string{
		"a read-only socket proxy":                func() []string { return socketProxy(l.t) },
		"a socket proxy with POST and EXEC":       func() []string { return socketProxy(l.t, "POST", "EXEC") },
		"a proxy that wants versions in paths":    func() []string { return []string{"DOCKER_HOST=unix://" + narrowEngine(l.t, l.front.ID)} },
		"tcp with TLS and a client's certificate": l.withTLS,
		"an engine like Docker 29":                func() []string { return asDocker29(l.t) },
		"an engine of version 1.41":               func() []string { return []string{"DOCKER_API_VERSION=1.41"} },
	} {
		l.sub(name, func(t *testing.T) {
			l.env = append(l.env, way()...)
			l.everyCommand()
		})
	}
	l.sub("tcp with TLS, but no certificate", func(t *testing.T) {
		l.env = append(l.env, l.withTLS()[:2]...)
		l.env = append(l.env, "DOCKER_CERT_PATH="+t.TempDir())
		r := l.sync("--now")
		assert.Equal(t, 2, r.code)
		assert.Contains(t, r.doc.Error, "reading the Docker client's certificates")
	})
}
