package deploy

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
	"mailu-hook/internal/tlsa"
	"mailu-hook/reload"
)

// Target is where a deploy goes: a group of fronts and their certs directory.
type Target struct {
	Facts   mailu.Facts
	Found   reload.Group // nil if the engine could not be asked, or knows none
	Front   reload.Group // those of Found that can be asked; nil if there is none
	Unasked error        // why a front that may be running, or one of several, cannot be asked
	Absent  string       // why there is no front to ask: it will load the certificate when it starts

	o      Options
	engine reload.Engine
	store  *hook.Store
	leaves []*x509.Certificate // of the source
	result Result

	finishing bool // a run before this one has left something unfinished
}

func newTarget(o Options) *Target {
	return &Target{o: o, result: Result{DryRun: o.DryRun}}
}

// Open finds the front and what is known of it: from Options, then from the
// container, then from what the state directory remembers, then from mailu.env,
// then the defaults. It changes nothing. The caller closes the Target.
func Open(ctx context.Context, o Options) (*Target, error) {
	t := newTarget(o)
	if err := t.open(ctx); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func (t *Target) open(ctx context.Context) error {
	if err := t.locate(ctx); err != nil {
		return err
	}
	return t.openStore(ctx)
}

// Close releases what was opened. Closing twice is harmless.
func (t *Target) Close() {
	if t.store != nil {
		t.store.Close()
	}
	if t.engine != nil {
		t.engine.Close()
	}
	t.store, t.engine = nil, nil
}

// engineLimit is the engine's share of the time.
const engineLimit = 5 * time.Second

func (t *Target) engineTime(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := engineLimit
	if t.o.Timeout > 0 {
		limit = min(limit, t.o.Timeout/3)
	}
	return context.WithTimeoutCause(ctx, limit, errors.New("the time is up"))
}

func (t *Target) openEngine() (err error) {
	if t.engine != nil {
		return nil
	}
	if t.engine, err = reload.Open(t.o.Settings); err != nil {
		return usageError(say.HintOf(err), "%v", err)
	}
	return nil
}

func (t *Target) locate(ctx context.Context) error {
	if err := t.openEngine(); err != nil {
		return err
	}
	limited, cancel := t.engineTime(ctx)
	defer cancel()
	want := t.o.Front
	want.CertsDir = t.o.CertsDir
	if len(t.o.Hostnames) > 0 {
		want.Hostname = t.o.Hostnames[0]
	}
	found, err := reload.Find(limited, t.engine, want)
	switch {
	case err == nil:
		t.meet(found)
	case errors.Is(err, reload.ErrNone), errors.Is(err, reload.ErrUnmatched) && t.isRemembered():
		t.Facts, t.Absent = Recall(t.o.StateDir, t.o.CertsDir), reload.ErrNone.Error()
	case errors.Is(err, reload.ErrEngine):
		t.Facts, t.Unasked = Recall(t.o.StateDir, t.o.CertsDir), err
	default:
		return err
	}
	t.result.Front = &t.Facts
	if err := t.override(&t.Facts); err != nil {
		return err
	}
	if t.Absent != "" {
		t.doubt(limited)
	}
	t.result.Note(t.Absent)
	if t.Unasked != nil && t.o.DryRun {
		t.result.Note(t.Unasked.Error())
	}
	return nil
}

// isRemembered reports whether the front that was selected is the one that was there
// last time: then the choice is no mistake, and the front has been removed.
func (t *Target) isRemembered() bool {
	facts, known := Remembered(t.o.StateDir, filepath.Clean(cmp.Or(t.o.CertsDir, mailu.DefaultCertsDir)))
	want := t.o.Front
	return known && (want.Container == "" || want.Container == facts.Container) && (want.Project == "" || want.Project == facts.Project)
}

// doubt looks for running containers that mount the certs directory. As long as there
// is one, it may be the front.
func (t *Target) doubt(ctx context.Context) {
	names, err := reload.Mounting(ctx, t.engine, t.Facts.CertsDir)
	if err != nil || len(names) == 0 {
		return
	}
	t.Unasked = say.Hint(fmt.Errorf("%s, but %s runs and mounts %s", t.Absent, strings.Join(names, " and "), t.Facts.CertsDir),
		"if it is the front, name it with --container; if it is not, start the front")
	t.Absent = ""
}

// meet takes the facts of the fronts that were found, and those fronts that can be
// asked.
func (t *Target) meet(found reload.Group) {
	t.Facts, t.Found, t.Front = found.Facts(), found, found.Active()
	idle := found.Idle()
	if idle == nil {
		return
	}
	switch idle.State {
	case "paused":
		t.Unasked = say.Hint(fmt.Errorf("the front %s is paused", idle.Container), "docker unpause %s", idle.Container)
	case "restarting":
		t.Unasked = say.Hint(fmt.Errorf("the front %s keeps restarting", idle.Container), "run docker logs %s to see why", idle.Container)
	default:
		t.Absent = fmt.Sprintf("the front %s is not running (%s)", idle.Container, idle.State)
	}
}

// override puts what the administrator said above what was found.
func (t *Target) override(facts *mailu.Facts) error {
	return Override(facts, t.o.CertsDir, t.o.Hostnames)
}

// Override puts what the administrator said above what was found, and refuses a
// front that would not serve what is installed in its certs directory, or a
// certs directory that is another than the front's.
func Override(facts *mailu.Facts, certsDir string, hostnames []string) error {
	if len(hostnames) > 0 {
		facts.Hostnames = hostnames
	}
	if err := facts.CheckFlavor(); err != nil {
		return err
	}
	if err := facts.CheckHostnames(); err != nil {
		return err
	}
	if certsDir == "" || certsDir == facts.CertsDir {
		return nil
	}
	mounted, err := os.Stat(facts.CertsDir)
	if err == nil {
		if named, err := os.Stat(certsDir); err == nil && !os.SameFile(mounted, named) {
			return usageError("leave out --certs-dir: the container says where its certificates are",
				"--certs-dir is %s, but %s mounts %s at /certs and would never see it", certsDir, facts.Container, facts.CertsDir)
		}
	}
	facts.CertsDir = certsDir
	return nil
}

// Recall is what is known of a front that cannot be asked: what it said last
// time, else what mailu.env beside the certs directory says, else the defaults.
// "" names the default directory.
func Recall(stateDir, certsDir string) mailu.Facts {
	dir := filepath.Clean(cmp.Or(certsDir, mailu.DefaultCertsDir))
	if facts, known := Remembered(stateDir, dir); known {
		return facts
	}
	env, _ := mailu.ReadVariables(filepath.Join(filepath.Dir(dir), "mailu.env")) // what can be read of it, as Compose is lenient too
	facts := mailu.ParseEnvironment(func(name string) string { return env[name] })
	facts.CertsDir = dir
	return facts
}

// Remembered is what a front last said of itself.
func Remembered(stateDir, dir string) (facts mailu.Facts, known bool) {
	if dir == "" {
		return facts, false
	}
	s, err := hook.OpenStore(hook.Place{CertsDir: dir, StateDir: stateDir})
	if err != nil {
		return facts, false
	}
	defer s.Close()
	state, _ := s.State()
	facts = state.Front
	facts.CertsDir = dir
	return facts, facts.Hostnames != nil
}

func (t *Target) openStore(ctx context.Context) (err error) {
	limited, cancel := t.engineTime(ctx)
	defer cancel()
	t.store, err = hook.OpenStore(hook.Place{
		CertsDir: t.Facts.CertsDir, CertName: t.Facts.CertName, KeyName: t.Facts.KeyName,
		StateDir: t.o.StateDir, CertbotDir: t.o.Certbot, Node: reload.NodeName(limited, t.engine),
	})
	if err == nil && t.Found != nil {
		t.compare()
	}
	return err
}

// compare notes that the front is another than the one that was served last time: an
// image can make any container look like a front.
func (t *Target) compare() {
	state, _ := t.store.State() // one that is damaged remembers none
	last := state.Front
	if last.Container != "" && (last.Container != t.Facts.Container || last.Project != t.Facts.Project) {
		t.result.Note(fmt.Sprintf("the front is another than last time: %s, and not %s", t.Facts.Name(), last.Name()))
	}
}

// within runs work in the time that a deploy may take.
func (t *Target) within(ctx context.Context, work func(context.Context) error) error {
	if t.o.Timeout <= 0 {
		return work(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.o.Timeout, fmt.Errorf("the time is up (--timeout %s)", t.o.Timeout))
	defer cancel()
	return work(ctx)
}

// rules are what a bundle must satisfy.
func (t *Target) rules() hook.Rules {
	return hook.Rules{Roots: t.o.Roots, AllowUntrusted: t.o.AllowUntrusted, NoTest: t.Front == nil}
}

// options are those of the transaction.
func (t *Target) options() hook.Options {
	return hook.Options{
		Rules:    t.rules(),
		ByHand:   t.o.Caller == Person,
		DryRun:   t.o.DryRun,
		Guard:    tlsa.Guard(t.o.DANE, t.o.Resolver, t.Facts.Hostnames, func(hosts []tlsa.Host) { t.result.DANE = hosts }),
		Grace:    t.o.Grace,
		Pinned:   t.o.Pinned,
		Keep:     t.o.Keep,
		Rollback: t.o.Timeout,
		Facts:    t.Facts,
		Unasked:  t.Unasked,
		Progress: t.o.Progress,
	}
}

// deploy runs the transaction, and then sees to the other hosts that share the
// directory. What was noted before it stays noted.
func (t *Target) deploy(ctx context.Context, bundle *hook.Bundle, o hook.Options) error {
	notes, live := t.result.Warnings, t.store.Live()
	r, err := hook.Deploy(ctx, bundle, t.store, t.front(), o)
	r.Warnings = append(notes, r.Warnings...)
	t.result.Result = r
	return t.meetNodes(ctx, r.Generation != live, err)
}

// front is the front as the transaction takes it: a nil interface if there is none
// to ask.
func (t *Target) front() hook.Front {
	if t.Front == nil {
		return nil
	}
	return t.Front
}

// finish completes the result of a run that ended with err.
func (t *Target) finish(err error) (Result, error) {
	if t.result.Outcome == "" || err != nil {
		t.result.Outcome = hook.OutcomeOf(err)
	}
	return t.result, err
}

// Result is what the deploys of this Target have come to so far.
func (t *Target) Result() *Result { return &t.result }

// Facts is what is known of the front that the options mean, without opening its
// certs directory.
func Facts(ctx context.Context, o Options) (mailu.Facts, error) {
	t := newTarget(o)
	defer t.Close()
	err := t.locate(ctx)
	return t.Facts, err
}
