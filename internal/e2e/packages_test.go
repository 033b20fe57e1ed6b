//go:build soak

package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
	one, other := dist(t, "v1.2.3"), dist(t, "v1.2.3")
	sums, err := os.ReadFile(filepath.Join(one, "SHA256SUMS"))
	require.NoError(t, err)
	same, err := os.ReadFile(filepath.Join(other, "SHA256SUMS"))
	require.NoError(t, err)
	assert.Equal(t, string(sums), string(same), "two folders, one result")
	for _, name := range []string{
		"mailu-hook-linux-amd64", "mailu-hook-linux-arm64", "mailu-hook-linux-armv7", "mailu-hook-linux-386", "mailu-hook-linux-riscv64", "mailu-hook-linux-s390x",
		"mailu-hook_1.2.3-1_amd64.deb", "mailu-hook_1.2.3-1_arm64.deb", "mailu-hook-1.2.3-1.x86_64.rpm", "mailu-hook-1.2.3-1.aarch64.rpm",
		"mailu-hook_1.2.3-r1_x86_64.apk", "mailu-hook_1.2.3-r1_aarch64.apk", "mailu-hook-image-amd64.tar", "mailu-hook-image-arm64.tar",
		"mailu-hook.8", "mailu-hook.bash", "mailu-hook.zsh", "mailu-hook.fish", "LICENSES", "sbom.cdx.json",
	} {
		assert.Contains(t, string(sums), "  "+name+"\n")
	}
	out, err := exec.Command("lintian", "--allow-root", "--fail-on", "error,warning", filepath.Join(one, "mailu-hook_1.2.3-1_amd64.deb")).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func imagesLoad(t *testing.T, dist string) {
	const line = "podman load --input mailu-hook-image-amd64.tar"
	followed.Store(line, true)
	storage := filepath.Join(t.TempDir(), "storage")
	podman := func(args ...string) string {
		cmd := exec.Command("podman", append([]string{"--root", storage, "--storage-driver", "vfs"}, args...)...)
		cmd.Dir = dist
		out, err := cmd.Output()
		require.NoError(t, err, "%s", out)
		return strings.TrimSpace(string(out))
	}
	for _, arch := range []string{"amd64", "arm64"} {
		podman(strings.Fields(strings.ReplaceAll(line, "amd64", arch))[1:]...)
		assert.Equal(t, arch+" [/mailu-hook] [watch]", podman("inspect", "--format", "{{.Architecture}} {{.Config.Entrypoint}} {{.Config.Cmd}}", "localhost/mailu-hook:v1.0.0"))
	}
}

// What the packages are installed into. mmdebstrap makes each root once.
const debianPackages = "systemd-sysv,ca-certificates,man-db,bash-completion,zsh,fish,procps,rpm"

