package rig

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultFrontImage is the stand-in that internal/rig/front/build.sh makes.
const DefaultFrontImage = "mailu-hook-front:2024.06"

// FrontImage returns FRONT_IMAGE from the environment, or the stand-in.
func FrontImage() string {
	if image := os.Getenv("FRONT_IMAGE"); image != "" {
		return image
	}
	return DefaultFrontImage
}

// FrontOptions say how to run a front. Of Root and CertsVolume one is usual;
// without either nothing is mounted but what ExtraArgs mount.
type FrontOptions struct {
	Project string // Compose project; default a new one for each front
	Service string // Compose service; default "front"
	Name    string // of the container; default PROJECT-SERVICE-1, as Compose v2
	Image   string // default FrontImage()

	// Root is a mailu directory on this host: ROOT/certs is mounted at
	// /certs, ROOT/overrides/nginx at /overrides, read-only. Both are made.
	Root string
	// CertsVolume is a named volume to mount at /certs in place of
	// ROOT/certs. It is made, and removed with the front.
	CertsVolume string

	// HealthEvery is how often the engine runs the health check of the image; default
	// 30 s, as with Mailu's own. Only those who ask for Docker's opinion need it sooner.
	HealthEvery time.Duration

	Env       map[string]string // added to, or in place of, the defaults
	Labels    map[string]string // likewise
	NoLabels  bool              // no label of Compose: as Quadlet, Portainer or docker run start it
	ExtraArgs []string          // of docker run, before the image
	Engine    *Engine           // that runs it
	Command   []string          // after the image
}

// Front is a front container.
type Front struct {
	Name, ID, Image, Project string
	Root, CertsVolume        string
	// Env is the environment that the container was given.
	Env map[string]string
	// SecretKey is the container's SECRET_KEY. No output may contain it.
	SecretKey string

	engine *Engine
}

// StartFront runs a front container. It returns once the container runs,
// which is before the daemons in it serve: see WaitServing and WaitHealthy.
// The caller must Remove it.
func StartFront(ctx context.Context, o FrontOptions) (*Front, error) {
	if o.Project == "" {
		o.Project = "mht" + randomHex(4)
	}
	if o.Service == "" {
		o.Service = "front"
	}
	if o.Name == "" {
		o.Name = o.Project + "-" + o.Service + "-1"
	}
	if o.Image == "" {
		o.Image = FrontImage()
	}
	f := &Front{Name: o.Name, Image: o.Image, Project: o.Project, Root: o.Root, CertsVolume: o.CertsVolume, engine: o.Engine}
	f.Env = frontEnv(o.Env)
	f.SecretKey = f.Env["SECRET_KEY"]
	err := f.run(ctx, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting front %s: %w", o.Name, err), f.Remove())
	}
	return f, nil
}

// run pulls the image if need be, which may take long and can be interrupted;
// the start itself cannot: the engine would go on creating a container that
// nobody waits for.
func (f *Front) run(ctx context.Context, o FrontOptions) error {
	if _, err := f.engine.call(ctx, http.MethodGet, "/images/"+f.Image+"/json", nil, nil); err != nil {
		if strings.HasPrefix(f.Image, "mailu-hook-front:") {
			return fmt.Errorf("%w (make setup builds it)", err)
		}
		if _, err := f.engine.docker(ctx, "pull", "--quiet", f.Image); err != nil {
			return err
		}
	}
	uncancelled, cancel := context.WithTimeout(context.WithoutCancel(ctx), 60*time.Second)
	defer cancel()
	args, err := f.runArgs(uncancelled, o)
	if err != nil {
		return err
	}
	if f.ID, err = f.engine.docker(uncancelled, args...); err != nil {
		return err
	}
	return ctx.Err()
}

// frontEnv is the least that lets Mailu's own image start without the rest of
// a Mailu beside it.
func frontEnv(given map[string]string) map[string]string {
	env := map[string]string{
		"HOSTNAMES":           "mail.example.com",
		"TLS_FLAVOR":          "cert",
		"DOMAIN":              "example.com",
		"POSTMASTER":          "admin",
		"SUBNET":              "192.168.203.0/24",
		"ADMIN":               "true",
		"WEBMAIL":             "none",
		"WEBDAV":              "none",
		"ADMIN_ADDRESS":       "127.0.0.1",
		"ANTISPAM_ADDRESS":    "127.0.0.1",
		"SMTP_ADDRESS":        "127.0.0.1",
		"IMAP_ADDRESS":        "127.0.0.1",
		"MESSAGE_SIZE_LIMIT":  "50000000",
		"WEB_ADMIN":           "/admin",
		"WEB_WEBMAIL":         "/webmail",
		"WEBROOT_REDIRECT":    "/webmail",
		"RECIPIENT_DELIMITER": "+",
		"SECRET_KEY":          randomHex(16),
	}
	maps.Copy(env, given)
	return env
}

