package reload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
	"mailu-hook/internal/wait"
)

const testLimit = 5 * time.Second // leaves time to reload and ask the ports anyway

// Exit statuses of docker exec for a command that cannot be run, and for one that
// was ended by HUP.
const (
	cannotRun = 126
	notFound  = 127
	hungUp    = 128 + int(syscall.SIGHUP)
)

// Test lets nginx judge the configuration with the installed pair (nginx -t). It
// returns a *mailu.Refusal if nginx objects. Nothing is reloaded; but nginx -t
// creates an empty pid file where there is none, which Settle repairs.
//
// dovecot is not tested here: a command in a container takes longer to start than
// both daemons take to reload, and a dovecot that dislikes its configuration keeps
// serving what it had. Explain asks it if the ports do not follow.
func (f *Front) Test(ctx context.Context) error {
	f.watcher.expect(watcherDelay)
	return f.verdict(ctx, "nginx", "-t", "-q")
}

// Explain asks dovecot, by doveconf and the file that it was started with, why it
// might not have reloaded. It returns a *mailu.Refusal if dovecot objects to its
// configuration, nil if it does not, or does not run.
func (f *Front) Explain(ctx context.Context) error {
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

// Reload sends HUP to the masters of nginx and dovecot. It finds them in the
// process table and not by their pid files, which the front deletes (Mailu #3287,
// #4080), and waits for a front that is starting or reconfiguring itself. If
// dovecot should run and does not, as in a front that was started without
// certificates, it restarts the container: nothing less brings dovecot back.
//
// After nil the daemons have been told; the ports show whether they obeyed.
func (f *Front) Reload(ctx context.Context) error {
	procs, err := f.started(ctx)
	if err != nil {
		return err
	}
	f.told = time.Now()
	f.watcher.expect(watcherDelay)
	nginx, _ := master(procs, "nginx")
	dovecot, ok := master(procs, "dovecot")
	if ok {
		nginxErr, dovecotErr := f.in.hangUp(ctx, nginx), f.in.hangUp(ctx, dovecot)
		if nginxErr != nil && dovecotErr != nil {
			return fmt.Errorf("%w, and %w", nginxErr, dovecotErr)
		}
		return cmp.Or(nginxErr, dovecotErr)
	}
	if nginx.inside != 1 && !f.restarted && f.lacksDovecot(ctx) {
		f.restarted = true
		return f.restart(ctx)
	}
	return f.in.hangUp(ctx, nginx)
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
	var mail []mailu.Port
	for _, p := range f.Ports {
		if p.Number != 25 && p.Number != 443 {
			mail = append(mail, p)
		}
	}
	return len(mail) > 0 && !mailu.AnyAnswers(f.Target().Only(mail).Look(ctx))
}

func (f *Front) restart(ctx context.Context) error {
	if err := f.in.engine.Restart(ctx, f.ID); err != nil {
		return engineError(ctx, "restarting "+f.Container, err)
	}
	i, err := f.in.engine.Inspect(ctx, f.ID)
	if err != nil {
		return engineError(ctx, "inspecting "+f.Container, err)
	}
	f.State, f.in.pid, f.hosts, f.published = i.State, i.Pid, i.Hosts, i.Published // its addresses may have changed
	f.watcher.restarted()
	_, err = f.started(ctx)
	return err
}
