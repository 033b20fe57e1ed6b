//go:build soak

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/rig"
)

// dist builds what make dist builds of this commit, in a clone of its own, and returns
// the folder that holds it.
func dist(t *testing.T, version string) string {
	t.Helper()
	root, err := rig.RepositoryRoot()
	require.NoError(t, err)
	clone := filepath.Join(t.TempDir(), "clone")
	for _, argv := range [][]string{
		{"git", "clone", "--quiet", root, clone},
		{"mkdir", "-p", filepath.Join(clone, ".cache"), filepath.Join(root, ".cache/bin")},
		{"ln", "-s", filepath.Join(root, ".cache/bin"), filepath.Join(clone, ".cache/bin")},
		{filepath.Join(clone, "packaging/dist.sh"), version},
	} {
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		require.NoError(t, err, "%s: %s", argv, out)
	}
	return filepath.Join(clone, "dist")
}

func TestDistIsReproducibleAndItsDebIsLintianClean(t *testing.T) {
	rig.Need(t, "lintian", "podman")
	var sums []string
	for range 2 {
		data, err := os.ReadFile(filepath.Join(dist(t, "v1.2.3"), "SHA256SUMS"))
		require.NoError(t, err)
		sums = append(sums, string(data))
	}
	assert.Equal(t, sums[0], sums[1], "two folders, one result")
	for _, name := range []string{
		"mailu-hook-linux-amd64", "mailu-hook-linux-arm64", "mailu-hook-linux-armv7", "mailu-hook-linux-386", "mailu-hook-linux-riscv64", "mailu-hook-linux-s390x",
		"mailu-hook_1.2.3-1_amd64.deb", "mailu-hook_1.2.3-1_arm64.deb", "mailu-hook-1.2.3-1.x86_64.rpm", "mailu-hook-1.2.3-1.aarch64.rpm",
		"mailu-hook_1.2.3-r1_x86_64.apk", "mailu-hook_1.2.3-r1_aarch64.apk", "mailu-hook-image-amd64.tar", "mailu-hook-image-arm64.tar",
		"mailu-hook.8", "mailu-hook.bash", "mailu-hook.zsh", "mailu-hook.fish", "LICENSES", "sbom.cdx.json",
	} {
		assert.Contains(t, sums[0], "  "+name+"\n")
	}
	deb := filepath.Join(dist(t, "v1.2.3"), "mailu-hook_1.2.3-1_amd64.deb")
	out, err := exec.Command("lintian", "--allow-root", "--fail-on", "error,warning", deb).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// debian is a container with a Debian system in it, and what a test does there.
type debian struct {
	*lab
	id string
}

// debianImage makes a root of that release with these packages, and returns the name of
// an image of it.
func debianImage(t *testing.T, suite string, packages ...string) string {
	t.Helper()
	root, err := rig.RepositoryRoot()
	require.NoError(t, err)
	name, tarball := "mailu-hook-debian:"+suite, filepath.Join(root, ".cache", "base", "debian-"+suite+".tar")
	if _, err := os.Stat(tarball); err != nil {
		require.NoError(t, os.MkdirAll(filepath.Dir(tarball), 0o755))
		out, err := exec.Command("mmdebstrap", "--quiet", "--format=tar", "--variant=minbase", "--include="+strings.Join(packages, ","), suite, tarball).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	out, err := exec.Command("docker", "import", tarball, name).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", name).Run() })
	return name
}

// debian starts systemd in a container that sees the lab's directory and the engine.
func (l *lab) debian(image string) *debian {
	l.t.Helper()
	out, err := exec.Command("docker", "run", "--detach", "--label", "mailu-hook.test=1", "--label", fmt.Sprintf("mailu-hook.test.pid=%d", os.Getpid()),
		"--privileged", "--cgroupns=private", "--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp", "-e", "container=docker",
		"-v", "/var/run/docker.sock:/run/docker.sock", "-v", l.root+":"+l.root, image, "/lib/systemd/systemd").Output()
	require.NoError(l.t, err)
	d := &debian{l, strings.TrimSpace(string(out))}
	l.t.Cleanup(func() {
		out, err := exec.Command("docker", "rm", "--force", "--volumes", d.id).CombinedOutput()
		assert.NoError(l.t, err, "%s", out)
	})
	return d
}

// sh runs a script in the container and returns what it printed.
func (d *debian) sh(script string) string {
	d.t.Helper()
	out, err := exec.Command("docker", "exec", d.id, "sh", "-euc", script).CombinedOutput()
	require.NoError(d.t, err, "%s\n%s", script, out)
	return string(out)
}

// put copies a file into the container's root directory.
func (d *debian) put(file string) string {
	d.t.Helper()
	out, err := exec.Command("docker", "cp", file, d.id+":/root/").CombinedOutput()
	require.NoError(d.t, err, "%s", out)
	return "/root/" + filepath.Base(file)
}

func TestDebianPackageIsInstalledUpgradedRemovedAndPurged(t *testing.T) {
	rig.Need(t, rig.NeedDocker, "mmdebstrap")
	older, newer := dist(t, "v1.0.0"), dist(t, "v1.0.1")
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			image := debianImage(t, suite, "systemd-sysv", "man-db", "bash-completion", "zsh", "fish", "procps")
			l, _ := startServing(t, rig.FrontOptions{})
			d := l.debian(image)
			d.sh("until systemctl is-system-running --wait | grep -Eq 'running|degraded'; do sleep 0.2; done")

			deb := d.put(filepath.Join(older, "mailu-hook_1.0.0-1_amd64.deb"))
			d.sh("apt-get install -y --no-install-recommends " + deb)
			assert.Equal(t, "mailu-hook v1.0.0", strings.TrimSpace(strings.Split(d.sh("mailu-hook version"), ",")[0]))
			assert.Equal(t, "enabled\nactive\n", d.sh("systemctl is-enabled mailu-hook-sync.timer; systemctl is-active mailu-hook-sync.timer"))
			assert.Equal(t, "disabled disabled", strings.Join(strings.Fields(d.sh("systemctl is-enabled mailu-hook-renew.timer mailu-hook-watch.service || true")), " "))
			assert.Empty(t, d.sh("systemd-analyze verify mailu-hook-sync.service mailu-hook-sync.timer mailu-hook-renew.service mailu-hook-renew.timer mailu-hook-watch.service"))
			assert.Contains(t, d.sh("man mailu-hook | cat"), "mailu-hook - ")
			assert.Contains(t, d.sh(`bash -c '. /usr/share/bash-completion/bash_completion; _completion_loader mailu-hook; complete -p mailu-hook'`), "mailu-hook")
			assert.Contains(t, d.sh(`zsh -c 'autoload -U compinit; compinit -u; print $_comps[mailu-hook]'`), "_mailu-hook")
			assert.Contains(t, d.sh(`fish -c 'complete --do-complete "mailu-hook s"'`), "status")

			var settings strings.Builder
			for _, setting := range l.env {
				if !strings.HasPrefix(setting, "MAILU_HOOK_CONFIG=") && !strings.HasPrefix(setting, "MAILU_HOOK_STATE_DIR=") {
					fmt.Fprintln(&settings, setting)
				}
			}
			conf := filepath.Join(l.root, "settings")
			require.NoError(t, os.WriteFile(conf, []byte(settings.String()), 0o600))
			d.sh("cp " + conf + " /etc/mailu-hook.conf; chmod 600 /etc/mailu-hook.conf")
			first := l.next()
			d.sh("mailu-hook install " + l.lineage(first, mailName))
			l.endsServing(first.SHA256())

			deb = d.put(filepath.Join(newer, "mailu-hook_1.0.1-1_amd64.deb"))
			d.sh("DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends " + deb)
			assert.Contains(t, d.sh("cat /etc/mailu-hook.conf"), "MAILU_HOOK_PROJECT="+l.front.Project, "what was set stays")
			assert.Equal(t, "active\n", d.sh("systemctl is-active mailu-hook-sync.timer"))
			second := l.next()
			l.lineage(second, mailName)
			d.sh("systemctl start mailu-hook-sync.service") // hardened as the unit says
			l.endsServing(second.SHA256())
			l.healthyAndReloadable()

			d.sh("apt-get remove -y mailu-hook")
			assert.Equal(t, "no\n", d.sh("command -v mailu-hook >/dev/null && echo yes || echo no"))
			assert.NotEqual(t, "active\n", d.sh("systemctl is-active mailu-hook-sync.timer || true"))
			l.showsEverywhere(second.SHA256())
			out := d.sh("apt-get purge -y mailu-hook 2>&1")
			assert.Contains(t, out, "/var/lib/mailu-hook was kept")
			d.sh("test ! -e /etc/mailu-hook.conf; test -d /var/lib/mailu-hook")
			require.NoError(t, l.front.Restart(t.Context()))
			l.endsServing(second.SHA256())

			d.sh("apt-get install -y --no-install-recommends " + deb)
			assert.Equal(t, "enabled\n", d.sh("systemctl is-enabled mailu-hook-sync.timer"))
		})
	}
}

