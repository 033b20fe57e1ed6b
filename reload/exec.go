package reload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"mailu-hook/internal/say"
)

const maxOutput = 64 << 10 // bytes of a command's output that are kept

// exec runs a command in the container, as root and without a shell, and
// returns the first 64 KiB of what it wrote to stdout and stderr, and its exit
// status. The error is of the engine, or of ctx; a command that outlives ctx is
// left to itself.
func (f *Front) exec(ctx context.Context, stdin []byte, command ...string) (output []byte, status int, err error) {
	doing := fmt.Sprintf("running %s in %s", strings.Join(command, " "), f.Container)
	created, err := f.engine.api.ContainerExecCreate(ctx, f.ID, container.ExecOptions{
		User: "0", Cmd: command, AttachStdin: stdin != nil, AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return nil, 0, engineError(ctx, doing, err)
	}
	output, err = f.engine.startExec(ctx, created.ID, stdin)
	if err != nil {
		return nil, 0, engineError(ctx, doing, err)
	}
	result, err := f.engine.api.ContainerExecInspect(ctx, created.ID)
	if err != nil {
		return nil, 0, engineError(ctx, doing, err)
	}
	return output, result.ExitCode, nil
}

// startExec starts a command that was created, feeds it stdin, and returns what
// it wrote. It takes the connection over by itself, because the client's own
// ContainerExecAttach does not obey ctx before the engine has answered.
func (e *Engine) startExec(ctx context.Context, id string, stdin []byte) ([]byte, error) {
	conn, err := e.api.Dialer()(ctx)
	if err != nil {
		return nil, err
	}
	stream := types.NewHijackedResponse(conn, "")
	defer stream.Close()
	defer context.AfterFunc(ctx, stream.Close)()
	path := "/v" + e.api.ClientVersion() + "/exec/" + id + "/start"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://docker"+path, strings.NewReader("{}"))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "tcp")
	if err := request.Write(conn); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(stream.Reader, request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(response.Body, maxOutput))
		return nil, fmt.Errorf("%s: %s", response.Status, say.Plain(string(text)))
	}
	if stdin != nil {
		_, err := conn.Write(stdin)
		if err = errors.Join(err, stream.CloseWrite()); err != nil {
			return nil, err
		}
	}
	var out limited
	_, err = stdcopy.StdCopy(&out, &out, stream.Reader)
	return out.kept.Bytes(), err
}

// limited keeps the beginning of what is written to it.
type limited struct{ kept bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.kept.Write(p[:min(len(p), maxOutput-l.kept.Len())])
	return len(p), nil
}