func (f *Front) runArgs(ctx context.Context, o FrontOptions) ([]string, error) {
	labels := map[string]string{
		"com.docker.compose.project":          o.Project,
		"com.docker.compose.service":          o.Service,
		"com.docker.compose.oneoff":           "False",
		"com.docker.compose.container-number": "1",
	}
	if o.NoLabels {
		clear(labels)
	}
	maps.Copy(labels, o.Labels)
	args := []string{"run", "--detach", "--pull", "never", "--name", o.Name}
	if o.Engine == nil || !o.Engine.podman {
		args = append(args, "--health-interval", cmp.Or(o.HealthEvery, 30*time.Second).String())
	}
	args = append(args, ownLabels()...)
	args = append(args, o.Engine.runArgs(f.TLSPorts())...)
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		args = append(args, "--label", key+"="+labels[key])
	}
	for _, key := range slices.Sorted(maps.Keys(f.Env)) {
		args = append(args, "--env", key+"="+f.Env[key])
	}
	mounts, err := f.mounts(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Concat(args, mounts, o.ExtraArgs, []string{o.Image}, o.Command), nil
}

func (f *Front) mounts(ctx context.Context) (args []string, err error) {
	if f.CertsVolume != "" {
		create := slices.Concat([]string{"volume", "create"}, ownLabels(), []string{f.CertsVolume})
		if _, err := f.engine.docker(ctx, create...); err != nil {
			return nil, err
		}
		args = append(args, "--volume", f.CertsVolume+":/certs")
	}
	if f.Root == "" {
		return args, nil
	}
	overrides := filepath.Join(f.Root, "overrides", "nginx")
	if err := os.MkdirAll(overrides, 0o755); err != nil {
		return nil, err
	}
	args = append(args, "--volume", overrides+":/overrides:ro")
	if f.CertsVolume == "" {
		certs := filepath.Join(f.Root, "certs")
		if err := os.MkdirAll(certs, 0o755); err != nil {
			return nil, err
		}
		args = append(args, "--volume", certs+":/certs")
	}
	return args, nil
}

// CertsDir returns the directory on this host that the container has at
// /certs.
func (f *Front) CertsDir(ctx context.Context) (string, error) {
	if f.CertsVolume == "" {
		return filepath.Join(f.Root, "certs"), nil
	}
	var volume struct{ Mountpoint string }
	_, err := f.engine.call(ctx, http.MethodGet, "/volumes/"+url.PathEscape(f.CertsVolume), nil, &volume)
	return volume.Mountpoint, err
}

// IP returns the container's address; it may be another after a restart.
func (f *Front) IP(ctx context.Context) (string, error) {
	c, err := f.engine.inspect(ctx, f.Name)
	if err != nil {
		return "", err
	}
	return f.addressIn(c)
}

// at is where a port of the container is reached: the container itself, or the port
// that an ordinary user's engine publishes.
func (f *Front) at(c container, port int) (string, error) {
	if f.engine == nil || !f.engine.user {
		return f.addressIn(c)
	}
	for _, at := range c.NetworkSettings.Ports[strconv.Itoa(port)+"/tcp"] {
		return net.JoinHostPort("127.0.0.1", at.HostPort), nil
	}
	return "", fmt.Errorf("asking port %d of %s: it is not published", port, f.Name)
}

func (f *Front) addressIn(c container) (string, error) {
	for _, network := range slices.Sorted(maps.Keys(c.NetworkSettings.Networks)) {
		if ip := c.NetworkSettings.Networks[network].IPAddress; ip != "" {
			return ip, nil
		}
	}
	return "", fmt.Errorf("asking for the address of %s: it has none", f.Name)
}

// HostPID returns the pid of the container's first process on this host.
func (f *Front) HostPID(ctx context.Context) (int, error) {
	c, err := f.engine.inspect(ctx, f.Name)
	return c.State.Pid, err
}

// State returns running, exited, paused, restarting or created.
func (f *Front) State(ctx context.Context) (string, error) {
	c, err := f.engine.inspect(ctx, f.Name)
	return c.State.Status, err
}

