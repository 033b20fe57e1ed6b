package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Rootless is the ordinary user whose engines tests start; setup.sh makes it.
const Rootless = "mailu-hook-rootless"

// EngineKind is an engine that StartEngine knows.
type EngineKind string

// The engines beside that of this machine.
const (
	Podman         EngineKind = "podman"
	RootlessPodman EngineKind = "rootless podman"
	RootlessDocker EngineKind = "rootless docker"
	RemappedDocker EngineKind = "docker with userns-remap"
	SecondDocker   EngineKind = "a second docker"
)

// StartEngine starts an engine of its own: its data, its sockets and its network are
// no other's. The caller must Stop it. It holds the front's image.
func StartEngine(ctx context.Context, kind EngineKind) (*Engine, error) {
	dir, err := os.MkdirTemp("", enginePrefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return nil, err
	}
	e := &Engine{dir: dir, Host: "unix://" + filepath.Join(dir, "sock")}
	if err := e.start(ctx, kind); err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", kind, err), e.Stop())
	}
	return e, nil
}

func (e *Engine) start(ctx context.Context, kind EngineKind) error {
	argv, err := e.prepare(kind)
	if err != nil {
		return err
	}
	if e.bridge != "" {
		if err := e.makeBridge(ctx); err != nil {
			return err
		}
	}
	if e.process, err = startProcess(filepath.Join(e.dir, "log"), nil, argv...); err != nil {
		return err
	}
	if e.api, err = clientOf(e.Host); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := e.process.pollAlive(ctx, func() error {
		_, err := e.call(ctx, "GET", "/_ping", nil, nil)
		return err
	}); err != nil {
		return err
	}
	if err := e.load(ctx); err != nil {
		return err
	}
	if kind != Podman {
		return nil
	}
	e.network = "mht" + randomHex(4)
	_, err = e.docker(ctx, "network", "create", "--subnet", subnet(1, 0), e.network)
	return err
}

// seconds counts the engines of that kind: each has a subnet of its own.
var seconds atomic.Int32

// makeBridge makes the network of a second Docker engine. It must have one: told to have
// none, the engine removes docker0, which is another's (moby daemon/daemon_unix.go).
func (e *Engine) makeBridge(ctx context.Context) error {
	for _, command := range [][]string{
		{"ip", "link", "add", e.bridge, "type", "bridge"},
		{"ip", "address", "add", subnet(e.number, 1), "dev", e.bridge},
		{"ip", "link", "set", e.bridge, "up"},
	} {
		if _, err := run(ctx, nil, command...); err != nil {
			return err
		}
	}
	return nil
}

