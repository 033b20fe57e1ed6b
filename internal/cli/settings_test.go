package cli

import (
	"errors"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/mint"
)

// full is a stream that takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// The main hostname shows which source was heard: the lineage covers none of
// those that the sources name, and is passed over for the first.
func TestTheMoreSpecificSourceWins(t *testing.T) {
	ca, err := mint.NewCA(mint.CAOptions{})
	require.NoError(t, err)
	sources := []string{"flag", "env", "file", "container", "remembered", "mailu.env"}
	for i, first := range sources {
		t.Run(first, func(t *testing.T) {
			w := newWorldOf(t, ca, mint.Leaf{})
			heard := map[string]bool{}
			for _, source := range sources[i:] {
				heard[source] = true
			}
			if heard["remembered"] {
				front := w.stopped()
				front.env["HOSTNAMES"] = "remembered.example.com"
				w.engine(front)
				pair, lineage := w.issue("remembered", mint.Leaf{Names: []string{"remembered.example.com"}})
				require.Equal(t, exitOK, w.run("install", "--lineage", lineage).status)
				require.True(t, w.installed(pair))
			}
			w.env["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
			if heard["container"] {
				front := w.stopped()
				front.name = "mailu-front-2" // recreated: the same could not have changed its mind
				front.env["HOSTNAMES"] = "container.example.com,second.example.com"
				w.engine(front)
			}
			if heard["file"] {
				w.env["MAILU_HOOK_CONFIG"] = w.file("MAILU_HOOK_HOSTNAME=file.example.com\n")
			}
			if heard["env"] {
				w.env["MAILU_HOOK_HOSTNAME"] = "env.example.com"
			}
			w.mailuEnv("HOSTNAMES=mailu.env.example.com\n")
			var args []string
			if heard["flag"] {
				args = []string{"--hostname", "flag.example.com"}
			}
			r := w.hook(args...)
			assert.Equal(t, exitOK, r.status, r.stderr)
			assert.Contains(t, r.stdout, "it does not cover "+first+".example.com")
		})
	}
}

func TestEveryFlagHasItsVariable(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	maps.Copy(w.env, map[string]string{"MAILU_HOOK_OUTPUT": "json", "MAILU_HOOK_DRY_RUN": "true", "MAILU_HOOK_LINEAGE": w.lineage, "MAILU_HOOK_KEEP": "5", "MAILU_HOOK_TIMEOUT": "20s"})
	r := w.run("install")
	require.Equal(t, exitOK, r.status, r.stderr)
	doc := r.document(t)
	assert.Equal(t, true, doc["dry_run"])
	assert.Equal(t, "would_install", doc["outcome"])
	assert.Equal(t, w.lineage, doc["lineage"])
	assert.NotEqual(t, "{", w.run("install", "--output", "text").stdout[:1], "the flag wins")
}

func TestConfigurationFileIsReadAsSystemdReadsIt(t *testing.T) {
	for name, content := range map[string]string{
		"plain":              "MAILU_HOOK_HOSTNAME=file.example.com\n",
		"no newline":         "MAILU_HOOK_HOSTNAME=file.example.com",
		"double quotes":      "MAILU_HOOK_HOSTNAME=\"file.example.com\"\n",
		"single quotes":      "MAILU_HOOK_HOSTNAME='file.example.com'\n",
		"comments":           "# a comment = this\n; another\n\n  MAILU_HOOK_HOSTNAME=file.example.com  \n#MAILU_HOOK_HOSTNAME=no\n",
		"byte order mark":    "\ufeffMAILU_HOOK_HOSTNAME=file.example.com\n",
		"CRLF":               "# x\r\nMAILU_HOOK_HOSTNAME=file.example.com\r\n",
		"several":            "MAILU_HOOK_HOSTNAME=file.example.com, other.example.com\nMAILU_HOOK_TIMEOUT=9s\nDOCKER_API_VERSION=1.41\n",
		"last one wins":      "MAILU_HOOK_HOSTNAME=no.example.com\nMAILU_HOOK_HOSTNAME=file.example.com\n",
		"of a later command": "MAILU_HOOK_CERT=/x\nMAILU_HOOK_HOSTNAME=file.example.com\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := w.hook("--config", w.file(content))
			assert.Equal(t, exitOK, r.status, r.stderr)
			assert.Contains(t, r.stdout, "does not cover file.example.com")
		})
	}
}

