package acme

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/go-acme/lego/v4/challenge/dns01"
	legolog "github.com/go-acme/lego/v4/log"

	"mailu-hook/internal/say"
)

// program changes DNS records by running a program, with the variables and the
// arguments of lego's exec provider. Unlike that, it ends the program, with all its
// children, when the run ends, and reports what it printed.
type program struct {
	path, mode                  string
	timeout, interval, sequence time.Duration
	env                         []string
}

func newProgram(get lookup) (*program, error) {
	p := &program{
		path:     get.orFile("EXEC_PATH"),
		mode:     get.orFile("EXEC_MODE"),
		timeout:  get.seconds(dns01.DefaultPropagationTimeout, "EXEC_PROPAGATION_TIMEOUT"),
		interval: get.seconds(dns01.DefaultPollingInterval, "EXEC_POLLING_INTERVAL"),
		sequence: get.seconds(dns01.DefaultPropagationTimeout, "EXEC_SEQUENCE_INTERVAL"),
		env:      os.Environ(),
	}
	if p.path == "" {
		return nil, errors.New("EXEC_PATH is not set")
	}
	return p, nil
}

// Timeout is how long a record may take to appear, and how often to look.
func (p *program) Timeout() (timeout, interval time.Duration) { return p.timeout, p.interval }

// Sequential is how long to wait between two records of one name: the program may
// replace the whole record set, and resolvers cache the first record.
func (p *program) Sequential() time.Duration { return p.sequence }

// Present and CleanUp are for lego, which knows no context.
func (p *program) Present(domain, token, keyAuth string) error {
	return p.present(context.Background(), domain, token, keyAuth)
}

func (p *program) CleanUp(domain, token, keyAuth string) error {
	return p.cleanUp(context.Background(), domain, token, keyAuth)
}

func (p *program) present(ctx context.Context, domain, token, keyAuth string) error {
	return p.run(ctx, "present", domain, token, keyAuth)
}

func (p *program) cleanUp(ctx context.Context, domain, token, keyAuth string) error {
	return p.run(ctx, "cleanup", domain, token, keyAuth)
}

const (
	programGrace = 2 * time.Second // between SIGTERM and SIGKILL
	outputLimit  = 64 << 10        // bytes kept of what a program prints
)

func (p *program) run(ctx context.Context, command, domain, token, keyAuth string) error {
	args := []string{command, "--", domain, token, keyAuth}
	if p.mode != "RAW" {
		info := dns01.GetChallengeInfo(domain, keyAuth) // follows CNAME records
		args = []string{command, info.EffectiveFQDN, info.Value}
	}
	var out tail
	cmd := exec.CommandContext(ctx, p.path, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = programGrace
	err := cmd.Run()
	if ctx.Err() != nil && cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what is left of the group
		err = context.Cause(ctx)
	}
	text := strings.TrimSpace(string(out))
	for line := range strings.Lines(text) {
		legolog.Println(strings.TrimSpace(line))
	}
	switch {
	case err == nil:
		return nil
	case text == "":
		return fmt.Errorf("running %s %s: %w", p.path, command, err)
	}
	return fmt.Errorf("running %s %s: %w: %s", p.path, command, err, say.Foreign(text))
}

// tail keeps the last bytes written to it.
type tail []byte

func (t *tail) Write(b []byte) (int, error) {
	*t = append(*t, b...)
	if over := len(*t) - outputLimit; over > 0 {
		*t = bytes.Clone((*t)[over:])
	}
	return len(b), nil
}
