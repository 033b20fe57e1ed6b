package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// image makes the container image as make image does, and returns its name.
func image(t *testing.T) string {
	t.Helper()
	root, err := rig.RepositoryRoot()
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "mailu-hook")
	build := exec.Command("go", "build", "-tags", "image", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", file, ".")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.Less(t, info.Size(), int64(15_000_000), "bytes of the image")
	dockerfile := filepath.Join(root, "examples", "compose", "Dockerfile")
	id, err := exec.Command("docker", "build", "--quiet", "--file", dockerfile, filepath.Dir(file)).Output()
	require.NoError(t, err)
	name := strings.TrimSpace(string(id))
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "--force", name).Run() })
	return name
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
	require.Eventually(t, func() bool { // it settles
		out, err = docker("exec", id, "/mailu-hook", "status", "--output", "nagios")
		return err == nil && strings.Contains(out, "MAILU TLS OK")
	}, time.Minute, time.Millisecond, "%s", out)
	l.healthyAndReloadable()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, exec.CommandContext(ctx, "docker", "stop", "--time", "30", id).Run())
	out, err = docker("inspect", "--format", "{{.State.ExitCode}}", id)
	require.NoError(t, err)
	assert.Equal(t, "0\n", out)
}

func TestExampleForComposeNamesWhatExists(t *testing.T) {
	t.Parallel()
	text := example(t, "examples/compose/docker-compose.override.yml")
	for _, want := range []string{"read_only: true", "cap_drop: [ALL]", "no-new-privileges:true", "/var/run/docker.sock", "/var/lib/mailu-hook"} {
		assert.Contains(t, text, want, "as the test above runs it")
	}
}
