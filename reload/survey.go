package reload

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

// Survey finds every front that want may mean, also those on which a deploy
// could not work, sorted by name. It changes nothing. Leftovers beside the one
// running front of their project are left out. Errors wrap ErrEngine or ErrNone.
func (e *Engine) Survey(ctx context.Context, want Selector) ([]*Front, error) {
	found, err := e.fronts(ctx, want)
	if err != nil {
		return nil, err
	}
	byProject := map[string][]*Front{}
	for _, f := range found {
		byProject[f.Project] = append(byProject[f.Project], f)
	}
	var kept []*Front
	for _, all := range byProject {
		if one, err := choose(all, want); err == nil {
			all = []*Front{one}
		}
		kept = append(kept, all...)
	}
	if len(kept) == 0 {
		_, err := choose(nil, want)
		return nil, err
	}
	slices.SortFunc(kept, func(a, b *Front) int { return strings.Compare(a.Container, b.Container) })
	for _, f := range kept {
		f.recognise(ctx)
	}
	return kept, nil
}

// Remote is a front that no engine tells about: its ports are asked at hosts,
// in that order, by the numbers that they have inside the container.
func Remote(facts mailu.Facts, hosts ...string) *Front {
	f := &Front{Facts: facts, published: map[int][]string{}}
	for _, p := range facts.Ports {
		for _, host := range hosts {
			f.published[p.Number] = append(f.published[p.Number], net.JoinHostPort(host, strconv.Itoa(p.Number)))
		}
	}
	return f
}

// Inside looks at the processes of a running front and at the pid files that
// Settle would put right. It changes nothing; where the host's view of the
// container is closed to us, it runs ps and cat in it.
func (f *Front) Inside(ctx context.Context) (mailu.Inside, error) {
	procs, err := f.processes(ctx)
	if err != nil {
		return mailu.Inside{}, err
	}
	nginx, _ := master(procs, "nginx")
	watcher, watching := running(procs, watcherScript)
	in := mailu.Inside{NginxOnly: nginx.inside == 1, Watching: watching, WatcherStopped: watcher.stopped, Configuring: reconfiguring(procs)}
	for _, file := range pidFiles {
		d := mailu.Daemon{Name: file.name, PidFile: file.file, Pid: mailu.PidUnseen}
		var p process
		if p, d.Runs = master(procs, file.name); d.Runs {
			d.Pid = f.pidState(ctx, file.file, p.inside)
		}
		in.Daemons = append(in.Daemons, d)
	}
	return in, nil
}

func (f *Front) pidState(ctx context.Context, file string, pid int) mailu.PidState {
	content, err := f.readPid(ctx, file)
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

// readPid returns the content of a pid file, nil when there is none.
func (f *Front) readPid(ctx context.Context, file string) ([]byte, error) {
	if f.isLocal() {
		content, err := readLocal(f.pid, file)
		if err == nil || os.IsNotExist(err) {
			return content, nil
		}
	}
	out, status, err := f.exec(ctx, nil, "cat", file)
	if err != nil || status != 0 {
		return nil, err
	}
	return append([]byte{}, out...), nil
}

// readLocal reads through the container's root directory as this host sees it.
// It opens nothing but a short regular file.
func readLocal(pid1 int, file string) ([]byte, error) {
	root, err := os.OpenRoot(proc(pid1, "root"))
	if err != nil {
		return nil, fmt.Errorf("looking into the container: %v", err) // not that the file does not exist
	}
	defer root.Close()
	info, err := root.Lstat(file[1:])
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > 32 {
		return []byte{}, nil
	}
	return root.ReadFile(file[1:])
}

// Clock asks the engine what time it has.
func (e *Engine) Clock(ctx context.Context) (time.Time, error) {
	info, err := e.api.Info(ctx)
	if err != nil {
		return time.Time{}, engineError(ctx, "asking for its time", err)
	}
	at, err := time.Parse(time.RFC3339Nano, info.SystemTime)
	if err != nil {
		return time.Time{}, engineError(ctx, "asking for its time", fmt.Errorf("it says %s", say.Foreign(info.SystemTime)))
	}
	return at, nil
}
