package reload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

const testLimit = 5 * time.Second // leaves time to reload and ask the ports all the same

// Exit statuses of docker exec: for a command that is not there, and for one
// that a HUP ended.
const (
	cannotRun = 126
	notFound  = 127
	hungUp    = 128 + int(syscall.SIGHUP)
)

// Test lets nginx judge the configuration with the installed pair (nginx -t).
// It returns a *mailu.Refusal when nginx objects. Nothing is reloaded; but
// nginx -t makes an empty pid file where there was none, which Settle mends.
//
// dovecot is not tested here: a command in a container takes longer to begin
// than both daemons take to reload, and dovecot keeps serving what it had when
// it dislikes its configuration. Explain asks it when the ports do not follow.
func (f *Front) Test(ctx context.Context) error {
	f.reacts = time.Now().Add(watcherDelay)
	return f.verdict(ctx, "nginx", "-t", "-q")
}

// Explain asks dovecot, by doveconf and the file that it was started with, why
// it might not have reloaded. It returns a *mailu.Refusal when dovecot objects
// to its configuration, nil when it does not, or does not run.
func (f *Front) Explain(ctx context.Context) error {
	procs, err := f.processes(ctx)
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

// verdict runs a daemon's test, and once more when it objects and the watcher is
// not paused: the front's own configuration run, which answers a switch within a
// second or two, writes anew the files that the test reads, and a half of one is
// no verdict.
func (f *Front) verdict(ctx context.Context, command ...string) error {
	err := f.test(ctx, command...)
	var refusal *mailu.Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	if procs, perr := f.processes(ctx); f.watcherPaused && perr == nil && !reconfiguring(procs) {
		return err
	}
	rest, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	if _, busy := f.quiesce(rest); busy != nil {
		return err
	}
	return f.test(ctx, command...)
}

func (f *Front) test(ctx context.Context, command ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, testLimit, errors.New("no answer within "+testLimit.String()))
	defer cancel()
	out, status, err := f.exec(ctx, nil, command...)
	for err == nil && status == hungUp { // by config.py's killall, meant for the daemon of the same name
		out, status, err = f.exec(ctx, nil, command...)
	}
	if err != nil || status == 0 || status == cannotRun || status == notFound {
		return err
	}
	return say.Hint(&mailu.Refusal{Err: fmt.Errorf("%s in %s: exit status %d: %s", command[0], f.Container, status, say.Foreign(string(out)))},
		"mend what it names (often a file in ROOT/overrides); the certificate itself has passed all checks")
}

// Reload sends HUP to the masters of nginx and dovecot, found in the process
// table and not by their pid files, which the front deletes (Mailu #3287,
// #4080). A front that is starting or reconfiguring itself is waited for. If
// dovecot should run and does not, as in a front that was started without
// certificates, the container is restarted: nothing less brings it back.
//
// After nil the daemons have been told; whether they obeyed is what the ports
// say.
func (f *Front) Reload(ctx context.Context) error {
	procs, err := f.started(ctx)
	if err != nil {
		return err
	}
	f.told = time.Now()
	f.reacts = f.told.Add(watcherDelay)
	nginx, _ := master(procs, "nginx")
	dovecot, ok := master(procs, "dovecot")
	if ok {
		nginxErr, dovecotErr := f.hangUp(ctx, nginx), f.hangUp(ctx, dovecot)
		if nginxErr != nil && dovecotErr != nil {
			return fmt.Errorf("%w, and %w", nginxErr, dovecotErr)
		}
		return cmp.Or(nginxErr, dovecotErr)
	}
	if nginx.inside != 1 && !f.restarted && f.lacksDovecot(ctx) {
		f.restarted = true
		return f.restart(ctx)
	}
	return f.hangUp(ctx, nginx)
}

const startPoll = 100 * time.Millisecond

// started returns the processes once nginx is among them, and no configuration
// run, unless that takes longer than one ever should.
func (f *Front) started(ctx context.Context) ([]process, error) {
	for began := time.Now(); ; {
		procs, err := f.processes(ctx)
		if err != nil {
			return nil, err
		}
		if _, ok := master(procs, "nginx"); ok && (!reconfiguring(procs) || time.Since(began) > settleLimit) {
			return procs, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for nginx to start in %s: %w", f.Container, context.Cause(ctx))
		case <-time.After(startPoll):
		}
	}
}

// lacksDovecot tells whether the front misses a dovecot: it has ports that
// dovecot serves, and none of them answers. Where nginx serves them all (Mailu
// 2.0) at least one does, unless TLS is off altogether.
func (f *Front) lacksDovecot(ctx context.Context) bool {
	var mail []mailu.Port
	for _, p := range f.Ports {
		if p.Number != 25 && p.Number != 443 {
			mail = append(mail, p)
		}
	}
	return len(mail) > 0 && !mailu.AnyAnswers(f.ask(ctx, mail))
}

func (f *Front) restart(ctx context.Context) error {
	if err := f.engine.api.ContainerRestart(ctx, f.ID, container.StopOptions{}); err != nil {
		return engineError(ctx, "restarting "+f.Container, err)
	}
	info, err := f.engine.inspect(ctx, f.ID)
	if err != nil {
		return engineError(ctx, "inspecting "+f.Container, err)
	}
	fresh := newFront(f.engine, info) // its addresses may have changed
	f.pid, f.State, f.ips, f.published = fresh.pid, fresh.State, fresh.ips, fresh.published
	f.watcherPaused, f.reacts = false, time.Time{} // it started on the new pair: the watcher has nothing to react to
	_, err = f.started(ctx)
	return err
}

// hangUp sends HUP to a master: by its pid on the host where we may, else by
// killall in the container, as Mailu's own config.py does.
func (f *Front) hangUp(ctx context.Context, p process) error {
	if f.signal(p, syscall.SIGHUP) == nil {
		return nil
	}
	out, status, err := f.exec(ctx, nil, "killall", "-HUP", p.name)
	if err == nil && status != 0 {
		err = fmt.Errorf("exit status %d: %s", status, say.Foreign(string(out)))
	}
	if err != nil {
		return fmt.Errorf("reloading %s in %s: %w", p.name, f.Container, err)
	}
	return nil
}

// signal holds on to the process before it checks that it is still the one
// that was found, so that a pid used anew cannot be hit.
func (f *Front) signal(p process, what syscall.Signal) error {
	if p.host <= 0 {
		return errors.New("no process of this host")
	}
	handle, err := os.FindProcess(p.host) // a pidfd
	if err != nil {
		return err
	}
	defer handle.Release()
	now, err := readProcess(p.host)
	if err != nil || now.name != p.name || now.inside != p.inside {
		return fmt.Errorf("process %d is no longer %s", p.host, p.name)
	}
	return handle.Signal(what)
}

// Running asks the engine whether the container still runs. An engine that
// does not answer leaves that open, and then the answer is no.
func (f *Front) Running(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	info, err := f.engine.inspect(ctx, f.ID)
	return err == nil && info.State.Running && !info.State.Paused
}
