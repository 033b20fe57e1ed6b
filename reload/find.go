package reload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

// Labels that Compose puts on its containers (docker/compose pkg/api/labels.go).
const (
	labelService = "com.docker.compose.service"
	labelProject = "com.docker.compose.project"
	labelOneOff  = "com.docker.compose.oneoff"
)

const mountPoint = "/certs" // in the container (core/nginx/config.py)

// Selector narrows the search down; its zero value finds the only front.
type Selector struct {
	Container string // name or id; then nothing else is looked at
	Project   string // Compose project
}

// Errors of Find that callers decide on. ErrNone is no misfortune: a front loads
// what it finds at its start.
var (
	ErrNone      = errors.New("no front container found")
	ErrAmbiguous = errors.New("more than one front container")
)

// Front is a Mailu front container as it was when Find asked.
type Front struct {
	mailu.Facts
	State  string // of Docker: running, paused, restarting, exited, created, dead, …
	Health string // of Docker: healthy, unhealthy, starting; "" without a health check

	engine        *Engine
	pid           int              // of PID 1, on the engine's host
	proxy         string           // PROXY_PROTOCOL as it stands
	fileMounts    []string         // of the pair's files one by one
	overrides     string           // on the host: what nginx includes; "" if nothing is mounted there
	ips           []string         // of the container, or of the host if it shares that network
	published     map[int][]string // by port of the container: host:port
	restarted     bool             // by us: once is enough to know whether it helps
	told          time.Time        // when daemons were last told to reload
	watcherPaused bool             // the watcher, by PauseWatcher
	reacts        time.Time        // until when the watcher may begin to react to a switch
}

// Find finds the front container: that of the Compose service "front", told
// from the front of anything else by Mailu's environment and its mount at
// /certs. It changes nothing. Errors wrap ErrEngine, ErrNone, ErrAmbiguous or
// mailu.ErrUnsuitable.
func (e *Engine) Find(ctx context.Context, want Selector) (*Front, error) {
	found, err := e.fronts(ctx, want)
	if err != nil {
		return nil, err
	}
	f, err := choose(found, want)
	if err != nil {
		return nil, err
	}
	if err := f.Suitable(); err != nil {
		return nil, err
	}
	f.recognise(ctx)
	return f, nil
}

// fronts returns all containers that are what want asks for.
func (e *Engine) fronts(ctx context.Context, want Selector) ([]*Front, error) {
	candidates := []candidate{{id: want.Container}}
	if want.Container == "" {
		var err error
		if candidates, err = e.candidates(ctx, want.Project); err != nil {
			return nil, err
		}
	}
	var found []*Front
	for _, c := range candidates {
		info, err := e.inspect(ctx, c.id)
		if cerrdefs.IsNotFound(err) {
			continue // never was there, or is gone since
		}
		if err != nil {
			return nil, engineError(ctx, "inspecting container "+c.id, err)
		}
		if f := newFront(e, info); want.Container != "" || f.isMailu() {
			found = append(found, f)
		}
	}
	return found, nil
}

// inspect asks for a container. The answer has all the parts that are read of
// it; one that lacks a part is an error.
func (e *Engine) inspect(ctx context.Context, id string) (container.InspectResponse, error) {
	info, err := e.api.ContainerInspect(ctx, id)
	if err == nil && (info.ContainerJSONBase == nil || info.State == nil || info.HostConfig == nil || info.Config == nil || info.NetworkSettings == nil) {
		err = errors.New("the answer describes no container")
	}
	return info, err
}

