// Package rig runs the real peers of the end-to-end suite and of the demo: a
// front container, an ACME server with its DNS, certbot, and an authoritative
// DNS server with a validating resolver. It runs the docker, certbot, openssl
// and Knot's commands with argument vectors, never through a shell, and shares
// no code with the packages under test, so that neither can hide a mistake of
// the other.
//
// What it starts ends with it. Servers die with the process; containers and
// volumes carry the label mailu-hook.test, by which RemoveLeftovers and `make
// clean` find those that a killed test left behind.
//
// internal/rig/setup.sh installs what it needs.
package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// output is what a finished command said, and its exit status.
type output struct {
	stdout, stderr string
	code           int
}

// run runs a command to its end; env is added to the environment of this
// process. A command that fails is an error that quotes its standard error.
// When ctx ends, the whole process group is killed: certbot's deploy hook is
// a grandchild.
func run(ctx context.Context, env []string, argv ...string) (output, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := output{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return out, fmt.Errorf("running %s: %w%s", command(argv), err, quoted(out.stderr))
	}
	return out, nil
}

// command names a command in an error: the program and, if the first
// argument is one, its subcommand.
func command(argv []string) string {
	if len(argv) > 1 && !strings.HasPrefix(argv[1], "-") {
		return argv[0] + " " + argv[1]
	}
	return argv[0]
}

// quoted returns the end of foreign text for an error message.
func quoted(text string) string {
	const most = 500
	text = strings.TrimSpace(text)
	if text == "" {
		return ""
	}
	if len(text) > most {
		text = "…" + text[len(text)-most:]
	}
	return fmt.Sprintf(": %q", strings.ToValidUTF8(text, "?"))
}

// poll calls try until it returns nil. When ctx ends first, the error is that
// of the last try.
func poll(ctx context.Context, every time.Duration, try func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// Tool returns the path of a pinned program that setup.sh built, else of one
// in PATH.
func Tool(name string) (string, error) {
	if root, err := RepositoryRoot(); err == nil {
		path := filepath.Join(root, ".cache", "bin", name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return exec.LookPath(name)
}

// RepositoryRoot returns the directory of the go.mod above the working
// directory, which in a test is the package's.
func RepositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the repository: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("finding the repository: no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// Peer is something that a test may need.
type Peer string

// The peers that Need knows.
const (
	NeedDocker  Peer = "docker"  // an engine that answers
	NeedImage   Peer = "image"   // the front image, and an engine
	NeedCertbot Peer = "certbot" // the command
	NeedPebble  Peer = "pebble"  // the ACME server and its DNS
	NeedStepCA  Peer = "step-ca" // another ACME server
	NeedOpenSSL Peer = "openssl" // the command, for Leaf
	NeedGnuTLS  Peer = "gnutls-cli"
	NeedNSS     Peer = "nss" // tstclnt and certutil
	NeedDNS     Peer = "dns" // Knot and Unbound, for StartZone and StartResolver

	NeedLego5   Peer = "lego5"
	NeedCaddy   Peer = "caddy"
	NeedExFAT   Peer = "mount.exfat-fuse"
	NeedCompose Peer = "docker-compose"
	NeedBindFS  Peer = "bindfs"

	NeedCertbotImage Peer = CertbotImage

	NeedEngines Peer = "engines" // what StartEngine starts, and its user

	NeedPrometheus Peer = "prometheus" // promtool and node_exporter
)

// TB is the part of testing.TB that Need uses.
type TB interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Need skips the test if a peer is missing. With MAILU_HOOK_E2E=require, as
// make test sets it, a missing peer fails the test instead.
func Need(t TB, peers ...Peer) {
	t.Helper()
	for _, peer := range peers {
		err := missing(peer)
		if err == nil {
			continue
		}
		if os.Getenv("MAILU_HOOK_E2E") == "require" {
			t.Fatalf("%s is missing: %v", peer, err)
		}
		t.Skipf("needs %s (make setup installs it): %v", peer, err)
	}
}

var (
	looked   = map[Peer]error{}
	lookedMu sync.Mutex
)

// missing looks for a peer once for all tests of a process.
func missing(peer Peer) error {
	lookedMu.Lock()
	defer lookedMu.Unlock()
	err, known := looked[peer]
	if !known {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		err = find(ctx, peer)
		looked[peer] = err
	}
	return err
}

func find(ctx context.Context, peer Peer) error {
	var err error
	switch peer {
	case NeedDocker:
		_, err = call(ctx, http.MethodGet, "/_ping", nil, nil)
	case NeedImage:
		_, err = call(ctx, http.MethodGet, "/images/"+FrontImage()+"/json", nil, nil)
	case NeedPebble:
		_, err = Tool("pebble")
		if err == nil {
			_, err = Tool("pebble-challtestsrv")
		}
	case NeedDNS:
		for _, program := range []string{"knotd", "knotc", "keymgr", "kdig", "unbound"} {
			_, missing := daemon(program)
			err = errors.Join(err, missing)
		}
	case NeedNSS:
		for _, program := range []string{"tstclnt", "certutil"} {
			_, missing := exec.LookPath(program)
			err = errors.Join(err, missing)
		}
	case NeedEngines:
		_, _, err = rootless()
		for _, program := range []string{"podman", "dockerd", "runc", "slirp4netns", "newuidmap", "rootlesskit", "haproxy"} {
			_, missing := daemon(program)
			err = errors.Join(err, missing)
		}
	case NeedPrometheus:
		_, err = Tool("promtool")
		if err == nil {
			_, err = Tool("prometheus-node-exporter")
		}
	case NeedCertbotImage:
		_, err = call(ctx, http.MethodGet, "/images/"+CertbotImage+"/json", nil, nil)
	default:
		_, err = Tool(string(peer))
	}
	return err
}

// docker runs the docker command on the engine of this machine and returns what it
// printed, trimmed.
func docker(ctx context.Context, args ...string) (string, error) {
	return (*Engine)(nil).docker(ctx, args...)
}
