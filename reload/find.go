package reload

import (
	"cmp"
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

	// Of several groups of fronts, Find takes the one with these, if they are not "".
	CertsDir string
	Hostname string // the main one
}

// Errors of Find that callers decide on. ErrNone need not be fatal: a front loads
// whatever it finds when it starts.
var (
	ErrNone      = errors.New("no front container found")
	ErrUnmatched = errors.New("no front matches") // although there are some
	ErrAmbiguous = errors.New("several Mailu fronts run here")
)

// SeveralError is ErrAmbiguous, and the groups that may be meant, each with a certs
// directory of its own.
type SeveralError struct{ Groups []Group }

func (e *SeveralError) Error() string {
	return fmt.Sprintf("%v: %s", ErrAmbiguous, slices.Concat(e.Groups...).names())
}
func (e *SeveralError) Is(target error) bool { return target == ErrAmbiguous }
func (e *SeveralError) Hint() string         { return chooseOne }

const chooseOne = "choose one: --project NAME or --container NAME (in /etc/mailu-hook.conf: MAILU_HOOK_PROJECT=NAME)"

// Find finds the front that want selects, and all others that mount the same certs
// directory. A front is a container of the Compose service "front" that has Mailu's
// environment and a mount at /certs; if there is none, a running container that has
// these two. It changes nothing. Errors wrap ErrEngine, ErrNone, ErrUnmatched or
// mailu.ErrUnsuitable, or are a [*SeveralError].
func Find(ctx context.Context, e Engine, want Selector) (Group, error) {
	found, err := fronts(ctx, e, want)
	if err != nil {
		return nil, err
	}
	groups := current(found).byDirectory()
	if len(groups) > 1 {
		if groups, err = want.narrow(groups); err != nil {
			return nil, err
		}
	}
	if len(groups) > 1 {
		return nil, &SeveralError{groups}
	}
	g := groups[0]
	if err := g.suitable(); err != nil {
		return nil, err
	}
	_ = g.each(func(f *Front) error { f.recognize(ctx); return nil })
	return g.named(), nil
}

// Survey finds every front that want may mean, including those on which a deploy
// could not work, sorted by name. It changes nothing. Stopped containers beside a
// running front of their directory are left out. Errors wrap ErrEngine, ErrNone or
// ErrUnmatched.
func Survey(ctx context.Context, e Engine, want Selector) (Group, error) {
	found, err := fronts(ctx, e, want)
	if err != nil {
		return nil, err
	}
	all := current(found)
	_ = all.each(func(f *Front) error { f.recognize(ctx); return nil })
	return all, nil
}

// Candidate is a container that may be a front, and the directory that it mounts at
// /certs.
type Candidate struct{ ID, CertsDir string }

// Candidates returns those that want may mean; none if that cannot be told by the one
// question to the engine that it takes, which a Find that follows does not ask again.
// What a front said of itself by its environment stays true as long as its container
// exists.
func Candidates(ctx context.Context, e Engine, want Selector) (found []Candidate) {
	if want.Container != "" {
		return nil
	}
	listed, _, _ := candidates(ctx, e) // none after an error
	for _, c := range listed {
		if want.admits(c.Labels) {
			found = append(found, Candidate{c.ID, c.certsDir()})
		}
	}
	return found
}

// admits reports whether a container with these labels is of the project.
func (s Selector) admits(labels map[string]string) bool {
	return s.Project == "" || labels[labelProject] == s.Project
}

// candidates returns the containers that may be fronts, and all containers.
func candidates(ctx context.Context, e Engine) (found, all []Listed, err error) {
	if all, err = e.List(ctx); err != nil {
		return nil, nil, engineError(ctx, "listing containers", err)
	}
	for _, c := range all {
		if c.Labels[labelService] == "front" && !c.oneOff() {
			found = append(found, c)
		}
	}
	return found, all, nil
}

// unlabeled returns the running containers that mount something at /certs: Mailu's
// front may run by other means than Compose.
func unlabeled(all []Listed) (found []Listed) {
	for _, c := range all {
		if !stopped(c.State) && !c.oneOff() && slices.ContainsFunc(c.Mounts, func(m Mount) bool {
			at := path.Clean(m.Destination)
			return at == mountPoint || path.Dir(at) == mountPoint
		}) {
			found = append(found, c)
		}
	}
	return found
}

// oneOff reports whether docker compose run made the container.
func (c Listed) oneOff() bool { return c.Labels[labelOneOff] == "True" }

func (c Listed) certsDir() string {
	for _, m := range c.Mounts {
		if path.Clean(m.Destination) == mountPoint {
			return m.Source
		}
	}
	return ""
}

// Mounting returns the names of the running containers that mount a certs directory,
// whatever they are: as long as there is one, nobody can say that the front will load
// its certificate when it starts.
func Mounting(ctx context.Context, e Engine, dir string) (names []string, err error) {
	all, err := e.List(ctx)
	if err != nil {
		return nil, engineError(ctx, "listing containers", err)
	}
	for _, c := range all {
		if !stopped(c.State) && slices.ContainsFunc(c.Mounts, func(m Mount) bool { return sameDir(m.Source, dir) }) {
			names = append(names, cmp.Or(c.Name, c.ID))
		}
	}
	slices.Sort(names)
	return names, nil
}

