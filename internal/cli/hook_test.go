package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/hook"
	"mailu-hook/internal/mint"
)

func TestSuccessAsAHookIsOneLineOnStdout(t *testing.T) {
	for name, containers := range map[string]func(*world) []container{
		"stopped front": func(w *world) []container { return []container{w.stopped()} },
		"no front":      func(w *world) []container { w.mailuEnv("HOSTNAMES=mail.example.com\n"); return nil },
		"partly covered": func(w *world) []container {
			front := w.stopped()
			front.env["HOSTNAMES"] = "mail.example.com,smtp.example.com,imap.example.com"
			return []container{front}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.engine(containers(w)...)
			r := w.hook()
			require.Equal(t, exitOK, r.status, r.stderr)
			assert.Empty(t, r.stderr)
			assert.Equal(t, 1, strings.Count(r.stdout, "\n"))
			assert.True(t, strings.HasPrefix(r.stdout, "installed "+w.lineage+" (ECDSA-P-256, valid until "), r.stdout)
			assert.Contains(t, r.stdout, "the front will load it when it starts")
			assert.NotContains(t, r.stdout, "0s after", "nothing was served yet")
			assert.Equal(t, name == "partly covered", strings.Contains(r.stdout, "does not cover smtp.example.com, imap.example.com"))
			assert.True(t, w.installed(w.pair))

			r = w.hook()
			assert.Equal(t, exitOK, r.status)
			assert.True(t, strings.HasPrefix(r.stdout, "nothing to do: "), r.stdout)
			assert.Empty(t, r.stderr)
		})
	}
}

func TestKeyThatSpeaksForOtherNamesIsWarnedAbout(t *testing.T) {
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	w := newWorldOf(t, ca, mint.Leaf{Names: []string{"*.example.com", "example.com"}})
	w.engine(w.stopped())
	r := w.hook()
	assert.Equal(t, exitOK, r.status, r.stderr)
	assert.Contains(t, r.stdout, "its key, which the front can read, also speaks for *.example.com, example.com")
}