func newFront(e *Engine, info container.InspectResponse) *Front {
	env := map[string]string{}
	for _, entry := range info.Config.Env {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	get := func(name string) string { return env[name] }
	f := &Front{Facts: mailu.ParseEnvironment(get), State: info.State.Status, engine: e, pid: info.State.Pid}
	f.Container, f.ID, f.Image = strings.TrimPrefix(info.Name, "/"), info.ID, info.Config.Image
	f.Project = info.Config.Labels[labelProject]
	f.proxy = get("PROXY_PROTOCOL")
	for _, m := range info.Mounts {
		switch path.Clean(m.Destination) {
		case mountPoint:
			f.CertsDir = m.Source
		case overridesPoint:
			f.overrides = m.Source
		case path.Join(mountPoint, f.CertName), path.Join(mountPoint, f.KeyName):
			f.fileMounts = append(f.fileMounts, m.Destination)
		}
	}
	if h := info.State.Health; h != nil && h.Status != container.NoHealthcheck {
		f.Health = h.Status
	}
	f.findAddrs(info)
	return f
}

// isMailu tells Mailu's front from a service of that name in another project.
func (f *Front) isMailu() bool {
	return f.Flavor != "" && (f.CertsDir != "" || f.fileMounts != nil)
}

// choose prefers a running container to the leftovers of its own project.
func choose(found []*Front, want Selector) (*Front, error) {
	if len(found) > 1 {
		running := slices.DeleteFunc(slices.Clone(found), func(f *Front) bool { return f.State != "running" })
		if len(running) == 1 && !slices.ContainsFunc(found, func(f *Front) bool { return f.Project != running[0].Project }) {
			found = running
		}
	}
	switch len(found) {
	case 0:
		if want.Container != "" {
			return nil, say.Hint(fmt.Errorf("%w: container %s does not exist", ErrNone, say.Foreign(want.Container)), "docker ps --all lists the containers")
		}
		return nil, say.Hint(ErrNone, "if Mailu runs here without Compose, name its front with --container NAME")
	case 1:
		return found[0], nil
	}
	var names []string
	for _, f := range found {
		names = append(names, fmt.Sprintf("%s (project %s)", f.Container, f.Project))
	}
	slices.Sort(names)
	return nil, say.Hint(fmt.Errorf("%w: %s", ErrAmbiguous, strings.Join(names, ", ")),
		"choose with --project NAME or --container NAME, in the hook's command or in /etc/mailu-hook.conf (MAILU_HOOK_PROJECT=…)")
}

// Suitable returns a mailu.ErrUnsuitable for a front on which a deploy could not
// work.
func (f *Front) Suitable() error {
	refuse := func(remedy, format string, args ...any) error {
		return say.Hint(fmt.Errorf("%w: %s: %s", mailu.ErrUnsuitable, f.Container, fmt.Sprintf(format, args...)), "%s", remedy)
	}
	switch {
	case f.Flavor == "":
		return refuse("name Mailu's front with --container", "it has no TLS_FLAVOR, so it is not Mailu's front")
	case f.fileMounts != nil:
		return refuse("mount the directory instead (in compose: ROOT/certs:/certs) and recreate the front",
			"%s is mounted as a single file, which stays the file that was there when the container was made: nothing new on the host reaches it", strings.Join(f.fileMounts, " and "))
	case f.CertsDir == "":
		return refuse("mount a directory of the host (in compose: ROOT/certs:/certs) and recreate the front", "nothing is mounted at /certs")
	}
	return f.CheckFlavor()
}

// recognise tells Mailu 2.0 and older, where nginx is PID 1 and serves all mail
// ports, whatever PORTS says.
func (f *Front) recognise(ctx context.Context) {
	if f.State != "running" {
		return
	}
	if procs, err := f.processes(ctx); err == nil {
		if nginx, ok := master(procs, "nginx"); ok && nginx.inside == 1 {
			f.Ports = mailu.NginxOnly(f.proxy)
		}
	}
}

// findAddrs collects where the ports may be reached.
func (f *Front) findAddrs(info container.InspectResponse) {
	local := f.engine.publicHost() == loopback // elsewhere, its networks are not ours
	for _, n := range info.NetworkSettings.Networks {
		for _, ip := range []string{n.IPAddress, n.GlobalIPv6Address} {
			if ip != "" && local {
				f.ips = append(f.ips, ip)
			}
		}
	}
	slices.Sort(f.ips)
	if info.HostConfig.NetworkMode.IsHost() {
		f.ips = append(f.ips, f.engine.publicHost())
	}
	f.published = map[int][]string{}
	for port, bindings := range info.NetworkSettings.Ports {
		for _, b := range bindings {
			host := b.HostIP
			if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
				host = f.engine.publicHost()
			}
			if addr := net.JoinHostPort(host, b.HostPort); !slices.Contains(f.published[port.Int()], addr) {
				f.published[port.Int()] = append(f.published[port.Int()], addr)
			}
		}
	}
}

// addresses returns where a port may be reached, the container itself first.
func (f *Front) addresses(port int) []string {
	var addrs []string
	for _, ip := range f.ips {
		addrs = append(addrs, net.JoinHostPort(ip, strconv.Itoa(port)))
	}
	return append(addrs, f.published[port]...)
}

// publicHost is where the engine publishes ports, as seen from here.
func (e *Engine) publicHost() string {
	if u, err := url.Parse(e.api.DaemonHost()); err == nil && u.Scheme == "tcp" && u.Hostname() != "" {
		return u.Hostname()
	}
	return loopback
}

const loopback = "127.0.0.1"
