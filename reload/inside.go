package reload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"mailu-hook/internal/mailu"
)

// Inside looks at the processes of a running front and at the pid files that Settle
// would repair. It changes nothing; where this host cannot see into the container,
// it runs ps and cat in it.
func (f *Front) Inside(ctx context.Context) (mailu.Inside, error) {
	procs, err := f.in.processes(ctx)
	if err != nil {
		return mailu.Inside{}, err
	}
	nginx, _ := master(procs, "nginx")
	watcher, watching := running(procs, watcherScript)
	inside := mailu.Inside{NginxOnly: nginx.inside == 1, Watching: watching, WatcherStopped: watcher.stopped, Configuring: reconfiguring(procs)}
	for _, file := range pidFiles {
		d := mailu.Daemon{Name: file.name, PidFile: file.file, Pid: mailu.PidUnseen}
		var p process
		if p, d.Runs = master(procs, file.name); d.Runs {
			d.Pid = f.in.pidState(ctx, file.file, p.inside)
		}
		inside.Daemons = append(inside.Daemons, d)
	}
	return inside, nil
}

func (in *interior) pidState(ctx context.Context, file string, pid int) mailu.PidState {
	content, err := in.readPid(ctx, file)
	switch {
	case err != nil:
		return mailu.PidUnseen
	case content == nil:
		return mailu.PidLost
	case string(bytes.TrimSpace(content)) != strconv.Itoa(pid):
		return mailu.PidWrong
	}
	return mailu.PidIntact
}

// readPid returns the content of a pid file, nil if there is none.
func (in *interior) readPid(ctx context.Context, file string) ([]byte, error) {
	if in.isLocal() {
		content, err := readLocal(in.pid, file)
		if err == nil || os.IsNotExist(err) {
			return content, nil
		}
	}
	out, status, err := in.exec(ctx, "cat", file)
	if err != nil || status != 0 {
		return nil, err
	}
	return append([]byte{}, out...), nil
}

// readLocal reads through the container's root directory as this host sees it. It
// opens nothing but a short regular file.
func readLocal(pid1 int, file string) ([]byte, error) {
	root, err := os.OpenRoot(proc(pid1, "root"))
	if err != nil {
		return nil, fmt.Errorf("looking into the container: %v", err) // not that the file does not exist
	}
	defer root.Close()
	return readPidFile(root, file[1:])
}

// readPidFile returns the content of a pid file, which is empty if it is something else
// than a short regular file.
func readPidFile(root *os.Root, name string) ([]byte, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return []byte{}, nil
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may have become a fifo since
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := readRegular(f, maxPid+1)
	if len(content) > maxPid || errors.Is(err, errNotRegular) {
		return []byte{}, nil
	}
	return content, err
}
