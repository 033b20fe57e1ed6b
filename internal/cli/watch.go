package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/hook"
	"mailu-hook/internal/deploy"
	"mailu-hook/internal/health"
	"mailu-hook/internal/renewal"
	"mailu-hook/internal/report"
	"mailu-hook/internal/source"
	"mailu-hook/internal/watch"
	"mailu-hook/reload"
)

func watchCommand() command {
	return command{
		name:    "watch",
		summary: "Do what sync does whenever there is a reason to, until stopped",
		about: `The agent, for systemd or a container. It does what sync does when a source
that was deployed before changes, when a front starts or turns unhealthy, at
SIGHUP, and at least every --every. So a certificate is served within seconds
wherever it comes from, without a hook. With --renew it also does what renew
does. Install a certificate once, so that it knows the source.

It prints a line for each thing that it did, and errors; it does not end because
of them. SIGTERM ends it with exit status 0.`,
		examples: `  mailu-hook watch
  mailu-hook watch --renew --agree-tos --ping https://hc-ping.com/UUID
  mailu-hook watch --serve 9090`,
		options: func() action { return &watchOptions{} },
		formats: deployFormatNames(),
		failed:  deployFailed,
	}
}

type watchOptions struct {
	every    time.Duration
	renewing bool
	ping     pingOptions
	pages    pageOptions
	lineages []string
	renewalOptions
}

func (o *watchOptions) add(fs *flags) {
	fs.DurationVar(&o.every, "every", 15*time.Minute, "longest time between two rounds")
	fs.BoolVar(&o.renewing, "renew", false, "also do what renew does, with its flags")
	fs.StringArrayVar(&o.lineages, "lineage", nil, "`SOURCE` source to consider in addition to those deployed before; repeatable")
	o.ping.add(fs.FlagSet)
	fs.group("Pages", &o.pages)
	o.renewalOptions.add(fs)
}

// pageOptions say where the agent shows what status would, and how it judges it.
type pageOptions struct {
	serve string
	judgingOptions
}

func (o *pageOptions) add(fs *pflag.FlagSet) {
	fs.StringVar(&o.serve, "serve", "", "`ADDR` serve /metrics and /healthz there; a port alone is on 127.0.0.1 only")
	o.judgingOptions.add(fs)
}

func (o *pageOptions) listen() (net.Listener, error) {
	if o.serve == "" {
		return nil, nil
	}
	listener, err := watch.Listen(o.serve)
	if err == nil {
		return listener, nil
	}
	if _, _, bad := net.SplitHostPort(o.serve); bad != nil {
		return nil, usageError("--serve: %v", err)
	}
	return nil, fmt.Errorf("--serve: %w", err)
}

// longest: only a round has a limit.
func (o *watchOptions) longest() time.Duration { return 0 }

func (o *watchOptions) run(ctx context.Context, i *invocation) (result, error) {
	w, err := o.prepare(i)
	if err != nil {
		return nil, err
	}
	hangups := make(chan os.Signal, 1)
	signal.Ignore(syscall.SIGHUP) // it does not end this command
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	var serving sync.WaitGroup
	defer serving.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if w.listener != nil {
		pages := watch.Pages{Look: w.page}
		serving.Go(func() { w.tell(nil, pages.Serve(ctx, w.listener)) })
	}
	watch.Run(ctx, watch.Options{
		Every: o.every, Limit: o.renewalOptions.longest(), Round: w.round, Notify: watch.NewNotifier(i.settings),
		Feeds: []watch.Feed{
			watch.Files(func() []string { return deploy.Watched(w.sources, o.state.stateDir) }),
			watch.Changes("what is installed", w.hasMoved),
			watch.Retried(w.events),
		},
		Reload: hangups,
	})
	return text(""), nil
}

// watching is a run of watch.
type watching struct {
	o        *watchOptions
	i        *invocation
	deploy   deploy.Options
	renewal  renewal.Options
	sources  []source.Source
	judging  health.Options
	listener net.Listener
	printing sync.Mutex
	waits    string   // what was printed last of an attempt that waits
	followed bool     // the engine has told of its containers before
	certs    sync.Map // the certs directories of all rounds, and what was live in them
}

func (o *watchOptions) prepare(i *invocation) (*watching, error) {
	w := &watching{o: o, i: i}
	if o.every < time.Minute {
		return nil, usageError("--every must be at least 1m, not %s", o.every)
	}
	if o.dryRun {
		return nil, usageError("watch has no --dry-run: mailu-hook sync --dry-run shows what it would do")
	}
	if err := o.ping.check(); err != nil {
		return nil, err
	}
	var err error
	if w.deploy, err = o.deployOptions.read(i, deploy.Timer); err != nil {
		return nil, err
	}
	w.deploy.Pinned = i.settings(variable("lineage"))
	if o.renewing {
		if w.renewal, err = o.renewalOptions.read(i); err != nil {
			return nil, err
		}
		w.renewal.By, w.renewal.Deploy.Pinned = hook.WatchRenew, w.deploy.Pinned
	}
	if w.sources, err = sourcesAt(o.lineages, "--lineage"); err != nil {
		return nil, err
	}
	if w.judging, err = o.pages.read(i); err != nil {
		return nil, err
	}
	w.renewal.Sources = w.sources
	w.listener, err = o.pages.listen()
	return w, err
}

