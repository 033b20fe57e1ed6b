package reload

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"sync"
)

// contained is an engine that is asked from one of its own containers. Directories
// are told as they are called here: by the mounts of that container.
type contained struct {
	Engine
	self   string // id
	once   sync.Once
	mounts []Mount // of self
	err    error
}

// Contained reports whether this program runs in a container of its own, where timers
// and hooks of the host cannot be seen.
func Contained() bool { return ownContainer() != "" }

// ownContainer is the id of the container that this program runs in, "" if it runs on
// the host: engines mount a file of theirs over /etc/hostname.
var ownContainer = sync.OnceValue(func() string {
	text, _ := os.ReadFile("/proc/self/mountinfo") // where there is none, there are no containers
	return containerOf(string(text))
})

var engineFile = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?m)^\S+ \S+ \S+ \S*/([0-9a-f]{64})/\S* /etc/(?:hostname|hosts|resolv\.conf) `)
})

// containerOf is the id that the mounts of a process give away (proc_pid_mountinfo(5)).
func containerOf(mountinfo string) string {
	if found := engineFile().FindStringSubmatch(mountinfo); found != nil {
		return found[1]
	}
	return ""
}

func (e *contained) List(ctx context.Context) ([]Listed, error) {
	list, err := e.Engine.List(ctx)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Mounts, err = e.seen(ctx, list[i].Mounts); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (e *contained) Inspect(ctx context.Context, id string) (Inspection, error) {
	found, err := e.Engine.Inspect(ctx, id)
	if err == nil {
		found.Mounts, err = e.seen(ctx, found.Mounts)
	}
	return found, err
}

// seen are mounts by the names that their sources have here. One that is mounted
// nowhere here is marked.
func (e *contained) seen(ctx context.Context, mounts []Mount) ([]Mount, error) {
	e.once.Do(func() {
		var own Inspection
		own, e.err = e.Engine.Inspect(ctx, e.self)
		e.mounts = own.Mounts
	})
	if errors.Is(e.err, errNoContainer) { // of another engine, in which this one runs: its host is our container
		return mounts, nil
	}
	if e.err != nil {
		return nil, e.err
	}
	var here []Mount
	for _, m := range mounts {
		m.Source, m.Unseen = translate(m.Source, e.mounts)
		here = append(here, m)
	}
	return here, nil
}

// translate is what a path of the host is called where these mounts are, and whether
// it cannot be seen there.
func translate(path string, mounts []Mount) (here string, unseen bool) {
	var by Mount
	for _, m := range mounts {
		if below(m.Source, path) && len(m.Source) > len(by.Source) {
			by = m
		}
	}
	if by.Source == "" {
		return path, true
	}
	rel, _ := filepath.Rel(by.Source, path) // it is below
	here = filepath.Join(by.Destination, rel)
	for _, m := range mounts { // something else may be mounted over it
		if len(m.Destination) > len(by.Destination) && below(m.Destination, here) {
			return path, true
		}
	}
	return here, false
}

// below reports whether path is dir, or lies in it.
func below(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