// debianImage is an image of that release.
func debianImage(t *testing.T, suite string) string {
	t.Helper()
	root, err := rig.RepositoryRoot()
	require.NoError(t, err)
	name, tarball := imageName+"-debian:"+suite, filepath.Join(root, ".cache", "base", "debian-"+suite+".tar")
	if _, err := os.Stat(tarball); err != nil {
		out, err := exec.Command("mmdebstrap", "--quiet", "--format=tar", "--variant=minbase", "--include="+debianPackages, suite, tarball).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	out, err := exec.Command("docker", "import", tarball, name).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", name).Run() })
	return name
}

// debian is a host that systemd runs, in a container, beside the lab's front.
type debian struct {
	*lab
	id string
}

// debian starts one that has the lab's directories where a host has them. That of its
// own of cgroup2 is systemd's, whichever version the engine uses.
func (l *lab) debian(suite string) *debian {
	l.t.Helper()
	args := []string{"run", "--detach", "--label", "mailu-hook.test=1", "--label", fmt.Sprintf("mailu-hook.test.pid=%d", os.Getpid()),
		"--cap-add", "SYS_ADMIN", "--cap-add", "SYS_PTRACE", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined", "--cgroupns=private",
		"--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp", "-e", "container=docker", "-v", "/var/run/docker.sock:/run/docker.sock"}
	for from, to := range map[string]string{"certs": "/mailu/certs", "letsencrypt": "/etc/letsencrypt", "roots.pem": "/etc/ssl/my-ca.pem"} {
		args = append(args, "-v", filepath.Join(l.root, from)+":"+to)
	}
	args = append(args, debianImage(l.t, suite), "sh", "-c", "mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec /lib/systemd/systemd")
	out, err := exec.Command("docker", args...).Output()
	require.NoError(l.t, err)
	d := &debian{l, strings.TrimSpace(string(out))}
	l.t.Cleanup(func() {
		out, err := exec.Command("docker", "rm", "--force", "--volumes", d.id).CombinedOutput()
		assert.NoError(l.t, err, "%s", out)
	})
	d.sh("until systemctl is-system-running --wait >/dev/null 2>&1; do sleep 0.1; done")
	return d
}

// sh runs a script in root's home and returns what it printed.
func (d *debian) sh(script string) string {
	d.t.Helper()
	out, err := exec.Command("docker", "exec", "-w", "/root", d.id, "sh", "-euc", script).CombinedOutput()
	require.NoError(d.t, err, "%s\n%s", script, out)
	return string(out)
}

// notFollowed are the lines of docs/install.md that no test runs, each with the reason.
var notFollowed = map[string]string{
	"dnf install ./mailu-hook-*.x86_64.rpm":               "there is no Fedora here: rpm itself installs the package",
	"apk add --allow-untrusted ./mailu-hook_*_x86_64.apk": "there is no apk here",
	"make build":                         "it has built the program that is tested",
	"install mailu-hook /usr/local/bin/": "likewise",
}

// followed are the lines that were run.
var followed sync.Map

// follows runs a line of docs/install.md.
func (d *debian) follows(line string) string {
	d.t.Helper()
	followed.Store(line, true)
	return d.sh(line)
}

// everyWayWasFollowed holds the guide and the tests to each other.
func everyWayWasFollowed(t *testing.T) {
	var said, known []string
	for _, b := range blocks(t, "docs/install.md") {
		said = append(said, b.commands()...)
	}
	followed.Range(func(line, _ any) bool {
		known = append(known, line.(string))
		return true
	})
	assert.ElementsMatch(t, said, slices.AppendSeq(known, maps.Keys(notFollowed)))
}

// states are those of units, as systemctl VERB prints them.
func (d *debian) states(verb string, units ...string) string {
	d.t.Helper()
	return strings.Join(strings.Fields(d.sh("systemctl "+verb+" "+strings.Join(units, " ")+" || true")), " ")
}

// brings puts a package into root's home, in place of those before, and what it is
// checked by.
func (d *debian) brings(dist, name string) {
	d.t.Helper()
	d.sh("rm -f /root/*")
	for _, file := range []string{name, "SHA256SUMS"} {
		out, err := exec.Command("docker", "cp", filepath.Join(dist, file), d.id+":/root/").CombinedOutput()
		require.NoError(d.t, err, "%s", out)
	}
	d.follows("sha256sum --check --ignore-missing SHA256SUMS")
}

// configures says where the lab differs from a host of its own.
func (d *debian) configures() {
	d.t.Helper()
	d.sh("printf 'MAILU_HOOK_PROJECT=%s\\nMAILU_HOOK_ROOTS=/etc/ssl/my-ca.pem\\nMAILU_HOOK_DANE=off\\n' " + d.front.Project + " >/etc/mailu-hook.conf")
}

const (
	timerUnit = "mailu-hook-sync.timer"
	agentUnit = "mailu-hook-watch.service"
	aptLine   = "apt install ./mailu-hook_*_amd64.deb"
)

func TestPackagesAreInstalledUpgradedRemovedAndPurged(t *testing.T) {
	rig.Need(t, rig.NeedDocker, "mmdebstrap", "podman")
	older, newer := dist(t, "v1.0.0"), dist(t, "v1.0.1")
	t.Cleanup(func() { everyWayWasFollowed(t) }) // the subtests run in parallel
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) { debLives(t, suite, older, newer) })
	}
	t.Run("rpm", func(t *testing.T) { rpmLives(t, older, newer) })
	t.Run("image", func(t *testing.T) { imagesLoad(t, older) })
}