// Debian's rpm stands in for Fedora's; apk is nowhere to be had, and an apk is three
// archives in one, which tar reads.
func TestRPMAndAPKBringWhatTheDebDoes(t *testing.T) {
	rig.Need(t, rig.NeedDocker, "mmdebstrap")
	built := dist(t, "v1.0.0")
	l := newLab(t)
	d := l.debian(debianImage(t, "bookworm", "systemd-sysv", "man-db", "bash-completion", "zsh", "fish", "procps", "rpm"))
	d.sh("until systemctl is-system-running --wait | grep -Eq 'running|degraded'; do sleep 0.2; done")
	d.sh("rpm --install --nodeps " + d.put(filepath.Join(built, "mailu-hook-1.0.0-1.x86_64.rpm")))
	assert.Contains(t, d.sh("mailu-hook version"), "v1.0.0")
	assert.Equal(t, "enabled\nactive\n", d.sh("systemctl is-enabled mailu-hook-sync.timer; systemctl is-active mailu-hook-sync.timer"))
	installed := strings.Fields(d.sh("rpm --query --list mailu-hook"))
	d.sh("echo '# mine' >>/etc/mailu-hook.conf; rpm --erase mailu-hook; test ! -e /usr/bin/mailu-hook")
	assert.NotEqual(t, "active\n", d.sh("systemctl is-active mailu-hook-sync.timer || true"))
	assert.Contains(t, d.sh("cat /etc/mailu-hook.conf.rpmsave"), "# mine")

	out, err := exec.Command("tar", "tzf", filepath.Join(built, "mailu-hook_1.0.0-r1_x86_64.apk")).Output()
	require.NoError(t, err)
	packed := strings.Fields(string(out))
	for _, file := range []string{
		"/usr/bin/mailu-hook", "/etc/mailu-hook.conf", "/usr/lib/systemd/system/mailu-hook-watch.service", "/usr/share/man/man8/mailu-hook.8.gz",
		"/usr/share/bash-completion/completions/mailu-hook", "/usr/share/zsh/site-functions/_mailu-hook", "/usr/share/fish/vendor_completions.d/mailu-hook.fish",
		"/usr/share/licenses/mailu-hook/LICENSE", "/usr/share/doc/mailu-hook/docs/install.md",
	} {
		assert.Contains(t, installed, file)
		assert.Contains(t, packed, strings.TrimPrefix(file, "/"))
	}
}
