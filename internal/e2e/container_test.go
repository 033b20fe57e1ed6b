package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// imageName is of this process: other runs of the tests may use the same engine.
var imageName = fmt.Sprintf("mailu-hook-test-%d", os.Getpid())

// image makes the container image by make image, once for all tests, and returns its
// name. In a soak it is made for both architectures.
func image(t *testing.T) string {
	t.Helper()
	require.NoError(t, makeImage())
	return imageName
}

var makeImage = sync.OnceValue(func() error {
	root, err := rig.RepositoryRoot()
	if err != nil {
		return err
	}
	make := exec.Command("make", "-C", root, "image", "IMAGE="+imageName)
	if !soak {
		make.Args = append(make.Args, "IMAGE_ARCHS="+runtime.GOARCH)
	}
	if out, err := make.CombinedOutput(); err != nil {
		return fmt.Errorf("make image: %w: %s", err, out)
	}
	return nil
})

func TestImageIsSmallHasRootsAndIsForEachArchitecture(t *testing.T) {
	rig.Need(t, rig.NeedDocker)
	t.Parallel()
	archs := []string{runtime.GOARCH}
	if soak {
		archs = []string{"amd64", "arm64"}
	}
	for _, arch := range archs {
		out, err := exec.Command("docker", "inspect", "--format", "{{.Architecture}} {{.Size}} {{len .RootFS.Layers}} {{.Config.Healthcheck.Test}}", image(t)+":"+arch).Output()
		require.NoError(t, err)
		var size, layers int
		_, err = fmt.Sscanf(string(out), arch+" %d %d [CMD /mailu-hook status --output nagios]\n", &size, &layers)
		require.NoError(t, err, "%s", out)
		assert.Less(t, size, 15_000_000, "bytes")
		assert.Equal(t, 1, layers, "FROM scratch")
		t.Logf("%s: %d bytes", arch, size)

		root, err := rig.RepositoryRoot()
		require.NoError(t, err)
		out, err = exec.Command("go", "version", "-m", filepath.Join(root, ".cache", "image", arch, "mailu-hook")).Output()
		require.NoError(t, err)
		assert.Contains(t, string(out), "golang.org/x/crypto/x509roots/fallback", "Mozilla's CA certificates are in it")
	}
}

