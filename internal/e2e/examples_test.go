package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/rig"
)

func example(t *testing.T, name string) string {
	t.Helper()
	root, err := rig.RepositoryRoot()
	require.NoError(t, err)
	data, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return string(data)
}

func TestSystemdUnitsAreValidAndAsHardenedAsSECURITYSays(t *testing.T) {
	t.Parallel()
	rig.Need(t, "systemd-analyze")
	for _, name := range []string{"sync", "renew", "watch"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			unit := "mailu-hook-" + name + ".service"
			service := strings.ReplaceAll(example(t, "examples/systemd/"+unit), "/usr/local/bin/mailu-hook", binary)
			require.NoError(t, os.WriteFile(filepath.Join(dir, unit), []byte(service), 0o644))
			assert.Contains(t, service, "\nProtectSystem=full\n")
			assert.NotContains(t, service, "ReadWritePaths", "Mailu may be anywhere")
			if name == "sync" {
				assert.Contains(t, service, "\nConditionPathExists=|/run/docker.sock\nConditionPathExists=|/run/podman/podman.sock\n")
			}
			units := []string{filepath.Join(dir, unit)}
			if name != "watch" {
				timer := filepath.Join(dir, "mailu-hook-"+name+".timer")
				require.NoError(t, os.WriteFile(timer, []byte(example(t, "examples/systemd/mailu-hook-"+name+".timer")), 0o644))
				units = append(units, timer)
			}
			out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, units...)...).CombinedOutput()
			require.NoError(t, err, "%s", out)
			assert.Empty(t, string(out))

			out, err = exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", filepath.Join(dir, unit)).CombinedOutput()
			require.NoError(t, err, "%s", out)
			level := regexp.MustCompile(`exposure level for .*: ([\d.]+)`).FindStringSubmatch(string(out))
			require.NotNil(t, level, "%s", out)
			assert.Contains(t, example(t, "SECURITY.md"), "`systemd-analyze security`: "+level[1]+")")
		})
	}
}

func TestUnitThatReportsAFailureIsValid(t *testing.T) {
	t.Parallel()
	rig.Need(t, "systemd-analyze")
	dir := t.TempDir()
	for _, name := range []string{"mailu-alert@.service", "mailu-hook-.service.d/failed.conf", "mailu-hook-sync.service"} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(example(t, "examples/systemd/"+name), "/usr/local/bin/mailu-hook", binary)), 0o644))
	}
	verify := func() string {
		out, _ := exec.Command("systemd-analyze", "verify", "--man=no", filepath.Join(dir, "mailu-hook-sync.service"), filepath.Join(dir, "mailu-alert@mailu-hook-sync.service")).CombinedOutput()
		return string(out)
	}
	require.NoError(t, os.Symlink("mailu-alert@.service", filepath.Join(dir, "mailu-alert@mailu-hook-sync.service")))
	assert.Empty(t, verify())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "mailu-hook-.service.d", "failed.conf"), []byte("[Unit]\nOnFailure=no/such\n"), 0o644))
	assert.Contains(t, verify(), "no/such", "it reads what is beside it")
}

// The unit itself cannot run where systemd does not; its privileges can, and what
// sockets it opens can be seen.
func TestSyncNeedsNoPrivilegeThatTheUnitTakesAway(t *testing.T) {
	rig.Need(t, "setpriv", "strace")
	l, live, _, _ := deployed(t)
	unit := example(t, "examples/systemd/mailu-hook-sync.service")
	caps := regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.+)$`).FindStringSubmatch(unit)
	require.NotNil(t, caps)
	bounding := "-all"
	for name := range strings.FieldsSeq(caps[1]) {
		bounding += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
	}
	third := l.issue(mint.Leaf{NotBefore: time.Now().Add(-time.Minute)})
	require.Equal(t, live, l.lineage(third, "mail.example.com"))
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.CommandContext(t.Context(), "strace", "-f", "-o", trace, "-e", "trace=socket",
		"setpriv", "--bounding-set", bounding, "--inh-caps", "-all", "--no-new-privs", binary, "sync")
	cmd.Env = append(os.Environ(), l.env...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	allowed := regexp.MustCompile(`(?m)^RestrictAddressFamilies=(.+)$`).FindStringSubmatch(unit)
	require.NotNil(t, allowed)
	sockets, err := os.ReadFile(trace)
	require.NoError(t, err)
	opened := regexp.MustCompile(`socket\((AF_\w+)`).FindAllStringSubmatch(string(sockets), -1)
	require.NotEmpty(t, opened)
	for _, family := range opened {
		assert.Contains(t, strings.Fields(allowed[1]), family[1])
	}
	l.serves(third)
	l.healthyAndReloadable()
}

func TestConfigurationExampleHasOnlySettingsThatExist(t *testing.T) {
	t.Parallel()
	config := regexp.MustCompile(`(?m)^#([A-Z_]+=)`).ReplaceAllString(example(t, "examples/mailu-hook.conf"), "$1")
	require.Contains(t, config, "\nMAILU_HOOK_HOSTNAME=")
	file := filepath.Join(t.TempDir(), "mailu-hook.conf")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	cmd := exec.CommandContext(t.Context(), binary, "install", "--config", file, "--cert", "/nonexistent", "--key", "/nonexistent", "--roots", "/etc/ssl/certs/ca-certificates.crt")
	out, _ := cmd.CombinedOutput()
	assert.Equal(t, 3, cmd.ProcessState.ExitCode(), "%s", out)

	require.NoError(t, os.WriteFile(file, []byte(config+"MAILU_HOOK_HOSTNAMES=x\n"), 0o600))
	cmd = exec.CommandContext(t.Context(), binary, "install", "--config", file, "--cert", "/nonexistent", "--key", "/nonexistent")
	out, _ = cmd.CombinedOutput()
	assert.Equal(t, 2, cmd.ProcessState.ExitCode(), "%s", out)
}

func TestCronLinesRunAsRoot(t *testing.T) {
	assert.Equal(t, []string{"root", "mailu-hook", "sync"}, cronLine(t, "examples/cron/mailu-hook")[5:8])
	assert.Equal(t, []string{"root", "mailu-hook", "renew"}, cronLine(t, "examples/cron/mailu-hook-renew")[5:8])
}

func TestCronLineForMetricsIsOneThatStatusTakes(t *testing.T) {
	fields := cronLine(t, "examples/cron/mailu-hook-status")
	assert.Equal(t, []string{"root", "mailu-hook", "status", "--textfile"}, fields[5:9])
	file := filepath.Join(t.TempDir(), filepath.Base(fields[9]))
	cmd := exec.CommandContext(t.Context(), binary, fields[7], fields[8], file)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix:///nonexistent")
	_ = cmd.Run() // critical or unknown, on a host without Mailu
	assert.FileExists(t, file)
}

// cronLine is the only line of a crontab that runs something, in words.
func cronLine(t *testing.T, name string) []string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(example(t, name)) {
		if regexp.MustCompile(`^[*\d]`).MatchString(line) {
			lines = append(lines, line)
		}
	}
	require.Len(t, lines, 1)
	return strings.Fields(lines[0])
}
