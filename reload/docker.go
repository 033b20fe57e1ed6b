package reload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/tlsconfig"

	"mailu-hook/internal/say"
)

// docker is an engine that speaks Docker's API: Docker itself, or Podman.
type docker struct {
	api    *client.Client
	tls    bool
	pinned bool // the administrator chose the API version
}

func dockerHere(func(string) string) bool { return true }

// openDocker prepares to talk to the engine that DOCKER_HOST, DOCKER_TLS_VERIFY,
// DOCKER_CERT_PATH and DOCKER_API_VERSION name, as the docker command understands
// them; by default to the local socket, in the newest API version that both sides
// know.
func openDocker(env func(string) string) (Engine, error) {
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
	return &docker{api: api, tls: env("DOCKER_CERT_PATH") != "", pinned: env("DOCKER_API_VERSION") != ""}, nil
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

func (d *docker) Close() { d.api.Close() }

// List is the first question to an engine. It asks without a version, so that
// every engine answers in the one it prefers: the answer also says which versions
// it speaks, which saves the client a question of its own.
func (d *docker) List(ctx context.Context, labels ...string) ([]Listed, error) {
	args := filters.NewArgs()
	for _, label := range labels {
		args.Add("label", label)
	}
	list, err := d.list(ctx, args)
	if err != nil {
		return nil, err
	}
	var found []Listed
	for _, c := range list {
		found = append(found, Listed{ID: c.ID, State: c.State, Labels: c.Labels, Mounts: mounts(c.Mounts)})
	}
	return found, nil
}

func (d *docker) list(ctx context.Context, args filters.Args) ([]container.Summary, error) {
	if d.pinned {
		return d.api.ContainerList(ctx, container.ListOptions{All: true, Filters: args})
	}
	query := url.Values{"all": {"1"}}
	if args.Len() > 0 { // Podman rejects an empty one
		text, err := filters.ToJSON(args)
		if err != nil {
			return nil, err
		}
		query.Set("filters", text)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base()+"/containers/json?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	var list []container.Summary
	header, err := d.do(request, &list)
	if err == nil {
		d.api.NegotiateAPIVersionPing(types.Ping{APIVersion: header.Get("Api-Version")})
	}
	return list, err
}

const maxAnswer = 16 << 20 // bytes of an engine's answer

// do sends a request and decodes the answer.
func (d *docker) do(request *http.Request, answer any) (http.Header, error) {
	response, err := d.api.HTTPClient().Do(request)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = fmt.Errorf("%s: %w", d.api.DaemonHost(), failed.Err)
		}
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, refusal(response.Status, body)
	}
	return response.Header, json.Unmarshal(body, answer)
}

// refusal is what an engine says of its refusal: in JSON, or as it stands.
func refusal(status string, body []byte) error {
	var said struct{ Message string }
	if json.Unmarshal(body, &said) != nil || said.Message == "" {
		said.Message = string(body)
	}
	return fmt.Errorf("%s: %s", status, say.Plain(said.Message))
}

// base is how the URLs of the engine begin. Over a Unix socket the host is
// ignored.
func (d *docker) base() string {
	scheme, host := "http", client.DummyHost
	if d.tls {
		scheme = "https"
	}
	if u, err := url.Parse(d.api.DaemonHost()); err == nil && u.Scheme == "tcp" {
		host = u.Host + strings.TrimSuffix(u.Path, "/")
	}
	return scheme + "://" + host
}

func (d *docker) Inspect(ctx context.Context, id string) (Inspection, error) {
	info, err := d.api.ContainerInspect(ctx, id)
	if cerrdefs.IsNotFound(err) {
		return Inspection{}, fmt.Errorf("%w: %s", errNoContainer, say.Foreign(id))
	}
	if err == nil && (info.ContainerJSONBase == nil || info.State == nil || info.HostConfig == nil || info.Config == nil || info.NetworkSettings == nil) {
		err = errors.New("the answer describes no container")
	}
	if err != nil {
		return Inspection{}, err
	}
	return d.inspection(info), nil
}

func (d *docker) inspection(info container.InspectResponse) Inspection {
	i := Inspection{
		ID:        info.ID,
		Name:      strings.TrimPrefix(info.Name, "/"),
		Image:     info.Config.Image,
		State:     info.State.Status,
		Pid:       info.State.Pid,
		Labels:    info.Config.Labels,
		Env:       info.Config.Env,
		Mounts:    mounts(info.Mounts),
		Hosts:     d.hosts(info),
		Published: d.published(info),
	}
	if h := info.State.Health; h != nil && h.Status != container.NoHealthcheck {
		i.Health = h.Status
	}
	return i
}

// mounts sorts what Docker lists in no order.
func mounts(list []container.MountPoint) []Mount {
	var all []Mount
	for _, m := range list {
		all = append(all, Mount{Source: m.Source, Destination: m.Destination})
	}
	slices.SortFunc(all, func(a, b Mount) int { return strings.Compare(a.Destination, b.Destination) })
	return all
}

// hosts returns the addresses of the container, or of the host if it shares the
// host's network.
func (d *docker) hosts(info container.InspectResponse) (hosts []string) {
	local := d.publicHost() == loopback // elsewhere, its networks are not ours
	for _, n := range info.NetworkSettings.Networks {
		for _, ip := range []string{n.IPAddress, n.GlobalIPv6Address} {
			if ip != "" && local {
				hosts = append(hosts, ip)
			}
		}
	}
	slices.Sort(hosts)
	if info.HostConfig.NetworkMode.IsHost() {
		hosts = append(hosts, d.publicHost())
	}
	return hosts
}

func (d *docker) published(info container.InspectResponse) map[int][]string {
	published := map[int][]string{}
	for port, bindings := range info.NetworkSettings.Ports {
		for _, b := range bindings {
			host := b.HostIP
			if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
				host = d.publicHost()
			}
			if addr := net.JoinHostPort(host, b.HostPort); !slices.Contains(published[port.Int()], addr) {
				published[port.Int()] = append(published[port.Int()], addr)
			}
		}
	}
	return published
}

// publicHost is where the engine publishes ports, as seen from here.
func (d *docker) publicHost() string {
	if u, err := url.Parse(d.api.DaemonHost()); err == nil && u.Scheme == "tcp" && u.Hostname() != "" {
		return u.Hostname()
	}
	return loopback
}

const loopback = "127.0.0.1"

func (d *docker) Restart(ctx context.Context, id string) error {
	return d.api.ContainerRestart(ctx, id, container.StopOptions{})
}

func (d *docker) Now(ctx context.Context) (time.Time, error) {
	info, err := d.api.Info(ctx)
	if err != nil {
		return time.Time{}, err
	}
	at, err := time.Parse(time.RFC3339Nano, info.SystemTime)
	if err != nil {
		return time.Time{}, fmt.Errorf("it says %s", say.Foreign(info.SystemTime))
	}
	return at, nil
}