func TestBadConfigurationFileIsNamedWithItsFault(t *testing.T) {
	for content, want := range map[string]string{
		"MAILU_HOOK_HOSTNAMES=x\n":        "MAILU_HOOK_HOSTNAMES",
		"PATH=/bin\n":                     "PATH",
		"\nMAILU_HOOK_HOSTNAME\n":         ":2: not of the form KEY=value",
		"=x\n":                            ":1: not of the form KEY=value",
		"export MAILU_HOOK_HOSTNAME=x\n":  ":1: not of the form KEY=value",
		strings.Repeat("x", 1<<20) + "=x": "too long",
	} {
		w := newWorld(t)
		file := w.file(content)
		r := w.hook("--config", file)
		assert.Equal(t, exitUsage, r.status)
		assert.Contains(t, r.stderr, want)
		if want != "too long" {
			assert.Contains(t, r.stderr, file)
		}
	}
}

func TestBadValueNamesTheVariableItCameFrom(t *testing.T) {
	for variable, value := range map[string]string{
		"MAILU_HOOK_TIMEOUT": "soon", "MAILU_HOOK_KEEP": "many", "MAILU_HOOK_DRY_RUN": "perhaps", "MAILU_HOOK_OUTPUT": "xml",
		"MAILU_HOOK_LOG_LEVEL": "loud", "MAILU_HOOK_LOG_FORMAT": "xml",
	} {
		for _, source := range []string{"environment", "file"} {
			t.Run(variable+" in the "+source, func(t *testing.T) {
				w := newWorld(t)
				if source == "file" {
					w.env["MAILU_HOOK_CONFIG"] = w.file(variable + "=" + value + "\n")
				} else {
					w.env[variable] = value
				}
				r := w.hook()
				assert.Equal(t, exitUsage, r.status)
				assert.Contains(t, r.stderr, variable)
				assert.Contains(t, r.stderr, value)
			})
		}
	}
}

func TestGoodFlagHidesABadVariable(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	w.env["MAILU_HOOK_TIMEOUT"] = "soon"
	assert.Equal(t, exitOK, w.hook("--timeout", "20s").status)
}

func TestEngineOfTheConfigurationFileIsAsked(t *testing.T) {
	w := newWorld(t)
	asked := w.engine(w.stopped())
	w.env["MAILU_HOOK_CONFIG"] = w.file("DOCKER_HOST=" + w.env["DOCKER_HOST"] + "\n")
	delete(w.env, "DOCKER_HOST")
	require.Equal(t, exitOK, w.hook("--dry-run").status)
	assert.Positive(t, asked.Load())

	before := asked.Load()
	w.env["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
	w.hook("--dry-run")
	assert.Equal(t, before, asked.Load(), "the environment wins")
}

func TestContextOfTheConfigurationFileIsUsed(t *testing.T) {
	w := newWorld(t)
	delete(w.env, "DOCKER_HOST")
	w.env["MAILU_HOOK_CONFIG"] = w.file("DOCKER_CONTEXT=none\nDOCKER_CONFIG=" + w.dir + "\n")
	r := w.hook("--dry-run")
	assert.Equal(t, exitUsage, r.status)
	assert.Contains(t, r.stderr, `the Docker context "none": there is no such context in `+w.dir)
	assert.Contains(t, r.stderr, "hint: docker context ls")
}

func TestLogGoesToStderrInTheFormatAskedFor(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	r := w.hook("--log-level", "debug", "--log-format", "json")
	require.Equal(t, exitOK, r.status)
	for line := range strings.Lines(r.stderr) {
		assert.True(t, strings.HasPrefix(line, `{"time":`), line)
	}
	assert.NotEmpty(t, r.stderr)
	r = w.hook("--log-level", "debug")
	assert.Contains(t, r.stderr, "level=DEBUG")
}

func TestConfigurationThatOthersCanWriteToIsWarnedOf(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	config := w.env["MAILU_HOOK_CONFIG"]
	require.NoError(t, os.Chmod(config, 0o644))
	assert.Empty(t, w.hook().stderr)
	require.NoError(t, os.Chmod(config, 0o646))
	r := w.hook()
	assert.Equal(t, exitOK, r.status)
	assert.Contains(t, r.stderr, "others than root can change "+config)
}

func TestMisspeltVariableOfTheEnvironmentIsWarnedOf(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	w.env["MAILU_HOOK_PROJEKT"], w.env["MAILU_HOOK_OF_SOMEBODY_ELSE"] = "mailu", "x"
	r := w.hook()
	assert.Equal(t, exitOK, r.status)
	assert.Contains(t, r.stderr, "there is no setting MAILU_HOOK_PROJEKT; did you mean MAILU_HOOK_PROJECT?")
	assert.Equal(t, 1, strings.Count(r.stderr, "\n"), "the environment is not only ours")
}
