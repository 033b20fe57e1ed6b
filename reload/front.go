package reload

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/probe"
	"mailu-hook/internal/say"
	"mailu-hook/internal/wait"
)

// In the container (core/nginx/config.py, and core/nginx/conf/nginx.conf, which
// includes *.conf of the overrides).
const (
	mountPoint     = "/certs"
	overridesPoint = "/overrides"
)

// Front is one Mailu front container as it was when it was found: what it said of
// itself, and the ways to its ports, its processes and its watcher.
type Front struct {
	mailu.Facts
	State  string // running, paused, restarting, exited, created, dead, …
	Health string // healthy, unhealthy, starting; "" without a health check

	in        *interior
	watcher   *watcher
	hosts     []string         // see Inspection
	published map[int][]string // see Inspection

	proxy      string    // PROXY_PROTOCOL, unparsed
	fileMounts []string  // single files of the pair that are mounted
	unseen     bool      // the certs directory is not mounted in the container that we run in
	overrides  string    // directory on the host that nginx includes; "" if nothing is mounted there, or we do not see it
	hidden     string    // those overrides, if they are not mounted in the container that we run in
	confined   bool      // see Inspection
	root       int       // see Inspection
	restarted  bool      // by us: once is enough to know whether it helps
	told       time.Time // when the daemons were last told to reload
}

func newFront(e Engine, i Inspection) *Front {
	env := map[string]string{}
	for _, entry := range i.Env {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	get := func(name string) string { return env[name] }
	f := &Front{Facts: mailu.ParseEnvironment(get), State: i.State, Health: i.Health, hosts: i.Hosts, published: i.Published, confined: i.Confined, root: i.Root}
	f.Container, f.ID, f.Image, f.Project = i.Name, i.ID, i.Image, i.Labels[labelProject]
	f.proxy = get("PROXY_PROTOCOL")
	for _, m := range i.Mounts {
		switch path.Clean(m.Destination) {
		case mountPoint:
			f.CertsDir, f.unseen = m.Source, m.Unseen
		case overridesPoint:
			if m.Unseen {
				f.hidden = m.Source
			} else {
				f.overrides = m.Source
			}
		case path.Join(mountPoint, f.CertName), path.Join(mountPoint, f.KeyName):
			f.fileMounts = append(f.fileMounts, m.Destination)
		}
	}
	f.in = &interior{engine: e, id: i.ID, name: i.Name, pid: i.Pid}
	f.watcher = &watcher{in: f.in}
	return f
}

// Target is what is asked of the front: its TLS ports, at the container itself
// first.
func (f *Front) Target() probe.Target {
	t := probe.New(f.Facts, f.hosts...)
	t.Published = f.published
	return t
}

// isMailu reports whether this is Mailu's front, and not a service of that name in
// another project.
func (f *Front) isMailu() bool {
	return f.Flavor != "" && (f.CertsDir != "" || f.fileMounts != nil)
}

// stopped reports whether the front will read its certificate when it starts.
func (f *Front) stopped() bool {
	return stopped(f.State)
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
			"%s is mounted as a single file: the container keeps the file that was there when it was created, and never sees a new one", strings.Join(f.fileMounts, " and "))
	case f.CertsDir == "":
		return refuse("mount a directory of the host (in compose: ROOT/certs:/certs) and recreate the front", "nothing of the host is mounted at /certs")
	}
	if err := f.CheckFlavor(); err != nil {
		return err
	}
	if f.unseen {
		return refuse(mountHere(f.CertsDir), "this container does not see %s, where the front has its certificates", f.CertsDir)
	}
	if err := f.sees(); err != nil {
		return err
	}
	return f.readable()
}

// mountHere is the remedy for a directory of the host that is not mounted in the
// container that we run in.
func mountHere(dir string) string {
	return fmt.Sprintf("mount it at the same path: -v %s:%[1]s (in compose, under volumes: - %[1]s:%[1]s)", dir)
}

// recognize tells Mailu 2.0 and older, where nginx is PID 1 and serves all mail
// ports, whatever PORTS says.
func (f *Front) recognize(ctx context.Context) {
	if f.State != "running" {
		return
	}
	if procs, err := f.in.processes(ctx); err == nil {
		if nginx, ok := master(procs, "nginx"); ok && nginx.inside == 1 {
			f.Ports = mailu.NginxOnly(f.proxy)
		}
	}
}

// Look asks every TLS port once, all at the same time, and returns after three
// seconds at the latest.
func (f *Front) Look(ctx context.Context) []mailu.Endpoint { return f.Target().Look(ctx) }

// How long daemons that were told to reload are left alone: none is done sooner, and
// questions hold them up. dovecot starts a process for each.
const (
	nginxWait   = 20 * time.Millisecond
	dovecotWait = 60 * time.Millisecond
	aloneLimit  = 300 * time.Millisecond // for one port to be asked alone
)

// Await asks every port until done accepts its answer or ctx ends, and returns the
// last answers. At first it asks one port of dovecot alone: when that has followed a
// reload, so have the others.
func (f *Front) Await(ctx context.Context, done func(mailu.Endpoint) bool) []mailu.Endpoint {
	_ = wait.For(ctx, time.Until(f.told.Add(dovecotWait)))
	if others := f.portsOf(false); len(others) > 0 {
		alone, cancel := context.WithTimeout(ctx, aloneLimit)
		f.Target().Only(others[:1]).Await(alone, done)
		cancel()
	}
	return f.Target().Await(ctx, done)
}

// Running asks the engine whether the container still runs. The error is an
// ErrEngine: then that is not known.
func (f *Front) Running(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, runningLimit, errors.New("no answer within "+runningLimit.String()))
	defer cancel()
	i, err := f.in.engine.Inspect(ctx, f.ID)
	if errors.Is(err, errNoContainer) {
		return false, nil
	}
	if err != nil {
		return false, engineError(ctx, "inspecting "+f.Container, err)
	}
	return i.State == "running" || i.State == "restarting", nil
}

const runningLimit = 10 * time.Second // a busy engine takes seconds
