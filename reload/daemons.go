package reload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
	"mailu-hook/internal/wait"
)

const testLimit = 5 * time.Second // of a daemon's test; leaves time to ask the ports anyway

// Exit statuses of docker exec for a command that cannot be run, and for one that
// was ended by HUP.
const (
	cannotRun = 126
	notFound  = 127
	hungUp    = 128 + int(syscall.SIGHUP)
)

// Explain asks dovecot, by doveconf and the file that it was started with, why it
// might not have reloaded. It returns a *mailu.Refusal if dovecot objects to its
// configuration, nil if it does not, or does not run. Whether the front has been
// restarted meanwhile is found out first: another container may have its address now.
func (f *Front) Explain(ctx context.Context) error {
	if err := f.meetAgain(ctx); err != nil {
		return err
	}
	procs, err := f.in.processes(ctx)
	if err != nil {
		return err
	}
	dovecot, _ := master(procs, "dovecot")
	i := slices.Index(dovecot.args, "-c")
	if i < 0 || i+1 >= len(dovecot.args) {
		return nil
	}
	return f.verdict(ctx, "doveconf", "-c", dovecot.args[i+1], "-h", "protocols")
}

// verdict runs a daemon's test, and once more if it objects and the watcher is not
// paused: within a second or two of a switch the front's own configuration run
// rewrites the files that the test reads, and a test that read half of one says
// nothing.
func (f *Front) verdict(ctx context.Context, command ...string) error {
	err := f.test(ctx, command...)
	var refusal *mailu.Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	if procs, perr := f.in.processes(ctx); f.watcher.paused && perr == nil && !reconfiguring(procs) {
		return err
	}
	rest, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	if _, busy := f.watcher.quiesce(rest); busy != nil {
		return err
	}
	return f.test(ctx, command...)
}

func (f *Front) test(ctx context.Context, command ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, testLimit, errors.New("no answer within "+testLimit.String()))
	defer cancel()
	out, status, err := f.in.exec(ctx, command...)
	for err == nil && status == hungUp { // by config.py's killall, meant for the daemon of the same name
		out, status, err = f.in.exec(ctx, command...)
	}
	if err != nil || status == 0 || status == cannotRun || status == notFound {
		return err
	}
	if status > 128 { // 128 + the signal: it never came to a verdict
		return fmt.Errorf("%s in %s was killed (exit status %d): %s", command[0], f.Container, status, say.Foreign(string(out)))
	}
	return say.Hint(&mailu.Refusal{Err: fmt.Errorf("%s in %s: exit status %d: %s", command[0], f.Container, status, say.Foreign(string(out)))},
		"fix what it complains about (usually a file in ROOT/overrides); the certificate itself passed every check")
}

// Reload makes nginx load what is installed, and then dovecot, by HUP to their
// masters. It finds them in the process table and not by their pid files, which the
// front deletes (Mailu #3287, #4080), and waits for a front that is starting or
// reconfiguring itself.
//
// nginx is the test: it keeps its configuration when it cannot load the new one,
// while dovecot, told of a bad pair, drops TLS on every port. So dovecot is told once
// nginx has loaded it. An nginx that does not follow is asked why (nginx -t). If it
// objects, Reload returns a *mailu.Refusal, and dovecot was not told.
//
// If dovecot should run and does not, as in a front that was started without
// certificates, the container is restarted: nothing less brings dovecot back.
//
// After nil the daemons have been told; the ports show whether they obeyed.
func (f *Front) Reload(ctx context.Context, loaded func(mailu.Endpoint) bool) error {
	procs, err := f.started(ctx)
	if err != nil {
		return err
	}
	nginx, _ := master(procs, "nginx")
	dovecot, both := master(procs, "dovecot")
	if !both && nginx.inside != 1 && !f.restarted && f.lacksDovecot(ctx) {
		return f.restart(ctx)
	}
	nginxErr := f.reloadNginx(ctx, procs, loaded)
	var refusal *mailu.Refusal
	if !both || errors.As(nginxErr, &refusal) {
		return nginxErr
	}
	dovecotErr := f.in.hangUp(ctx, dovecot)
	f.told = time.Now()
	if nginxErr != nil && dovecotErr != nil {
		return fmt.Errorf("%w, and %w", nginxErr, dovecotErr)
	}
	return cmp.Or(nginxErr, dovecotErr)
}

