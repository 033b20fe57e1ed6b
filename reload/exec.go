package reload

import (
	"bytes"
	"context"
	"fmt"

	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
)

const maxOutput = 64 << 10 // bytes of a command's output that are kept

// exec runs a command in the container, as root and without a shell, and
// returns what it wrote (stdout and stderr, the first 64 KiB of each) and its
// exit status. The error is of the engine, or of ctx; a command that outlives
// ctx is left to itself.
func (f *Front) exec(ctx context.Context, stdin []byte, command ...string) (output []byte, status int, err error) {
	doing := fmt.Sprintf("running %s in %s", strings.Join(command, " "), f.Container)
	created, err := f.engine.api.ContainerExecCreate(ctx, f.ID, container.ExecOptions{
		User: "0", Cmd: command, AttachStdin: stdin != nil, AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return nil, 0, engineError(ctx, doing, err)
	}
	stream, err := f.engine.api.ContainerExecAttach(ctx, created.ID, container.ExecAttachOptions{})
	if err != nil {
		return nil, 0, engineError(ctx, doing, err)
	}
	defer stream.Close()
	defer context.AfterFunc(ctx, stream.Close)() // a hijacked connection does not obey ctx by itself
	if stdin != nil {
		if _, err := stream.Conn.Write(stdin); err != nil {
			return nil, 0, engineError(ctx, doing, err)
		}
		if err := stream.CloseWrite(); err != nil {
			return nil, 0, engineError(ctx, doing, err)
		}
	}
	var out limited
	if _, err := stdcopy.StdCopy(&out, &out, stream.Reader); err != nil {
		return nil, 0, engineError(ctx, doing, err)
	}
	result, err := f.engine.api.ContainerExecInspect(ctx, created.ID)
	if err != nil {
		return nil, 0, engineError(ctx, doing, err)
	}
	return out.Bytes(), result.ExitCode, nil
}

// limited keeps the beginning of what is written to it.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	keep := p[:min(len(p), max(0, maxOutput-l.Len()))]
	l.Buffer.Write(keep)
	return len(p), nil
}
