package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// process is a server that runs as long as it is wanted.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
	err  error         // why; valid once done is closed
}

// startProcess starts a program whose output goes to the file log. It is
// killed when this process ends, however that happens.
func startProcess(log string, env []string, argv ...string) (*process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	defer file.Close()
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), log: log, done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.SysProcAttr = dieWithParent()
	started := make(chan error)
	go func() {
		// PR_SET_PDEATHSIG is about the thread that started the child, not
		// the process (golang/go#27505): keep that thread until the end.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", filepath.Base(argv[0]), err)
	}
	return p, nil
}

// ended waits for the end of the process and returns an error that quotes
// its log.
func (p *process) ended() error {
	<-p.done
	log, _ := os.ReadFile(p.log) // what cannot be read is not quoted
	return fmt.Errorf("%s ended: %v%s", filepath.Base(p.cmd.Path), p.err, quoted(string(log)))
}

// pollAlive calls try until it returns nil, the process ends, or ctx does.
func (p *process) pollAlive(ctx context.Context, try func() error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case <-p.done:
			stop(p.ended())
		case <-ctx.Done():
		}
	}()
	return poll(ctx, 20*time.Millisecond, try)
}

// stop kills the process and waits for its end.
func (p *process) stop() {
	if p == nil {
		return
	}
	p.cmd.Process.Signal(syscall.SIGKILL) // fails only if it ended before
	<-p.done
}
