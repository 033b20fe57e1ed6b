package main

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

const nginx = "/usr/sbin/nginx"

// terminated is the exit status after TERM, and after a death of nginx by signal.
const terminated = 143

// start is /start.py. In the current front it stays as PID 1 and no signal but
// TERM means anything to it; in the 2.0 front nginx takes its place.
func start() int {
	signals := make(chan os.Signal, 16)
	// Notify, not Ignore: an ignored signal would stay ignored in the daemons.
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGQUIT, syscall.SIGCHLD)
	dropSecrets()
	removePIDFiles(runDir)
	// A link survives the line above; nginx's is taken away, dovecot's is not.
	os.Remove(nginxPID)
	// Upstream only a bad PROXY_PROTOCOL ends start.py here. Other nonsense ends
	// /config.py alone, and leaves the distribution's default nginx site running.
	if _, err := newSettings(environ()); err != nil {
		fmt.Fprintf(os.Stderr, "start.py: %v\n", err)
		return 1
	}

	children := &reaper{waiting: map[int]chan syscall.WaitStatus{}}
	if os.Getenv("FRONT_VARIANT") == variant20 {
		return become20(children, signals)
	}
	done := make(chan int, 1)
	go func() { done <- children.serve() }()
	for {
		select {
		case code := <-done:
			return code
		case s := <-signals:
			switch s {
			case syscall.SIGCHLD:
				children.reap()
			case syscall.SIGTERM, syscall.SIGINT:
				// With PID 1 the kernel ends everything else.
				return terminated
			}
		}
	}
}

// serve starts what the current front runs, and returns when nginx ends.
func (r *reaper) serve() int {
	if watches() {
		r.begin("/certwatcher.py")
	}
	<-r.begin("/config.py")
	// Once only: without certificates dovecot refuses to start, and nobody
	// tries again before the container is restarted.
	if status := <-r.begin("dovecot", "-c", "/etc/dovecot/proxy.conf"); status != 0 {
		fmt.Fprintf(os.Stderr, "start.py: dovecot did not start: exit status %d\n", status.ExitStatus())
	}
	status := <-r.begin(nginx, "-g", "daemon off;")
	if code := status.ExitStatus(); code > 0 {
		return code
	}
	return terminated
}

// become20 ends as Mailu 2.0's start.py does: nginx is PID 1.
func become20(children *reaper, signals <-chan os.Signal) int {
	go func() {
		for s := range signals {
			switch s {
			case syscall.SIGCHLD:
				children.reap()
			case syscall.SIGTERM, syscall.SIGINT:
				os.Exit(terminated)
			}
		}
	}()
	if watches() {
		children.begin("/certwatcher.py")
	}
	<-children.begin("/config.py")
	err := syscall.Exec(nginx, []string{"nginx", "-g", "daemon off;"}, os.Environ())
	fmt.Fprintf(os.Stderr, "start.py: starting nginx: %v\n", err)
	return 1
}

func watches() bool {
	flavor := os.Getenv("TLS_FLAVOR")
	return flavor == "cert" || flavor == "mail"
}

// reaper waits for every child, also those that daemons leave behind; that is
// why nothing here may call Cmd.Wait.
type reaper struct {
	mu      sync.Mutex
	waiting map[int]chan syscall.WaitStatus
}

// begin starts a command; the channel gives its end, or 127 at once if there
// was no beginning.
func (r *reaper) begin(name string, args ...string) <-chan syscall.WaitStatus {
	ended := make(chan syscall.WaitStatus, 1)
	cmd := attached(name, args...)
	// Held until the child is known, so that it is not reaped before.
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "start.py: %v\n", err)
		ended <- syscall.WaitStatus(127 << 8)
		return ended
	}
	r.waiting[cmd.Process.Pid] = ended
	return ended
}

func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if ended, ok := r.waiting[pid]; ok {
			delete(r.waiting, pid)
			ended <- status
		}
	}
}