// reloadNginx returns once nginx has loaded what is installed, or has said that it
// would. nginx -t creates an empty pid file where there is none, which Settle repairs.
func (f *Front) reloadNginx(ctx context.Context, procs []process, loaded func(mailu.Endpoint) bool) error {
	nginx, _ := master(procs, "nginx")
	if err := f.in.hangUp(ctx, nginx); err != nil {
		return err
	}
	if f.nginxLoads(ctx, workers(procs), loaded) {
		return nil
	}
	return f.verdict(ctx, "nginx", "-t", "-q")
}

const followLimit = 500 * time.Millisecond // five times what nginx takes

// nginxLoads reports whether nginx soon has a worker besides the old ones, or shows on
// one of its ports what loaded accepts. It starts new workers once it has read its
// configuration and the certificate, a tenth of a second before it tells the old ones
// to stop, which take the connections until then
// (nginx, src/os/unix/ngx_process_cycle.c, ngx_master_process_cycle).
func (f *Front) nginxLoads(ctx context.Context, old []int, loaded func(mailu.Endpoint) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, followLimit)
	defer cancel()
	renewed := false
	var wg sync.WaitGroup
	if f.in.isLocal() {
		wg.Go(func() {
			if renewed = f.awaitWorker(ctx, old); renewed {
				cancel()
			}
		})
	}
	_ = wait.For(ctx, nginxWait)
	answers := f.Target().Only(f.portsOf(true)).Await(ctx, func(e mailu.Endpoint) bool {
		if loaded(e) {
			cancel() // one is enough
		}
		return loaded(e)
	})
	wg.Wait()
	return renewed || slices.ContainsFunc(answers, loaded)
}

const workerPoll = 5 * time.Millisecond

// awaitWorker returns once nginx has a worker that is none of the old ones; false if ctx
// ends first.
func (f *Front) awaitWorker(ctx context.Context, old []int) bool {
	for wait.For(ctx, workerPoll) == nil {
		procs, err := f.in.processes(ctx)
		if err != nil {
			return false
		}
		if slices.ContainsFunc(workers(procs), func(pid int) bool { return !slices.Contains(old, pid) }) {
			return true
		}
	}
	return false
}

// portsOf are those that nginx always serves, or the others: dovecot's, in a front
// that has one.
func (f *Front) portsOf(nginx bool) (ports []mailu.Port) {
	for _, p := range f.Ports {
		if nginx == (p.Number == 25 || p.Number == 443) {
			ports = append(ports, p)
		}
	}
	return ports
}

const startPoll = 100 * time.Millisecond

// started returns the processes once nginx is among them and no configuration run
// is, unless that takes longer than one ever should.
func (f *Front) started(ctx context.Context) ([]process, error) {
	for began := time.Now(); ; {
		procs, err := f.in.processes(ctx)
		if err != nil {
			return nil, err
		}
		if _, ok := master(procs, "nginx"); ok && (!reconfiguring(procs) || time.Since(began) > settleLimit) {
			return procs, nil
		}
		if err := wait.For(ctx, startPoll); err != nil {
			return nil, fmt.Errorf("waiting for nginx to start in %s: %w", f.Container, err)
		}
	}
}

// lacksDovecot reports whether the front should have a dovecot: it has ports that
// dovecot serves, and none of them answers. Where nginx serves them all (Mailu 2.0)
// at least one does, unless TLS is off altogether.
func (f *Front) lacksDovecot(ctx context.Context) bool {
	mail := f.portsOf(false)
	return len(mail) > 0 && !mailu.AnyAnswers(f.Target().Only(mail).Look(ctx))
}

// restart restarts a front whose nginx would start again.
func (f *Front) restart(ctx context.Context) error {
	var refusal *mailu.Refusal
	if err := f.verdict(ctx, "nginx", "-t", "-q"); errors.As(err, &refusal) {
		return err
	}
	f.restarted = true
	if err := f.in.engine.Restart(ctx, f.ID); err != nil {
		return engineError(ctx, "restarting "+f.Container, err)
	}
	if err := f.meetAgain(ctx); err != nil {
		return err
	}
	_, err := f.started(ctx)
	return err
}

// meetAgain takes the processes and the addresses of a container as they are now.
func (f *Front) meetAgain(ctx context.Context) error {
	i, err := f.in.engine.Inspect(ctx, f.ID)
	if err != nil {
		return engineError(ctx, "inspecting "+f.Container, err)
	}
	if i.Pid != f.in.pid {
		f.watcher.paused = false // it is another process
	}
	f.State, f.in.pid, f.hosts, f.published = i.State, i.Pid, i.Hosts, i.Published
	return nil
}
