package reload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

// Labels that Compose puts on its containers (docker/compose pkg/api/labels.go).
const (
	labelService = "com.docker.compose.service"
	labelProject = "com.docker.compose.project"
	labelOneOff  = "com.docker.compose.oneoff"
)

// Selector narrows the search; its zero value finds the only fronts there are.
type Selector struct {
	Container string // name or id
	Project   string // Compose project
}

// Errors of Find that callers decide on. ErrNone need not be fatal: a front loads
// whatever it finds when it starts.
var (
	ErrNone      = errors.New("no front container found")
	ErrAmbiguous = errors.New("several Mailu fronts run here")
)

// Find finds the front container that want selects, and all others that mount the
// same certs directory: those of the Compose service "front" that have Mailu's
// environment and a mount at /certs. It changes nothing. Errors wrap ErrEngine,
// ErrNone, ErrAmbiguous or mailu.ErrUnsuitable.
func Find(ctx context.Context, e Engine, want Selector) (Group, error) {
	found, err := fronts(ctx, e, want)
	if err != nil {
		return nil, err
	}
	g, err := choose(found, want)
	if err != nil {
		return nil, err
	}
	if err := g.suitable(); err != nil {
		return nil, err
	}
	g.each(func(f *Front) error { f.recognize(ctx); return nil })
	return g.named(), nil
}

// Survey finds every front that want may mean, including those on which a deploy
// could not work, sorted by name. It changes nothing. Stopped containers beside a
// running front of their project are left out. Errors wrap ErrEngine or ErrNone.
func Survey(ctx context.Context, e Engine, want Selector) (Group, error) {
	found, err := fronts(ctx, e, want)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, none(want)
	}
	all := current(found)
	all.each(func(f *Front) error { f.recognize(ctx); return nil })
	return all, nil
}

// Only returns the id of the only candidate for what want selects, and the
// directory that it mounts at /certs; "" if there is not exactly one. That takes
// one question to the engine, which a Find that follows does not ask again. What a
// front said of itself by its environment stays true as long as its container
// exists.
func Only(ctx context.Context, e Engine, want Selector) (id, certsDir string) {
	if want.Container != "" {
		return "", ""
	}
	found, err := candidates(ctx, e)
	if err != nil {
		return "", ""
	}
	found = slices.DeleteFunc(found, func(c Listed) bool { return !want.admits(c.Labels) })
	if len(found) != 1 {
		return "", ""
	}
	return found[0].ID, found[0].certsDir()
}

// admits reports whether a container with these labels is of the project.
func (s Selector) admits(labels map[string]string) bool {
	return s.Project == "" || labels[labelProject] == s.Project
}

// candidates lists the containers of the Compose service "front".
func candidates(ctx context.Context, e Engine) ([]Listed, error) {
	list, err := e.List(ctx, labelService+"=front")
	if err != nil {
		return nil, engineError(ctx, "listing containers", err)
	}
	return slices.DeleteFunc(slices.Clone(list), func(c Listed) bool { return c.Labels[labelOneOff] == "True" }), nil // docker compose run
}

func (c Listed) certsDir() string {
	for _, m := range c.Mounts {
		if path.Clean(m.Destination) == mountPoint {
			return m.Source
		}
	}
	return ""
}

// fronts returns the fronts that want selects, and those that share a certs
// directory with one of them.
func fronts(ctx context.Context, e Engine, want Selector) (Group, error) {
	listed, err := candidates(ctx, e)
	if err != nil {
		return nil, err
	}
	var found Group
	add := func(id string, named bool) error {
		i, err := e.Inspect(ctx, id)
		if errors.Is(err, errNoContainer) {
			return nil // it never existed, or is gone since
		}
		if err != nil {
			return engineError(ctx, "inspecting container "+id, err)
		}
		if f := newFront(e, i); named || f.isMailu() {
			found = append(found, f)
		}
		return nil
	}
	if want.Container != "" {
		if err := add(want.Container, true); err != nil {
			return nil, err
		}
	} else {
		for _, c := range listed {
			if !want.admits(c.Labels) {
				continue
			}
			if err := add(c.ID, false); err != nil {
				return nil, err
			}
		}
	}
	for _, c := range listed {
		known := func(f *Front) bool { return f.ID == c.ID }
		shares := func(f *Front) bool { return c.Mounts == nil || sameDir(f.CertsDir, c.certsDir()) }
		if slices.ContainsFunc(found, known) || !slices.ContainsFunc(found, shares) {
			continue
		}
		before := len(found)
		if err := add(c.ID, false); err != nil {
			return nil, err
		}
		if len(found) > before && !slices.ContainsFunc(found[:before], func(f *Front) bool { return sameDir(f.CertsDir, found[before].CertsDir) }) {
			found = found[:before]
		}
	}
	return found, nil
}

// sameDir reports whether both are one directory. Those of an engine elsewhere are
// compared by name.
func sameDir(a, b string) bool {
	if a == "" || b == "" || path.Clean(a) == path.Clean(b) {
		return a != "" && b != ""
	}
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// current leaves out what is stopped beside a running front of the same project or
// directory, and sorts by name.
func current(found Group) Group {
	kept := slices.DeleteFunc(slices.Clone(found), func(f *Front) bool {
		return f.stopped() && slices.ContainsFunc(found, func(other *Front) bool {
			return other.State == "running" && (other.Project == f.Project || sameDir(other.CertsDir, f.CertsDir))
		})
	})
	slices.SortFunc(kept, func(a, b *Front) int { return strings.Compare(a.Container, b.Container) })
	return kept
}

// choose returns the fronts that are switched together, which must be all there
// are.
func choose(found Group, want Selector) (Group, error) {
	if len(found) == 0 {
		return nil, none(want)
	}
	g := current(found)
	if slices.ContainsFunc(g, func(f *Front) bool { return f != g[0] && !sameDir(f.CertsDir, g[0].CertsDir) }) {
		var names []string
		for _, f := range g {
			names = append(names, fmt.Sprintf("%s (project %s)", f.Container, f.Project))
		}
		return nil, say.Hint(fmt.Errorf("%w: %s", ErrAmbiguous, strings.Join(names, ", ")),
			"choose one: --project NAME or --container NAME (in /etc/mailu-hook.conf: MAILU_HOOK_PROJECT=NAME)")
	}
	return g, nil
}

func none(want Selector) error {
	if want.Container != "" {
		return say.Hint(fmt.Errorf("%w: container %s does not exist", ErrNone, say.Foreign(want.Container)), "docker ps --all lists the containers")
	}
	return say.Hint(ErrNone, "if Mailu runs here without Compose, name its front with --container NAME")
}

// suitable returns a mailu.ErrUnsuitable if a deploy could not work on one of the
// fronts, or not on all.
func (g Group) suitable() error {
	for _, f := range g {
		if err := f.Suitable(); err != nil {
			return err
		}
		if f.CertName != g[0].CertName || f.KeyName != g[0].KeyName {
			return say.Hint(fmt.Errorf("%w: %s and %s mount %s, but read different files of it", mailu.ErrUnsuitable, g[0].Container, f.Container, f.CertsDir),
				"give them the same TLS_CERT_FILENAME and TLS_KEYPAIR_FILENAME, or a directory each")
		}
	}
	return nil
}
