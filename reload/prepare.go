package reload

import (
	"context"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
)

// waiting is nginx's test that has begun in the container, and waits for its last
// word. A command in a container takes longer to begin than nginx to test.
type waiting struct {
	open   chan struct{} // closed once the rest is known
	id     string
	stream types.HijackedResponse
	err    error
}

// xargs runs nginx -t with what it reads, and -r nothing at all if that is
// nothing, as when this process ends before Test.
var waitingTest = []string{"xargs", "-r", "nginx", "-t"}

const lastWord = "-q\n"

// Prepare begins the test that Test will ask for, so that it needs not wait for
// it to begin. Nothing is tested before; forget ends what was not used, and may be
// called in any case.
func (f *Front) Prepare(ctx context.Context) (forget func()) {
	ctx, cancel := context.WithCancel(ctx)
	w := &waiting{open: make(chan struct{})}
	f.waiting = w
	go func() {
		defer close(w.open)
		var created container.ExecCreateResponse
		created, w.err = f.engine.api.ContainerExecCreate(ctx, f.ID, container.ExecOptions{
			User: "0", Cmd: waitingTest, AttachStdin: true, AttachStdout: true, AttachStderr: true,
		})
		if w.err == nil {
			w.id = created.ID
			w.stream, w.err = f.engine.openExec(ctx, w.id)
		}
	}()
	return func() {
		cancel()
		<-w.open
		if w.err == nil {
			w.stream.Close()
		}
	}
}

// passes gives the prepared test its last word, and tells whether nginx is
// content. That it is not is no verdict yet: Test asks again, directly.
func (w *waiting) passes(ctx context.Context, e *Engine) bool {
	ctx, cancel := context.WithTimeout(ctx, testLimit)
	defer cancel()
	select {
	case <-w.open:
	case <-ctx.Done():
		return false
	}
	if w.err != nil {
		return false
	}
	defer context.AfterFunc(ctx, w.stream.Close)()
	if _, err := feed(w.stream, []byte(lastWord)); err != nil {
		return false
	}
	result, err := e.api.ContainerExecInspect(ctx, w.id)
	return err == nil && !result.Running && result.ExitCode == 0
}