func debLives(t *testing.T, suite, older, newer string) {
	l, _ := startServing(t, rig.FrontOptions{})
	first := l.next()
	l.lineage(first, mailName)
	d := l.debian(suite)

	d.brings(older, "mailu-hook_1.0.0-1_amd64.deb")
	d.follows(aptLine)
	assert.Contains(t, d.sh("mailu-hook version"), "v1.0.0 ")
	assert.Equal(t, "enabled", d.states("is-enabled", timerUnit))
	assert.Equal(t, "active", d.states("is-active", timerUnit))
	assert.Equal(t, "disabled disabled", d.states("is-enabled", "mailu-hook-renew.timer", agentUnit))
	assert.Empty(t, d.sh("systemd-analyze verify /usr/lib/systemd/system/mailu-hook-*"))
	for _, shown := range []string{"man mailu-hook", "mailu-hook help"} {
		assert.Equal(t, "ln -s /usr/bin/mailu-hook /etc/letsencrypt/renewal-hooks/deploy/", strings.TrimSpace(d.sh(shown+" | grep renewal-hooks")), shown)
	}
	assert.Empty(t, d.sh("grep -rl --exclude=install.md /usr/local/bin/mailu-hook /usr/lib/systemd /usr/share/doc/mailu-hook || true"))
	d.completes()

	d.configures()
	d.sh("mkdir -p /etc/letsencrypt/renewal-hooks/deploy")
	d.follows("ln -s /usr/bin/mailu-hook /etc/letsencrypt/renewal-hooks/deploy/")
	d.sh("RENEWED_LINEAGE=/etc/letsencrypt/live/" + mailName + " /etc/letsencrypt/renewal-hooks/deploy/mailu-hook")
	l.endsServing(first.SHA256())
	d.follows("systemctl disable --now mailu-hook-sync.timer mailu-hook-renew.timer")
	d.follows("systemctl enable --now mailu-hook-watch.service")
	d.sh("systemctl enable " + timerUnit) // as where it was forgotten

	// The agent runs the newer version then; the timer would stop it.
	d.brings(newer, "mailu-hook_1.0.1-1_amd64.deb")
	d.follows(aptLine)
	assert.Contains(t, d.sh("cat /etc/mailu-hook.conf"), "MAILU_HOOK_PROJECT="+l.front.Project, "what was set stays")
	assert.Equal(t, "active inactive", d.states("is-active", agentUnit, timerUnit))
	assert.Equal(t, "/usr/bin/mailu-hook\n", d.sh("readlink /proc/$(systemctl show --value --property MainPID "+agentUnit+")/exe"))
	d.sh("systemctl disable --now " + agentUnit + "; systemctl start " + timerUnit)
	second := l.next()
	l.lineage(second, mailName)
	d.sh("systemctl start mailu-hook-sync.service") // hardened as the unit says
	l.endsServing(second.SHA256())
	l.healthyAndReloadable()

	d.brings(older, "mailu-hook_1.0.0-1_amd64.deb")
	d.sh("apt-get install -y --allow-downgrades ./mailu-hook_*_amd64.deb")
	assert.Contains(t, d.sh("mailu-hook version"), "v1.0.0 ")
	d.follows("systemctl enable --now mailu-hook-renew.timer")
	d.sh("apt-get remove -y mailu-hook; test ! -e /usr/bin/mailu-hook; test -e /etc/mailu-hook.conf")
	assert.NotContains(t, strings.Fields(d.states("is-active", timerUnit, "mailu-hook-renew.timer")), "active")
	l.showsEverywhere(second.SHA256())
	assert.Contains(t, d.sh("apt-get purge -y mailu-hook 2>&1"), "/var/lib/mailu-hook was kept")
	assert.Empty(t, d.sh("find /etc /usr /var/lib/systemd -name '*mailu-hook*' ! -path '*/timers/*' ! -path '/etc/letsencrypt/*'"), "nothing else is left")
	require.NoError(t, l.front.Restart(t.Context()))
	l.endsServing(second.SHA256())

	d.brings(newer, "mailu-hook-linux-amd64")
	d.follows("install mailu-hook-linux-amd64 /usr/local/bin/mailu-hook")
	assert.Contains(t, d.sh("/usr/local/bin/mailu-hook help | grep renewal-hooks"), "ln -s /usr/local/bin/mailu-hook ")
	d.sh("rm /usr/local/bin/mailu-hook")
	d.brings(newer, "mailu-hook_1.0.1-1_amd64.deb")
	d.follows(aptLine)
	assert.Equal(t, "enabled disabled disabled", d.states("is-enabled", timerUnit, "mailu-hook-renew.timer", agentUnit))
	assert.Equal(t, "active", d.states("is-active", timerUnit))
	d.configures()
	third := l.next()
	l.lineage(third, mailName)
	d.sh("systemctl start mailu-hook-sync.service") // it remembers the lineage
	l.endsServing(third.SHA256())
}