func TestAgentInAContainerServesWhatTraefikWrites(t *testing.T) {
	l, _ := startServing(t, rig.FrontOptions{})
	name, traefik := image(t), filepath.Join(l.root, "traefik")
	require.NoError(t, os.MkdirAll(traefik, 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(l.root, "state"), 0o700))
	store := filepath.Join(traefik, "acme.json")
	first := l.next()
	l.traefik(store, first)
	docker := func(args ...string) (string, error) {
		out, err := exec.Command("docker", args...).CombinedOutput()
		return string(out), err
	}
	run := func(mounts []string, command ...string) (string, error) {
		args := []string{"run", "--label", "mailu-hook.test=1", "--label", "mailu-hook.test.pid=" + strconv.Itoa(os.Getpid()),
			"--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "-v", "/var/run/docker.sock:/var/run/docker.sock",
			"-v", traefik + ":/source:ro", "-v", filepath.Join(l.root, "state") + ":/var/lib/mailu-hook", "-v", l.roots + ":/roots.pem:ro",
			"-e", "MAILU_HOOK_PROJECT=" + l.front.Project, "-e", "MAILU_HOOK_ROOTS=/roots.pem", "-e", "MAILU_HOOK_DANE=off"}
		for _, m := range mounts {
			args = append(args, "-v", m)
		}
		return docker(append(args, command...)...)
	}

	out, err := run(nil, "--rm", name, "install", "/source/acme.json")
	require.Error(t, err)
	assert.Contains(t, out, "this container does not see "+l.certs())
	assert.Contains(t, out, "-v "+l.certs()+":"+l.certs())

	out, err = docker("run", "--rm", name, "status")
	require.Error(t, err)
	assert.Contains(t, strings.Join(strings.Fields(out), " "), "mount it at the same path: -v /var/run/docker.sock:/var/run/docker.sock")

	live := l.lineage(first, mailName)
	lineage := []string{l.certs() + ":/mailu/certs", filepath.Dir(live) + ":/etc/letsencrypt/live:ro"}
	out, err = run(lineage, "--rm", name, "install", "/etc/letsencrypt/live/"+mailName)
	require.Error(t, err)
	assert.Regexp(t, `(?s)a link to \.\./\.\./archive/\S+, which does not exist here.*all of /etc/letsencrypt`, out)

	require.NoError(t, os.Chown(store, 1000, 1000))
	out, err = run([]string{l.certs() + ":/mailu/certs"}, "--rm", name, "install", "/source/acme.json")
	require.Error(t, err)
	assert.Contains(t, out, "in compose, cap_add: [DAC_OVERRIDE]")
	out, err = run([]string{l.certs() + ":/mailu/certs"}, "--rm", "--cap-add", "DAC_OVERRIDE", name, "install", "--dry-run", "/source/acme.json")
	require.NoError(t, err, out)
	require.NoError(t, os.Chown(store, 0, 0))

	certs := []string{l.certs() + ":/elsewhere/certs"} // another name than on the host
	out, err = run(certs, "--rm", name, "install", "/source/acme.json")
	require.NoError(t, err, out)
	l.endsServing(first.SHA256())

	id, err := run(certs, "--detach", name)
	require.NoError(t, err, id)
	id = strings.TrimSpace(id)
	t.Cleanup(func() {
		out, _ := docker("logs", id)
		t.Logf("the agent in its container:\n%s", out)
		_, err := docker("rm", "--force", "--volumes", id)
		assert.NoError(t, err)
	})
	synced := func() string {
		data, err := os.ReadFile(l.ledger())
		require.NoError(t, err)
		return string(data)
	}
	require.Eventually(t, func() bool { return strings.Contains(synced(), `"synced_by": "watch"`) }, time.Minute, 50*time.Millisecond)
	renewed := l.next()
	began := time.Now()
	l.traefik(store, renewed)
	l.endsServing(renewed.SHA256())
	t.Logf("served on every port %s after the file was written", time.Since(began))
	l.settles(id)
	out, err = docker("exec", id, "/mailu-hook", "status", "--output", "nagios")
	require.NoError(t, err, out)
	assert.Contains(t, out, "MAILU TLS OK")
	l.healthyAndReloadable()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, exec.CommandContext(ctx, "docker", "stop", "--time", "30", id).Run())
	out, err = docker("inspect", "--format", "{{.State.ExitCode}}", id)
	require.NoError(t, err)
	assert.Equal(t, "0\n", out)

	// A certs directory of another user takes three capabilities.
	require.NoError(t, os.Chown(l.certs(), 1000, 1000))
	final := l.next()
	l.traefik(store, final)
	out, err = run(certs, "--rm", name, "install", "/source/acme.json")
	require.Error(t, err)
	assert.Contains(t, out, "root in a container needs CHOWN, DAC_OVERRIDE and FOWNER for it (in compose, cap_add)")
	out, err = run(certs, "--rm", "--cap-add", "CHOWN", "--cap-add", "DAC_OVERRIDE", "--cap-add", "FOWNER", name, "install", "/source/acme.json")
	require.NoError(t, err, out)
	l.endsServing(final.SHA256())
}

// settles waits until a run in the agent's container, which waits for the agent to end
// its round, finds nothing left to do. The front's own watcher cannot be paused from
// there, and may be in the way of the first.
func (l *lab) settles(container string) {
	l.t.Helper()
	require.EventuallyWithT(l.t, func(c *assert.CollectT) {
		out, err := exec.Command("docker", "exec", container, "/mailu-hook", "sync", "--now").CombinedOutput()
		require.NoError(c, err, "%s", out)
		require.NoError(c, l.front.CheckHealth(l.t.Context()))
	}, time.Minute, time.Second)
}
