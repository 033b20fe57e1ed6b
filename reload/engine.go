// Package reload drives Mailu's front containers: it finds them, runs their own
// tests, reloads their daemons, and waits until they have settled. Fronts that
// mount the same certs directory form a Group and are handled as one.
//
// It trusts no exit status: whether a certificate is served is what the ports
// show (package probe). A container engine is an Engine; the files docker*.go hold
// the one there is, and are the only importers of the Docker client.
package reload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"mailu-hook/internal/say"
)

// Engine is a container engine. Its methods may be called at the same time, and
// return when ctx ends at the latest. Their errors are the engine's own words; this
// package turns them into ErrEngine.
type Engine interface {
	// List returns all containers, including those that are stopped.
	List(ctx context.Context) ([]Listed, error)
	// Inspect describes a container. The error wraps errNoContainer if there is no
	// container of that name or id.
	Inspect(ctx context.Context, id string) (Inspection, error)
	// Exec runs a command in a container as root, without a shell and without
	// input, and returns the beginning of its output and its exit status. A command
	// that is still running when ctx ends is left to itself. The error wraps
	// errNotRunning if nothing can be run in that container.
	Exec(ctx context.Context, id string, command ...string) (output []byte, status int, err error)
	// Restart restarts a container, and returns once it has started.
	Restart(ctx context.Context, id string) error
	// Events calls tell for everything that happens to containers from now on,
	// until ctx ends or the engine breaks off, and returns why.
	Events(ctx context.Context, tell func(Event)) error
	// Host asks the engine for the name of its host, and for its time.
	Host(ctx context.Context) (name string, at time.Time, err error)
	// Close releases the connections.
	Close()
}

// engines are those that Open knows. The first that is found here is used, or
// else the first.
var engines = []struct {
	name string
	here func(env func(string) string) bool
	open func(env func(string) string) (Engine, error)
}{
	{"Docker", dockerHere, openDocker},
	{"Podman", podmanHere, openPodman},
}

// Open prepares to talk to the engine that the settings name. It connects to
// nothing yet. What the engine lists is asked once, so that a caller that got no
// answer does not wait for it again: open it anew for each deploy. The caller
// closes it.
func Open(env func(string) string) (Engine, error) {
	use := engines[0]
	for _, e := range engines {
		if e.here(env) {
			use = e
			break
		}
	}
	e, err := use.open(env)
	if err != nil {
		return nil, err
	}
	if self := ownContainer(); self != "" {
		e = &contained{Engine: e, self: self}
	}
	return &listedOnce{Engine: e}, nil
}

// Listed is a container as a list shows it.
type Listed struct {
	ID     string
	Name   string
	State  string // as in Inspection
	Labels map[string]string
	Mounts []Mount
}

// Inspection is what an engine says of one container.
type Inspection struct {
	ID, Name, Image string
	State           string // running, paused, restarting, exited, created, dead, …
	Health          string // healthy, unhealthy, starting; "" without a health check
	Pid             int    // of its first process, on the engine's host
	Labels          map[string]string
	Confined        bool             // its root is this host's, and may not read files of others (no CAP_DAC_OVERRIDE)
	Root            int              // the uid on this host of its root, where that is another user; 0 if it is none, or not known
	Env             []string         // NAME=VALUE; holds secrets: never to be kept, shown or logged
	Mounts          []Mount          // by destination
	Hosts           []string         // addresses at which this host reaches the container itself
	Published       map[int][]string // by port of the container: host:port at which this host reaches it
}

// Mount is a directory or file that a container sees, and that somebody has placed
// there: no volume that exists because the image asks for one.
type Mount struct {
	Source      string // on the engine's host; what it is called here, where this program runs in a container
	Unseen      bool   // and is not mounted in that container
	Destination string // in the container
}

// stopped reports whether a container in this state has no processes.
func stopped(state string) bool {
	return state != "running" && state != "paused" && state != "restarting"
}

// Event is something that happened to a container.
type Event struct {
	ID     string
	Action string // start, die, health_status: unhealthy, …
	Labels map[string]string
}

// IsReason reports whether the event may mean that a front has to be looked at: one
// that starts, or turns unhealthy, or a container that Compose knows nothing of.
func (e Event) IsReason() bool {
	service, composed := e.Labels[labelService]
	return (!composed || service == "front") && (e.Action == "start" || e.Action == "unpause" || e.Action == "health_status: unhealthy")
}

// listedOnce is an engine that is asked for its containers once.
type listedOnce struct {
	Engine
	once sync.Once
	list []Listed
	err  error
}

func (e *listedOnce) List(ctx context.Context) ([]Listed, error) {
	e.once.Do(func() { e.list, e.err = e.Engine.List(ctx) })
	return e.list, e.err
}

// Now asks an engine for its time. The error is an ErrEngine.
func Now(ctx context.Context, e Engine) (time.Time, error) {
	_, at, err := e.Host(ctx)
	if err != nil {
		return time.Time{}, engineError(ctx, "asking for its time", err)
	}
	return at, nil
}

// NodeName is what other hosts know this one by, where this program runs in a container
// and so has another name than its host: the name that the engine gives. "" on a host, and
// where the engine does not say.
func NodeName(ctx context.Context, e Engine) string {
	if !Contained() {
		return ""
	}
	name, _, _ := e.Host(ctx) // none after an error
	return name
}

// ErrEngine means that the engine gave no answer, or none of use. Nothing is
// known then about the front.
var ErrEngine = errors.New("cannot query the container engine")

var (
	errNoContainer = errors.New("no such container")
	errNotRunning  = errors.New("not running") // any more, or paused
)

// socketHint is the remedy where an engine does not answer.
func socketHint(err error, contained bool) string {
	if contained && errors.Is(err, fs.ErrNotExist) {
		return mountHere("/var/run/docker.sock")
	}
	return "is the engine running, and may this user use its socket? DOCKER_HOST names another one"
}

// engineError makes an ErrEngine of what an engine reports.
func engineError(ctx context.Context, doing string, err error) error {
	hint := cmp.Or(say.HintOf(err), socketHint(err, Contained()))
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer: %w", context.Cause(ctx))
	} else {
		err = errors.New(say.Foreign(err.Error()))
	}
	return say.Hint(fmt.Errorf("%w: %s: %w", ErrEngine, doing, err), "%s", hint)
}