// prepare writes what the engine is configured by, and returns its command.
func (e *Engine) prepare(kind EngineKind) (argv []string, err error) {
	in := func(name string) string { return filepath.Join(e.dir, name) }
	uid, subuid, err := rootless()
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(e.dir, 0o755); err != nil {
		return nil, err
	}
	e.user = kind == RootlessPodman || kind == RootlessDocker
	e.podman = kind == RootlessPodman || kind == Podman
	switch {
	case e.user:
		e.Root = uid
	case kind == RemappedDocker:
		e.Root, e.bridge, e.number = subuid, "mht"+randomHex(4), 2
	case kind == SecondDocker:
		e.bridge, e.number = "mht"+randomHex(4), 4+int(seconds.Add(1))
	}
	// A sandbox may lack CAP_SYS_RESOURCE, and then no limit can be raised; crun refuses
	// a host with both versions of cgroups; there may be no systemd.
	podman := fmt.Sprintf(`[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
compat_api_enforce_docker_hub = false
[network]
network_config_dir = %q
`, in("networks"))
	for name, content := range map[string]string{"containers.conf": podman, "daemon.json": "{}"} {
		if err := os.WriteFile(in(name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	switch kind {
	case Podman:
		return []string{"env", "CONTAINERS_CONF=" + in("containers.conf"), "podman", "--root", in("data"), "--runroot", in("run"), "--tmpdir", in("tmp"),
			"--network-config-dir", in("networks"), "system", "service", "--time", "0", e.Host}, nil
	case RemappedDocker, SecondDocker:
		argv := []string{"dockerd", "--config-file", in("daemon.json"), "--data-root", in("data"), "--exec-root", in("run"), "--pidfile", in("pid"),
			"--host", e.Host, "--bridge", e.bridge, "--iptables=false", "--ip-masq=false"}
		if kind == RemappedDocker {
			argv = append(argv, "--userns-remap", Rootless)
		}
		return argv, nil
	}
	if err := os.Mkdir(in("run"), 0o700); err != nil {
		return nil, err
	}
	for _, name := range []string{e.dir, in("run")} {
		if err := os.Chown(name, uid, uid); err != nil {
			return nil, err
		}
	}
	as := []string{"setpriv", "--reuid", Rootless, "--regid", Rootless, "--init-groups", "--reset-env", "env", "HOME=" + e.dir, "XDG_RUNTIME_DIR=" + in("run"),
		"CONTAINERS_CONF=" + in("containers.conf"), "PATH=/usr/bin:/bin:/usr/sbin:/sbin"}
	if kind == RootlessPodman {
		return append(as, "podman", "--tmpdir", in("run/tmp"), "system", "service", "--time", "0", e.Host), nil
	}
	return append(as, "DOCKERD_ROOTLESS_ROOTLESSKIT_NET=slirp4netns", "bash", "/usr/share/docker.io/contrib/dockerd-rootless.sh",
		"--config-file", in("daemon.json"), "--data-root", in("data"), "--pidfile", in("pid"), "--host", e.Host, "--bip", subnet(3, 1)), nil
}

// subnet is an address in one of this process's networks, which are no other's.
func subnet(network, host int) string {
	return fmt.Sprintf("10.%d.%d.%d/24", 190+os.Getpid()%50, network, host)
}

// rootless returns the uid of that user, and the first of the uids that it may map.
func rootless() (uid, subuid int, err error) {
	u, err := user.Lookup(Rootless)
	if err != nil {
		return 0, 0, fmt.Errorf("%w (make setup adds it)", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	data, err := os.ReadFile("/etc/subuid")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Split(strings.TrimSpace(line), ":"); len(fields) == 3 && fields[0] == Rootless {
			subuid, err = strconv.Atoi(fields[1])
			return uid, subuid, err
		}
	}
	return 0, 0, fmt.Errorf("/etc/subuid does not list %s", Rootless)
}

// load gives the engine the front's image.
func (e *Engine) load(ctx context.Context) error {
	save := exec.CommandContext(ctx, "docker", "save", FrontImage())
	load := exec.CommandContext(ctx, "docker", "load", "--quiet")
	load.Env = append(os.Environ(), "DOCKER_HOST="+e.Host)
	var err error
	if load.Stdin, err = save.StdoutPipe(); err != nil {
		return err
	}
	if err := save.Start(); err != nil {
		return err
	}
	said, err := load.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("loading the image: %w%s", err, quoted(string(said)))
	}
	return errors.Join(err, save.Wait())
}

// docker runs the docker command on this engine and returns what it printed, trimmed.
func (e *Engine) docker(ctx context.Context, args ...string) (string, error) {
	var env []string
	if e != nil {
		env = []string{"DOCKER_HOST=" + e.Host}
	}
	out, err := run(ctx, env, append([]string{"docker"}, args...)...)
	return strings.TrimSpace(out.stdout), err
}

// runArgs are what the engine needs to run a front whose ports can be reached.
func (e *Engine) runArgs(ports []int) (args []string) {
	if e == nil {
		return nil
	}
	if e.podman {
		args = append(args, "--no-healthcheck")
	}
	if e.network != "" {
		args = append(args, "--network", e.network)
	}
	if e.user {
		for _, port := range ports {
			args = append(args, "--publish", "127.0.0.1::"+strconv.Itoa(port))
		}
	}
	return args
}

// StartService makes the engine a swarm of one node, and runs a front on a mailu
// directory as a service of it. The service ends with the engine.
func (e *Engine) StartService(ctx context.Context, root string) (*Front, error) {
	_, err := os.Stat("/sys/class/net/" + gatewayBridge)
	e.swarm = err != nil // the bridge is not another's
	if _, err := e.docker(ctx, "swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377", "--default-addr-pool", subnet(100, 0)); err != nil {
		return nil, err
	}
	f := &Front{Image: FrontImage(), Root: root, Env: frontEnv(nil), engine: e}
	f.SecretKey = f.Env["SECRET_KEY"]
	args := []string{"service", "create", "--detach", "--quiet", "--no-resolve-image", "--name", "mailu_front", "--network", "bridge",
		"--mount", "type=bind,source=" + filepath.Join(root, "certs") + ",target=/certs"}
	for key, value := range f.Env {
		args = append(args, "--env", key+"="+value)
	}
	if _, err := e.docker(ctx, append(args, f.Image)...); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = poll(ctx, 200*time.Millisecond, func() error {
		names, err := e.docker(ctx, "ps", "--format", "{{.ID}} {{.Names}}", "--filter", "label=com.docker.swarm.service.name=mailu_front")
		if f.ID, f.Name, _ = strings.Cut(names, " "); err == nil && f.Name == "" {
			err = errors.New("its task does not run")
		}
		return err
	})
	return f, err
}

const gatewayBridge = "docker_gwbridge" // that a swarm makes

// Stop ends the engine with all of its containers, and removes what it kept.
func (e *Engine) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if e.network != "" {
		_, _ = e.docker(ctx, "network", "rm", e.network) // one that is not empty goes with the engine
	}
	e.process.stop()
	err := sweep(ctx, e.dir)
	if e.swarm {
		_, berr := run(ctx, nil, "ip", "link", "del", gatewayBridge)
		err = errors.Join(err, berr)
	}
	if e.bridge != "" {
		_, berr := run(ctx, nil, "ip", "link", "del", e.bridge)
		err = errors.Join(err, berr)
	}
	return err
}