// completes asks each shell to complete, with what the package has put in its place.
func (d *debian) completes() {
	d.t.Helper()
	for shell, script := range map[string]string{
		"bash": `
			. /usr/share/bash-completion/bash_completion
			_completion_loader mailu-hook || :
			COMP_WORDS=(mailu-hook status --output "") COMP_CWORD=3
			_mailu_hook
			printf "%s\n" "${COMPREPLY[@]}"`,
		"zsh": `
			autoload -U compinit
			compinit -u
			compadd() { shift; print -l -- $@ }
			words=(mailu-hook status --output "") CURRENT=4
			$_comps[mailu-hook]`,
		"fish": `complete --do-complete "mailu-hook status --output "`,
	} {
		assert.ElementsMatch(d.t, []string{"text", "json", "prometheus", "nagios"}, strings.Fields(d.sh(shell+" -c '"+script+"'")), shell)
	}
}

// Debian's rpm stands in for Fedora's. There is no apk here, and an apk is three
// archives in one, which tar reads.
func rpmLives(t *testing.T, older, newer string) {
	l := newLab(t)
	require.NoError(t, os.MkdirAll(filepath.Join(l.root, "letsencrypt"), 0o755))
	d := l.debian("trixie")
	d.brings(older, "mailu-hook-1.0.0-1.x86_64.rpm")
	d.sh("rpm --install --nodeps /root/*.rpm")
	assert.Contains(t, d.sh("mailu-hook version"), "v1.0.0 ")
	assert.Equal(t, "enabled disabled disabled", d.states("is-enabled", timerUnit, "mailu-hook-renew.timer", agentUnit))
	assert.Equal(t, "active", d.states("is-active", timerUnit))
	installed := strings.Fields(d.sh("rpm --query --list mailu-hook"))

	d.sh("echo '# mine' >>/etc/mailu-hook.conf; systemctl disable --now " + timerUnit + "; systemctl enable --now " + agentUnit)
	d.brings(newer, "mailu-hook-1.0.1-1.x86_64.rpm")
	d.sh("rpm --upgrade --nodeps /root/*.rpm")
	assert.Contains(t, d.sh("cat /etc/mailu-hook.conf"), "# mine")
	assert.Equal(t, "active inactive", d.states("is-active", agentUnit, timerUnit))
	assert.Equal(t, "disabled", d.states("is-enabled", timerUnit), "as it was left")
	assert.Equal(t, "/usr/bin/mailu-hook\n", d.sh("readlink /proc/$(systemctl show --value --property MainPID "+agentUnit+")/exe"))
	d.brings(older, "mailu-hook-1.0.0-1.x86_64.rpm")
	d.sh("rpm --upgrade --oldpackage --nodeps /root/*.rpm")
	assert.Contains(t, d.sh("mailu-hook version"), "v1.0.0 ")
	assert.Equal(t, "active inactive", d.states("is-active", agentUnit, timerUnit))
	d.sh("rpm --erase mailu-hook; test ! -e /usr/bin/mailu-hook; grep mine /etc/mailu-hook.conf.rpmsave")
	assert.NotContains(t, strings.Fields(d.states("is-active", timerUnit, agentUnit)), "active")

	out, err := exec.Command("tar", "tzf", filepath.Join(older, "mailu-hook_1.0.0-r1_x86_64.apk")).Output()
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
