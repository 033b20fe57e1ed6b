// Package reload drives the front container: it finds it, runs its tests,
// reloads its daemons, waits until it has settled, and asks its TLS ports what
// they show. It is the only importer of the Docker client.
//
// Nothing here trusts an exit status for the truth: whether a certificate is
// served is what the ports say (Front.Look, Front.Await).
package reload

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/docker/docker/client"
	"github.com/docker/go-connections/tlsconfig"

	"mailu-hook/internal/say"
)

// Engine is a Docker engine, by way of its API.
type Engine struct {
	api    *client.Client
	tls    bool
	pinned bool               // the administrator chose the API version
	listed map[string]listing // by project, once asked for
}

// Open prepares to talk to the engine that DOCKER_HOST, DOCKER_TLS_VERIFY,
// DOCKER_CERT_PATH and DOCKER_API_VERSION name, as the docker command
// understands them; by default to the local socket, in the newest API version
// that both sides know. It connects to nothing yet. The caller closes it.
func Open(env func(string) string) (*Engine, error) {
	opts := []client.Opt{client.WithAPIVersionNegotiation()}
	if dir := env("DOCKER_CERT_PATH"); dir != "" {
		tlsClient, err := tlsTransport(dir, env("DOCKER_TLS_VERIFY") == "")
		if err != nil {
			return nil, say.Hint(fmt.Errorf("reading the Docker client's certificates in %s: %v", dir, err), "check DOCKER_CERT_PATH")
		}
		opts = append(opts, client.WithHTTPClient(tlsClient))
	}
	if host := env("DOCKER_HOST"); strings.HasPrefix(host, "ssh:") {
		return nil, say.Hint(fmt.Errorf("DOCKER_HOST is %s: an engine behind ssh is not supported", say.Foreign(host)),
			"forward its socket: ssh -NL /run/remote.sock:/run/docker.sock HOST, and DOCKER_HOST=unix:///run/remote.sock")
	} else if host != "" {
		opts = append(opts, client.WithHost(host))
	}
	if version := env("DOCKER_API_VERSION"); version != "" {
		opts = append(opts, client.WithVersion(version))
	}
	api, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, say.Hint(fmt.Errorf("preparing the Docker client: %v", err), "check DOCKER_HOST: unix:///path or tcp://host:port")
	}
	return &Engine{api: api, tls: env("DOCKER_CERT_PATH") != "", pinned: env("DOCKER_API_VERSION") != "", listed: map[string]listing{}}, nil
}

func tlsTransport(dir string, insecure bool) (*http.Client, error) {
	config, err := tlsconfig.Client(tlsconfig.Options{
		CAFile:             filepath.Join(dir, "ca.pem"),
		CertFile:           filepath.Join(dir, "cert.pem"),
		KeyFile:            filepath.Join(dir, "key.pem"),
		InsecureSkipVerify: insecure,
		ExclusiveRootPools: true,
	})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config}, CheckRedirect: client.CheckRedirect}, nil
}

// Close releases the connections.
func (e *Engine) Close() { e.api.Close() }

// ErrEngine means that the engine did not answer, or not usefully. Nothing is
// known then about the front.
var ErrEngine = errors.New("the Docker engine cannot be asked")

// engineError makes an ErrEngine of what the Docker client reports.
func engineError(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer: %w", context.Cause(ctx))
	} else {
		err = errors.New(say.Foreign(err.Error()))
	}
	return say.Hint(fmt.Errorf("%w: %s: %w", ErrEngine, doing, err),
		"is Docker running (systemctl status docker), and may this user use its socket? DOCKER_HOST names another")
}
