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
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/tlsconfig"

	"mailu-hook/internal/say"
)

// docker is an engine that speaks Docker's API: Docker itself, or Podman.
type docker struct {
	api      *client.Client
	tls      bool
	pinned   bool                       // the administrator chose the API version
	networks func() ([]net.Addr, error) // of this host
	owner    func(file string) int      // its uid, -1 if unknown
}

// Podman speaks Docker's API on a socket of its own.
const podmanSocket = "/run/podman/podman.sock"

// dockerHere: Docker is named, or its socket is there.
func dockerHere(env func(string) string) bool {
	return dockerNamed(env) || exists(strings.TrimPrefix(client.DefaultDockerHost, "unix://"))
}

// dockerNamed reports whether DOCKER_HOST or a context names an engine. It may also be
// a configuration that cannot be read, which openDocker reports.
func dockerNamed(env func(string) string) bool {
	context, err := contextName(env)
	return env("DOCKER_HOST") != "" || context != "" || err != nil
}

func podmanHere(func(string) string) bool { return exists(podmanSocket) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// openPodman is openDocker for Podman's socket.
func openPodman(env func(string) string) (Engine, error) {
	return openDocker(func(name string) string {
		if name == "DOCKER_HOST" {
			return "unix://" + podmanSocket
		}
		return env(name)
	})
}

// openDocker prepares to talk to the engine that DOCKER_HOST, DOCKER_TLS_VERIFY and
// DOCKER_CERT_PATH or a context name, as the docker command understands them; by
// default to the local socket. It speaks the API version of DOCKER_API_VERSION, or the
// newest that both sides know.
func openDocker(env func(string) string) (Engine, error) {
	at, err := endpointOf(env)
	if err != nil {
		return nil, err
	}
	if err := refuseSSH(at); err != nil {
		return nil, err
	}
	opts := []client.Opt{client.WithAPIVersionNegotiation()}
	if at.tls != nil {
		tlsClient, err := tlsTransport(*at.tls)
		if err != nil {
			return nil, say.Hint(fmt.Errorf("reading the Docker client's certificates: %v", err), "check %s", at.certs)
		}
		opts = append(opts, client.WithHTTPClient(tlsClient))
	}
	if at.host != "" {
		opts = append(opts, client.WithHost(at.host))
	}
	version := env("DOCKER_API_VERSION")
	if version != "" {
		opts = append(opts, client.WithVersion(version))
	}
	api, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, say.Hint(fmt.Errorf("preparing the Docker client: %v", err), "check %s: unix:///path or tcp://host:port", at.named)
	}
	return &docker{api: api, tls: at.tls != nil, pinned: version != "", networks: net.InterfaceAddrs, owner: ownerOf}, nil
}

func tlsTransport(options tlsconfig.Options) (*http.Client, error) {
	options.ExclusiveRootPools = true
	config, err := tlsconfig.Client(options)
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config}, CheckRedirect: client.CheckRedirect}, nil
}

func (d *docker) Close() { d.api.Close() }

// List is the first question to an engine. It asks without a version, so that
// every engine answers in the one it prefers: the answer also says which versions
// it speaks, which saves the client a question of its own.
func (d *docker) List(ctx context.Context) ([]Listed, error) {
	list, err := d.list(ctx)
	if err != nil {
		return nil, err
	}
	var found []Listed
	for _, c := range list {
		l := Listed{ID: c.ID, State: c.State, Labels: c.Labels, Mounts: mounts(c.Mounts)}
		if len(c.Names) > 0 {
			l.Name = strings.TrimPrefix(c.Names[0], "/")
		}
		found = append(found, l)
	}
	return found, nil
}

func (d *docker) list(ctx context.Context) ([]container.Summary, error) {
	if d.pinned {
		return d.api.ContainerList(ctx, container.ListOptions{All: true})
	}
	var list []container.Summary
	header, err := d.get(ctx, "/containers/json?all=1", &list)
	if refused := (*refusal)(nil); errors.As(err, &refused) && refused.code < 500 {
		// Some proxies let only paths with a version through.
		for _, version := range []string{"/v1.44", "/v1.41"} { // the oldest that Docker 29 speaks, and the newest of Debian 12
			if h, again := d.get(ctx, version+"/containers/json?all=1", &list); again == nil {
				header, err = h, nil
				break
			}
		}
	}
	if err == nil {
		d.api.NegotiateAPIVersionPing(types.Ping{APIVersion: header.Get("Api-Version")})
	}
	return list, err
}

const maxAnswer = 16 << 20 // bytes of an engine's answer

// get asks for a path and decodes the answer.
func (d *docker) get(ctx context.Context, path string, answer any) (http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base()+path, nil)
	if err != nil {
		return nil, err
	}
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
		return nil, newRefusal(response, body)
	}
	return response.Header, json.Unmarshal(body, answer)
}

// refusal is an answer with another status than 200.
type refusal struct {
	code            int
	status, message string
}

func (r *refusal) Error() string { return r.status + ": " + say.Plain(r.message) }

// newRefusal takes the message out of JSON, or as it stands.
func newRefusal(r *http.Response, body []byte) error {
	var said struct{ Message string }
	if json.Unmarshal(body, &said) != nil || said.Message == "" {
		said.Message = string(body)
	}
	return &refusal{r.StatusCode, r.Status, said.Message}
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
		Confined:  d.isRoots(info) && confined(info.HostConfig),
		Root:      d.rootOf(info),
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

// anonymous is the name of a volume that nobody named: it is there because the image
// has a VOLUME.
var anonymous = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[0-9a-f]{64}$`)
})

// mounts sorts what Docker lists in no order.
func mounts(list []container.MountPoint) []Mount {
	var all []Mount
	for _, m := range list {
		if m.Type == mount.TypeVolume && anonymous().MatchString(m.Name) || m.Type == mount.TypeTmpfs {
			continue
		}
		all = append(all, Mount{Source: m.Source, Destination: m.Destination})
	}
	slices.SortFunc(all, func(a, b Mount) int { return strings.Compare(a.Destination, b.Destination) })
	return all
}

func (d *docker) Restart(ctx context.Context, id string) error {
	return d.api.ContainerRestart(ctx, id, container.StopOptions{})
}

func (d *docker) Host(ctx context.Context) (name string, at time.Time, err error) {
	info, err := d.api.Info(ctx)
	if err != nil {
		return "", time.Time{}, err
	}
	at, err = time.Parse(time.RFC3339Nano, info.SystemTime)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("it says %s", say.Foreign(info.SystemTime))
	}
	return info.Name, at, nil
}