// fronts returns the fronts that want selects, at least one, and those that share a
// certs directory with one of them.
func fronts(ctx context.Context, e Engine, want Selector) (Group, error) {
	listed, all, err := candidates(ctx, e)
	if err != nil {
		return nil, err
	}
	wanted, err := want.among(ctx, e, listed)
	if err != nil {
		return nil, err
	}
	if len(wanted) == 0 {
		others, err := inspectAll(ctx, e, listed)
		if err == nil && len(others) == 0 {
			others, err = inspectAll(ctx, e, unlabeled(all))
		}
		if err != nil {
			return nil, err
		}
		if want.Container != "" || want.Project != "" || len(others) == 0 {
			return nil, want.unmatched(others)
		}
		wanted = others
	}
	more, err := inspectAll(ctx, e, sharing(wanted, append(listed, unlabeled(all)...)))
	return append(wanted, more...), err
}

// among returns the selected ones of the listed containers, or the one that is named.
func (s Selector) among(ctx context.Context, e Engine, listed []Listed) (Group, error) {
	if s.Container == "" {
		return inspectAll(ctx, e, slices.DeleteFunc(slices.Clone(listed), func(c Listed) bool { return !s.admits(c.Labels) }))
	}
	i, err := e.Inspect(ctx, s.Container)
	if errors.Is(err, errNoContainer) {
		return nil, nil
	}
	if err != nil {
		return nil, engineError(ctx, "inspecting container "+s.Container, err)
	}
	return Group{newFront(e, i)}, nil
}

// unmatched is why none of the fronts is selected.
func (s Selector) unmatched(fronts Group) error {
	if len(fronts) == 0 {
		return say.Hint(ErrNone, "if Mailu runs here, does DOCKER_HOST name its engine? A front has TLS_FLAVOR in its environment and a mount at /certs")
	}
	choice := "--project " + s.Project
	if s.Container != "" {
		choice = "--container " + s.Container
	}
	return say.Hint(fmt.Errorf("%w %s; fronts on this host: %s", ErrUnmatched, say.Foreign(choice), current(fronts).names()),
		"choose one of these, or none if there is only one (in the command, in the environment, or in /etc/mailu-hook.conf)")
}

// sharing returns those of the candidates that are not among the fronts and mount the
// certs directory of one, each once.
func sharing(fronts Group, candidates []Listed) (more []Listed) {
	for _, c := range candidates {
		same := func(l Listed) bool { return l.ID == c.ID }
		known := func(f *Front) bool { return f.ID == c.ID }
		shares := func(f *Front) bool { return sameDir(f.CertsDir, c.certsDir()) }
		if !slices.ContainsFunc(more, same) && !slices.ContainsFunc(fronts, known) && slices.ContainsFunc(fronts, shares) {
			more = append(more, c)
		}
	}
	return more
}

// inspectAll inspects containers, and returns those that are Mailu's fronts.
func inspectAll(ctx context.Context, e Engine, list []Listed) (found Group, err error) {
	for _, c := range list {
		i, err := e.Inspect(ctx, c.ID)
		if errors.Is(err, errNoContainer) {
			continue // gone since
		}
		if err != nil {
			return nil, engineError(ctx, "inspecting container "+c.ID, err)
		}
		if f := newFront(e, i); f.isMailu() {
			found = append(found, f)
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

// current leaves out what is stopped beside a running front of the same directory,
// and sorts by name.
func current(found Group) Group {
	kept := slices.DeleteFunc(slices.Clone(found), func(f *Front) bool {
		return f.stopped() && slices.ContainsFunc(found, func(other *Front) bool {
			return other.State == "running" && sameDir(other.CertsDir, f.CertsDir)
		})
	})
	slices.SortFunc(kept, func(a, b *Front) int { return strings.Compare(a.Container, b.Container) })
	return kept
}

// byDirectory returns the fronts in groups that mount the same certs directory.
func (g Group) byDirectory() (groups []Group) {
	for _, f := range g {
		at := slices.IndexFunc(groups, func(g Group) bool { return sameDir(g[0].CertsDir, f.CertsDir) })
		if at < 0 {
			at, groups = len(groups), append(groups, nil)
		}
		groups[at] = append(groups[at], f)
	}
	return groups
}

// narrow leaves out the groups of another certs directory or main hostname.
func (s Selector) narrow(groups []Group) ([]Group, error) {
	of := slices.DeleteFunc(slices.Clone(groups), func(g Group) bool {
		names := g[0].Hostnames
		return s.CertsDir != "" && !sameDir(g[0].CertsDir, s.CertsDir) ||
			s.Hostname != "" && (len(names) == 0 || !strings.EqualFold(names[0], s.Hostname))
	})
	if len(of) == 0 {
		return nil, say.Hint(fmt.Errorf("%w: %s; none is of this certs directory and main hostname", ErrAmbiguous, slices.Concat(groups...).names()), chooseOne)
	}
	return of, nil
}

// names lists the fronts, to choose from.
func (g Group) names() string {
	var names []string
	for _, f := range g {
		names = append(names, f.Name())
	}
	return strings.Join(names, ", ")
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
