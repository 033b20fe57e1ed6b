package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/hook"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
	"mailu-hook/reload"
)

// targetFlags declares the flags that choose the front and its directory.
func targetFlags(fs *pflag.FlagSet) {
	fs.String("certs-dir", "", "`DIR` on this host that the front mounts at /certs (default: what the container says, else "+mailu.DefaultCertsDir+")")
	fs.String("container", "", "`NAME` of the front container (default: that of the Compose service \"front\")")
	fs.String("project", "", "`NAME` of the Compose project, where several fronts run")
	fs.StringSlice("hostname", nil, "`NAME` that the certificate must cover; repeatable, the main one first (default: HOSTNAMES of the front)")
	fs.Duration("timeout", 30*time.Second, "`TIME` after which to give up; putting the old pair back may take as much again")
}

// target is where a deploy goes: the facts, and the front itself if it runs and
// can be asked.
type target struct {
	facts   mailu.Facts
	front   *reload.Front
	unasked error  // why a front that may run cannot be asked
	note    string // why there is none to ask
}

const findLimit = 5 * time.Second // the engine's share of the time

// locate finds the front and what is known of it: from flags and settings, then
// from the container, then from what the store remembers, then from mailu.env,
// then the defaults.
func (d *deployment) locate(ctx context.Context) error {
	if err := d.openEngine(); err != nil {
		return err
	}
	limited, cancel := d.engineTime(ctx)
	defer cancel()
	t := &target{}
	found, err := d.engine.Find(limited, d.selector())
	switch {
	case err == nil:
		t.meet(found)
	case errors.Is(err, reload.ErrNone):
		t.facts, t.note = d.c.recall(), err.Error()
	case errors.Is(err, reload.ErrEngine):
		t.facts, t.unasked = d.c.recall(), err
	default:
		return err
	}
	d.target = t
	d.note(t.note)
	if t.unasked != nil && d.flag("dry-run") {
		d.note(t.unasked.Error())
	}
	return d.c.override(t)
}

func (d *deployment) openEngine() (err error) {
	if d.engine != nil {
		return nil
	}
	if d.engine, err = reload.Open(d.c.settings); err != nil {
		return say.Hint(usageErr{err.Error()}, "%s", say.HintOf(err))
	}
	return nil
}

func (d *deployment) selector() reload.Selector {
	return reload.Selector{Container: d.c.text("container"), Project: d.c.text("project")}
}

func (d *deployment) engineTime(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, min(findLimit, d.timeout()/3), errors.New("the time is up"))
}

// meet takes the facts of a container that was found, and the container itself
// if it can be asked.
func (t *target) meet(found *reload.Front) {
	t.facts = found.Facts
	switch found.State {
	case "running":
		t.front = found
	case "paused":
		t.unasked = say.Hint(fmt.Errorf("the front %s is paused", found.Container), "docker unpause %s", found.Container)
	case "restarting":
		t.unasked = say.Hint(fmt.Errorf("the front %s is restarting over and over", found.Container), "docker logs %s tells why", found.Container)
	default:
		t.note = fmt.Sprintf("the front %s is not running (%s)", found.Container, found.State)
	}
}

// recall is what is known of a front that cannot be asked.
func (c *call) recall() mailu.Facts {
	dir := filepath.Clean(firstNonEmpty(c.text("certs-dir"), mailu.DefaultCertsDir))
	if facts, known := remembered(dir); known {
		return facts
	}
	env, _ := readVariables(filepath.Join(filepath.Dir(dir), "mailu.env")) // what can be read of it, as Compose is lenient too
	facts := mailu.ParseEnvironment(func(name string) string { return env[name] })
	facts.CertsDir = dir
	return facts
}

// remembered is what a front last said of itself, as the store in its certs
// directory has it.
func remembered(dir string) (facts mailu.Facts, known bool) {
	if dir == "" {
		return facts, false
	}
	s, err := hook.OpenStore(dir, mailu.DefaultCertName, mailu.DefaultKeyName)
	if err != nil {
		return facts, false
	}
	defer s.Close()
	state, _ := s.State()
	facts = state.Front
	facts.CertsDir = dir
	return facts, facts.Hostnames != nil
}

// override puts what the administrator said above what was found.
func (c *call) override(t *target) error {
	if names, _ := c.fs.GetStringSlice("hostname"); len(names) > 0 {
		t.facts.Hostnames = names
	}
	if err := t.facts.CheckFlavor(); err != nil {
		return err
	}
	dir := c.text("certs-dir")
	if dir == "" || dir == t.facts.CertsDir {
		return nil
	}
	mounted, err := os.Stat(t.facts.CertsDir)
	if err == nil {
		if named, err := os.Stat(dir); err == nil && !os.SameFile(mounted, named) {
			return usageError("--certs-dir is %s, but %s mounts %s at /certs and would never see it", dir, t.facts.Container, t.facts.CertsDir)
		}
	}
	t.facts.CertsDir = dir
	return nil
}
