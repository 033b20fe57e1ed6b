package reload

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/pkg/stdcopy"

	"mailu-hook/internal/say"
)

const maxOutput = 64 << 10 // bytes of a command's output that are kept

func (d *docker) Exec(ctx context.Context, id string, command ...string) (output []byte, status int, err error) {
	created, err := d.api.ContainerExecCreate(ctx, id, container.ExecOptions{
		User: "0", Cmd: command, AttachStdout: true, AttachStderr: true,
	})
	if cerrdefs.IsNotFound(err) || cerrdefs.IsConflict(err) {
		return nil, 0, fmt.Errorf("%w: %s", errNotRunning, say.Foreign(err.Error()))
	}
	if err != nil {
		return nil, 0, err
	}
	if output, err = d.startExec(ctx, created.ID); err != nil {
		return nil, 0, err
	}
	result, err := d.api.ContainerExecInspect(ctx, created.ID)
	return output, result.ExitCode, err
}

// startExec starts a command that was created, and returns what it wrote. Unlike
// the client's own ContainerExecAttach it does not ask for an upgrade of the
// connection: without input none is needed, and proxies in front of an engine drop
// it (HAProxy since 2.4, haproxy#2684).
func (d *docker) startExec(ctx context.Context, id string) ([]byte, error) {
	url := d.base() + "/v" + d.api.ClientVersion() + "/exec/" + id + "/start"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("{}"))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := d.api.HTTPClient().Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, maxOutput))
		return nil, newRefusal(response, text)
	}
	var out limited
	_, err = stdcopy.StdCopy(&out, &out, response.Body)
	return out.kept.Bytes(), err
}

// limited keeps the beginning of what is written to it.
type limited struct{ kept bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.kept.Write(p[:min(len(p), maxOutput-l.kept.Len())])
	return len(p), nil
}

func (d *docker) Events(ctx context.Context, tell func(Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages, errs := d.api.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("type", string(events.ContainerEventType)))})
	for {
		select {
		case m := <-messages:
			tell(Event{ID: m.Actor.ID, Action: string(m.Action), Labels: m.Actor.Attributes})
		case err := <-errs:
			return err
		}
	}
}