// Health returns starting, healthy, unhealthy, or none where the image has no
// health check.
func (f *Front) Health(ctx context.Context) (string, error) {
	c, err := f.engine.inspect(ctx, f.Name)
	if err != nil || c.State.Health == nil {
		return "none", err
	}
	return c.State.Health.Status, nil
}

// CheckHealth runs the image's health check now, whereas Health returns the result
// of the engine's last run. A failing check is an error.
func (f *Front) CheckHealth(ctx context.Context) error {
	c, err := f.engine.inspect(ctx, f.Name)
	if err != nil {
		return err
	}
	if f.engine != nil && f.engine.podman { // which needs systemd to run checks
		if _, err := call(ctx, http.MethodGet, "/images/"+f.Image+"/json", nil, &c); err != nil {
			return err
		}
	}
	if c.Config.Healthcheck == nil || len(c.Config.Healthcheck.Test) < 2 {
		return fmt.Errorf("checking the health of %s: its image has no check", f.Name)
	}
	argv := c.Config.Healthcheck.Test[1:]
	if c.Config.Healthcheck.Test[0] == "CMD-SHELL" {
		argv = slices.Concat([]string{"/bin/sh", "-c"}, argv)
	}
	out, code, err := f.Exec(ctx, argv...)
	if err == nil && code != 0 {
		err = fmt.Errorf("checking the health of %s: exit status %d%s", f.Name, code, quoted(out))
	}
	return err
}

// WaitReady waits until the image's health check passes, at most 60 seconds. It runs
// the check itself: the engine may not do so for a while.
func (f *Front) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	if err := poll(ctx, 200*time.Millisecond, func() error { return f.CheckHealth(ctx) }); err != nil {
		return fmt.Errorf("waiting for %s to be ready: %w", f.Name, err)
	}
	return nil
}

// WaitHealthy waits until the engine reports the container as healthy, at most 90
// seconds: see HealthEvery.
func (f *Front) WaitHealthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	err := poll(ctx, 200*time.Millisecond, func() error {
		health, err := f.Health(ctx)
		if err == nil && health != "healthy" {
			err = fmt.Errorf("it is %s", health)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("waiting for %s to be healthy: %w", f.Name, err)
	}
	return nil
}

// Exec runs a command in the container and returns its standard output and
// error, as one, with its exit status. The error is about the engine's own
// failures; a command that fails is no error.
func (f *Front) Exec(ctx context.Context, args ...string) (out string, code int, err error) {
	out, code, err = f.engine.execute(ctx, f.Name, args)
	if err != nil {
		return out, -1, fmt.Errorf("running %s in %s: %w", command(args), f.Name, err)
	}
	return out, code, nil
}

// Logs returns what the container printed.
func (f *Front) Logs(ctx context.Context) (string, error) {
	stream, err := f.engine.call(ctx, http.MethodGet, f.path("logs?stdout=1&stderr=1"), nil, nil)
	return demultiplexed(stream), err
}

// Restart, Stop, Start, Pause, Unpause and Kill do what the docker command of
// that name does; Restart and Stop give the container one second to end.
func (f *Front) Restart(ctx context.Context) error { return f.post(ctx, "restart?t=1") }
func (f *Front) Stop(ctx context.Context) error    { return f.post(ctx, "stop?t=1") }
func (f *Front) Start(ctx context.Context) error   { return f.post(ctx, "start") }

// Pause is asked for again where the kernel could not freeze processes that were just
// forking.
func (f *Front) Pause(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return poll(ctx, 100*time.Millisecond, func() error { return f.post(ctx, "pause") })
}

func (f *Front) Unpause(ctx context.Context) error { return f.post(ctx, "unpause") }
func (f *Front) Kill(ctx context.Context) error    { return f.post(ctx, "kill") }

func (f *Front) post(ctx context.Context, what string) error {
	_, err := f.engine.call(ctx, http.MethodPost, f.path(what), nil, nil)
	return err
}

func (f *Front) path(what string) string { return "/containers/" + url.PathEscape(f.Name) + "/" + what }

// Remove removes the container and its volumes, running or not. It takes no
// context, so that it can be deferred: it must also work after a Ctrl-C.
func (f *Front) Remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	err := f.engine.remove(ctx, "container", f.Name)
	if f.CertsVolume != "" {
		err = errors.Join(err, f.engine.remove(ctx, "volume", f.CertsVolume))
	}
	return err
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails; see its documentation
	return hex.EncodeToString(b)
}