// round does what sync or renew does, and tells of it.
func (w *watching) round(ctx context.Context, why string) (acted bool) {
	w.i.log.Info("looking", "because", why)
	before := w.live()
	var r *deployed
	var err error
	if w.o.renewing {
		var res renewal.Result
		res, err = renewal.Run(ctx, w.renewal)
		r = renewed(res, false)
	} else {
		var res deploy.Result
		res, err = deploy.Sync(ctx, deploy.Wish{Sources: w.sources, By: hook.Watch}, w.deploy)
		r = newDeployed(res, deployed{unattended: true})
	}
	if ctx.Err() != nil && r.Outcome == hook.OutcomeFailed {
		return false // it was told to end, and has changed nothing
	}
	w.remember(r, before)
	w.tell(r, err)
	if ctx.Err() == nil {
		w.o.ping.tell(ctx, w.i, err)
	}
	return r.hasSwitched()
}

// remember keeps in mind the certs directories that a round was about, with the
// generations that it left live, or that were when it began.
func (w *watching) remember(r *deployed, before map[string]hook.Generation) {
	if r.Front != nil {
		dir := r.Front.CertsDir
		live, known := before[dir]
		if !known || r.hasSwitched() {
			live = cmp.Or(r.Generation, hook.LiveIn(dir))
		}
		w.certs.Store(dir, live)
	}
	for _, other := range r.also {
		w.remember(other.deployed, before)
	}
}

// live are the generations that are live now in those directories.
func (w *watching) live() map[string]hook.Generation {
	live := map[string]hook.Generation{}
	w.certs.Range(func(dir, _ any) bool {
		live[dir.(string)] = hook.LiveIn(dir.(string))
		return true
	})
	return live
}

// hasMoved reports whether another is live than the last round saw: another host that
// shares the directory has switched. The kernel would tell of that, but also of
// everything else that a front writes there, and not on NFS.
func (w *watching) hasMoved() bool {
	for dir, live := range w.live() {
		if last, _ := w.certs.Load(dir); live != last {
			return true
		}
	}
	return false
}

// tell prints how a round ended, if it is worth a line: that the same attempt waits is
// worth one.
func (w *watching) tell(r *deployed, err error) {
	if r == nil && err == nil {
		return
	}
	w.printing.Lock()
	defer w.printing.Unlock()
	if errors.Is(err, hook.ErrWaiting) || errors.Is(err, renewal.ErrWaiting) {
		if w.waits == err.Error() {
			return
		}
		w.waits = err.Error()
	}
	if r == nil {
		writeError(w.i.stderr, err)
		return
	}
	stdout := w.i.stdout
	if err == nil && r.idle() {
		stdout = io.Discard
	}
	finish(w.i, r, err, stdout)
}

// events are the reasons that the engine tells of, and that it answers again: then
// something may have been missed. A front that has just started is given time to open
// its ports.
func (w *watching) events(ctx context.Context, tell func(string)) error {
	engine, err := reload.Open(w.i.settings)
	if err != nil {
		return err
	}
	defer engine.Close()
	if _, err := reload.Now(ctx, engine); err != nil {
		return err
	}
	if w.followed {
		tell("the engine answers again")
	}
	w.followed = true
	return engine.Events(ctx, func(e reload.Event) {
		if e.IsReason() {
			time.AfterFunc(startTime, func() { tell("a container said: " + e.Action) })
		}
	})
}

const startTime = 3 * time.Second

// page looks as status does. It is not healthy if
// something is critical, or if it could not look at all.
func (w *watching) page(ctx context.Context) (metrics, words string, healthy bool) {
	look := lookOptions{
		front: w.o.front, lineages: w.o.lineages, roots: w.o.certificate.roots, state: w.o.state,
		mode: w.o.dane.mode, dns: w.o.dane.resolverOptions, judgingOptions: w.o.pages.judgingOptions,
	}
	began := time.Now()
	r, err := look.look(ctx, w.i)
	if err != nil {
		failed := report.Failed(err, w.judging)
		return report.Prometheus(&failed), report.Nagios(&failed), false
	}
	r.Took = time.Since(began)
	return report.Prometheus(r), report.Nagios(r), r.Worst() != health.Critical
}