func TestLineageOfAnotherSiteIsPassedOver(t *testing.T) {
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	for name, spoil := range map[string]func(w *world){
		"healthy":   func(*world) {},
		"untrusted": func(w *world) { delete(w.env, "MAILU_HOOK_ROOTS") },
		"damaged": func(w *world) {
			require.NoError(t, os.WriteFile(filepath.Join(w.lineage, "privkey.pem"), []byte("?"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorldOf(t, ca, mint.Leaf{Names: []string{"www.example.com", "smtp.example.com"}})
			front := w.stopped()
			front.env["HOSTNAMES"] = "mail.example.com,smtp.example.com"
			w.engine(front)
			spoil(w)
			before := w.tree()
			r := w.hook()
			assert.Equal(t, exitOK, r.status, r.stderr)
			assert.True(t, strings.HasPrefix(r.stdout, "skipped "+w.lineage+": not Mailu's: it does not cover mail.example.com"), r.stdout)
			assert.Equal(t, 1, strings.Count(r.stdout, "\n"))
			assert.Empty(t, r.stderr)
			assert.Equal(t, before, w.tree())
			assert.Equal(t, exitRejected, w.install().status, "by hand it is an error")
			assert.Equal(t, before, w.tree())
		})
	}
}

func TestHookThatKnowsNoHostnameInstallsNothing(t *testing.T) {
	w := newWorld(t)
	before := w.tree()
	r := w.hook()
	assert.Equal(t, exitUsage, r.status)
	assert.Empty(t, r.stdout)
	assert.Contains(t, r.stderr, "add to /etc/mailu-hook.conf the line MAILU_HOOK_HOSTNAME=mail.example.com")
	assert.Equal(t, before, w.tree())
}

func TestHostnameIsKnownWithoutTheEngine(t *testing.T) {
	for name, learn := range map[string]func(*testing.T, *world){
		"from mailu.env": func(_ *testing.T, w *world) {
			w.mailuEnv("# Mailu\nSECRET_KEY=" + secretKey + "\nHOSTNAMES=mail.example.com\nTLS_FLAVOR=cert\n")
		},
		"from mailu.env, directory with a slash": func(_ *testing.T, w *world) {
			w.mailuEnv("HOSTNAMES=mail.example.com\n")
			w.env["MAILU_HOOK_CERTS_DIR"] += "/"
		},
		"from what was remembered": func(t *testing.T, w *world) {
			reached := w.env["DOCKER_HOST"]
			w.engine(w.stopped())
			require.Equal(t, exitOK, w.hook().status)
			w.env["DOCKER_HOST"] = reached
			w.pair, w.lineage = w.issue("mail.example.com", mint.Leaf{NotBefore: time.Now().Add(-time.Minute)})
		},
		"from the environment": func(_ *testing.T, w *world) { w.env["MAILU_HOOK_HOSTNAME"] = "mail.example.com" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			learn(t, w)
			r := w.hook()
			assert.Equal(t, exitPending, r.status)
			assert.Empty(t, r.stdout)
			assert.Contains(t, r.stderr, "mailu-hook: error: installed, but not yet verified on all ports: cannot query the container engine")
			assert.Contains(t, r.stderr, "mailu-hook: hint: ")
			assert.True(t, w.installed(w.pair))
		})
	}
}

func TestFrontThatWouldNotServeItIsRefused(t *testing.T) {
	w := newWorld(t)
	before := w.tree()
	for _, flavor := range []string{"letsencrypt", "mail-letsencrypt", "notls"} {
		front := w.stopped()
		front.env["TLS_FLAVOR"] = flavor
		w.engine(front)
		r := w.hook()
		assert.Equal(t, exitUsage, r.status)
		assert.Contains(t, r.stderr, "TLS_FLAVOR="+flavor)
	}
	assert.Equal(t, before, w.tree())
	w.env["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
	w.mailuEnv("HOSTNAMES=mail.example.com\nTLS_FLAVOR=letsencrypt\n")
	assert.Equal(t, exitUsage, w.hook().status, "mailu.env says so too")
	assert.False(t, w.installed(w.pair))
}

func TestTwoFrontsAreNamedAndOneCanBeChosen(t *testing.T) {
	w := newWorld(t)
	other := w.stopped()
	other.name, other.project, other.certs = "other-front-1", "other", t.TempDir()
	w.engine(w.stopped(), other)
	delete(w.env, "MAILU_HOOK_CERTS_DIR")
	before := w.tree()
	r := w.run("rollback")
	assert.Equal(t, exitUsage, r.status)
	for _, want := range []string{"mailu-front-1 (project mailu)", "other-front-1 (project other)", "--project", "MAILU_HOOK_PROJECT"} {
		assert.Contains(t, r.stderr, want)
	}
	assert.Equal(t, before, w.tree())
	assert.Equal(t, exitOK, w.hook("--container", "mailu-front-1").status)
	assert.True(t, w.installed(w.pair))
}

func TestDirectoryThatTheFrontDoesNotMountIsRefused(t *testing.T) {
	w := newWorld(t)
	front := w.stopped()
	front.certs = t.TempDir()
	w.engine(front)
	r := w.hook()
	assert.Equal(t, exitUsage, r.status)
	for _, want := range []string{"--certs-dir", w.certs, front.certs, "mailu-front-1"} {
		assert.Contains(t, r.stderr, want)
	}
	assert.False(t, w.installed(w.pair))

	same := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(w.certs, same))
	front.certs = same
	w.engine(front)
	assert.Equal(t, exitOK, w.hook().status, "another name of the same directory")

	front.certs = "/var/lib/docker/elsewhere"
	w.engine(front)
	assert.Equal(t, exitOK, w.hook().status, "a directory of another host says nothing")
}

func TestFrontThatIsPausedOrRestartingLeavesTheDeployPending(t *testing.T) {
	for state, hint := range map[string]string{"paused": "docker unpause mailu-front-1", "restarting": "docker logs mailu-front-1"} {
		w := newWorld(t)
		front := w.stopped()
		front.state = state
		w.engine(front)
		r := w.hook()
		assert.Equal(t, exitPending, r.status)
		assert.Contains(t, r.stderr, hint)
		assert.True(t, w.installed(w.pair))
	}
}

func TestRunThatFindsTheLockHeldExits7(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	store, err := hook.OpenStore(hook.Place{CertsDir: w.certs, StateDir: w.env["MAILU_HOOK_STATE_DIR"]})
	require.NoError(t, err)
	defer store.Close()
	unlock, err := store.Lock(context.Background())
	require.NoError(t, err)
	defer unlock()
	r := w.hook("--timeout", "300ms")
	assert.Equal(t, exitLocked, r.status)
	assert.Contains(t, r.stderr, "another run holds the lock")
	assert.False(t, w.installed(w.pair))
}

func TestMissingCertsDirectoryIsAnErrorThatChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.env["MAILU_HOOK_HOSTNAME"] = "mail.example.com"
	missing := filepath.Join(w.dir, "missing")
	r := w.hook("--certs-dir", missing)
	assert.Equal(t, exitError, r.status)
	assert.Contains(t, r.stderr, missing)
	assert.Contains(t, r.stderr, "--certs-dir")
	assert.NoDirExists(t, missing)
}

func TestDryRunChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	before := w.tree()
	r := w.hook("--dry-run")
	assert.Equal(t, exitOK, r.status)
	assert.True(t, strings.HasPrefix(r.stdout, "would install "+w.lineage), r.stdout)
	assert.Equal(t, before, w.tree())
}

func TestLineageOfAnotherSiteCostsOneQuestionToTheEngine(t *testing.T) {
	w := newWorld(t)
	asked := w.engine(w.stopped())
	require.Equal(t, exitOK, w.hook().status)
	_, w.lineage = w.issue("www.example.com", mint.Leaf{Names: []string{"www.example.com"}})
	before := asked.Load()
	r := w.hook()
	assert.Equal(t, exitOK, r.status)
	assert.Contains(t, r.stdout, "not Mailu's: it does not cover mail.example.com")
	assert.EqualValues(t, 1, asked.Load()-before)

	recreated := w.stopped()
	recreated.name, recreated.env["HOSTNAMES"] = "mailu-front-2", "www.example.com"
	w.engine(recreated)
	assert.Contains(t, w.hook().stdout, "installed", "another container may have other names")

}

func TestChoiceThatMatchesNoFrontIsAUsageErrorThatListsThem(t *testing.T) {
	for _, args := range [][]string{{"--project", "nope"}, {"--container", "nope"}} {
		w := newWorld(t)
		w.engine(w.stopped())
		r := w.hook(args...)
		assert.Equal(t, exitUsage, r.status)
		assert.Contains(t, r.stderr, `fronts on this host: mailu-front-1 (project mailu)`)
		assert.False(t, w.installed(w.pair))
	}
}

func TestFrontThatWasRemovedIsNoMistakeInTheChoice(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	require.Equal(t, exitOK, w.hook("--project", "mailu").status)
	other := w.stopped()
	other.name, other.project, other.certs = "other-front-1", "other", t.TempDir()
	w.engine(other)
	w.pair, w.lineage = w.issue("mail.example.com", mint.Leaf{})
	assert.Equal(t, exitOK, w.hook("--project", "mailu", "--certs-dir", w.certs).status)
	assert.True(t, w.installed(w.pair))
	assert.Equal(t, exitUsage, w.hook("--project", "mailus", "--certs-dir", w.certs).status)
}

func TestRunningContainerThatMountsTheDirectoryLeavesTheDeployPending(t *testing.T) {
	w := newWorld(t)
	stranger := w.stopped()
	stranger.name, stranger.state, stranger.env = "mail", "running", nil // Mailu's front cannot be told by this
	w.engine(w.stopped(), stranger)
	r := w.hook()
	assert.Equal(t, exitPending, r.status)
	assert.Contains(t, r.stderr, "the front mailu-front-1 is not running (exited), but mail runs and mounts "+w.certs)
	assert.Contains(t, r.stderr, "--container")
	assert.True(t, w.installed(w.pair))
}
