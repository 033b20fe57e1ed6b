package cli

import (
	"cmp"
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/health"
)

func TestWrongUsageExits2WithAHint(t *testing.T) {
	w := newWorld(t)
	empty := w.file("")
	missing := filepath.Join(t.TempDir(), "missing")
	for name, c := range map[string]struct {
		args []string
		env  map[string]string
		want string // in the error
	}{
		"unknown command":       {args: []string{"instal"}, want: `"instal"`},
		"bare, by hand":         {args: nil, want: "RENEWED_LINEAGE is not set"},
		"bare, flags only":      {args: []string{"--dry-run"}, want: "mailu-hook install SOURCE"},
		"relative lineage":      {env: map[string]string{"RENEWED_LINEAGE": "live/x"}, want: "RENEWED_LINEAGE"},
		"flags before command":  {args: []string{"--dry-run", "install"}, want: "a command comes first: mailu-hook"},
		"unknown flag":          {args: []string{"install", "--frobnicate"}, want: "--frobnicate"},
		"unknown shorthand":     {args: []string{"install", "-x"}, want: "-x"},
		"flag without value":    {args: []string{"install", "--lineage"}, want: "--lineage"},
		"bad duration":          {args: []string{"install", "--timeout", "soon"}, want: "--timeout"},
		"no time":               {args: []string{"install", "--lineage", w.lineage, "--timeout", "0s"}, want: "--timeout"},
		"negative time":         {args: []string{"install", "--lineage", w.lineage, "--timeout=-1s"}, want: "--timeout"},
		"bad number":            {args: []string{"install", "--keep", "many"}, want: "--keep"},
		"negative number":       {args: []string{"install", "--lineage", w.lineage, "--keep", "-3"}, want: "--keep"},
		"almost a command":      {args: []string{"instal"}, want: "did you mean install?"},
		"bad format":            {args: []string{"install", "--output", "xml"}, want: "xml"},
		"bad log level":         {args: []string{"install", "--log-level", "loud"}, want: "loud"},
		"bad log format":        {args: []string{"install", "--log-format", "xml"}, want: "xml"},
		"install of nothing":    {args: []string{"install"}, want: "SOURCE"},
		"install of half":       {args: []string{"install", "--cert", "x"}, want: "--key FILE"},
		"install of both":       {args: []string{"install", "--lineage", "x", "--cert", "y", "--key", "z"}, want: "either"},
		"install of two":        {args: []string{"install", "x", "live/x"}, want: "live/x"},
		"install of one twice":  {args: []string{"install", "--lineage", "x", "y"}, want: "either SOURCE or"},
		"a password of files":   {args: []string{"install", "--cert", "x", "--key", "y", "--password-file", "z"}, want: "PKCS#12"},
		"missing configuration": {args: []string{"install", "--config", missing}, want: missing},
		"missing roots":         {args: []string{"install", "--lineage", w.lineage, "--roots", missing}, want: missing},
		"roots without any":     {args: []string{"install", "--lineage", w.lineage, "--roots", empty}, want: empty},
		"bad mode of DANE":      {args: []string{"install", "--lineage", w.lineage, "--dane", "maybe"}, want: "maybe"},
		"resolver by name":      {args: []string{"install", "--lineage", w.lineage, "--resolver", "localhost"}, want: "--resolver"},
		"bad grace":             {args: []string{"install", "--lineage", w.lineage, "--dane-grace", "3"}, want: "--dane-grace"},
		"missing root":          {args: []string{"install", "--lineage", w.lineage, "--dane", "off", "--append-root", missing}, want: missing},
		"root without any":      {args: []string{"install", "--lineage", w.lineage, "--dane", "off", "--append-root", empty}, want: empty},
		"watch of a try":        {args: []string{"watch", "--dry-run"}, want: "sync --dry-run"},
		"watch all the time":    {args: []string{"watch", "--every", "10s"}, want: "at least 1m"},
		"ping of no URL":        {args: []string{"sync", "--ping", "hc-ping.com/secret"}, want: "--ping: it is not an http or https URL"},
		"pages at no address":   {args: []string{"watch", "--serve", "nowhere"}, want: "--serve"},
		"pages that judge":      {args: []string{"watch", "--crit", "soon"}, want: "--crit"},
		"pages that ignore":     {args: []string{"watch", "--ignore", "everything"}, want: "--ignore: there is no finding"},
		"tlsa of both":          {args: []string{"tlsa", "--lineage", "x", "--cert", "y"}, want: "at most one"},
		"tlsa of no host":       {args: []string{"tlsa", "--cert", "x"}, want: "--hostname mail.example.com"},
		"engine without scheme": {args: []string{"install", "--lineage", w.lineage}, env: map[string]string{"DOCKER_HOST": "docker.example.com"}, want: "DOCKER_HOST"},
		"help of nothing known": {args: []string{"help", "instal"}, want: `"instal"`},
		"completion of none":    {args: []string{"completion"}, want: "bash, zsh or fish"},
		"completion of another": {args: []string{"completion", "tcsh"}, want: "bash, zsh or fish"},
	} {
		t.Run(name, func(t *testing.T) {
			world := *w
			world.t = t
			world.env = map[string]string{"DOCKER_HOST": w.env["DOCKER_HOST"], "MAILU_HOOK_CONFIG": w.env["MAILU_HOOK_CONFIG"], "MAILU_HOOK_CERTS_DIR": w.certs}
			for name, value := range c.env {
				world.env[name] = value
			}
			before := world.tree()
			r := world.run(c.args...)
			assert.Equal(t, exitUsage, r.status)
			assert.Empty(t, r.stdout)
			if !strings.HasPrefix(name, "bare") {
				assert.Regexp(t, `^mailu-hook: error: `, r.stderr)
			} else {
				assert.Regexp(t, `^Usage:\n  mailu-hook \[flags\]\n`, r.stderr)
			}
			assert.Contains(t, r.stderr, "\nmailu-hook: hint: ", "stderr: %s", r.stderr)
			assert.Contains(t, r.stderr, c.want)
			assert.Equal(t, before, world.tree(), "nothing is written")
		})
	}
}

func TestHelpNamesTheProgramWhereItLies(t *testing.T) {
	hook := helpText(hookCommand(), commands())
	packaged := string(asInstalled(hook, "/usr/bin/mailu-hook"))
	assert.Contains(t, packaged, "\n  ln -s /usr/bin/mailu-hook /etc/letsencrypt/renewal-hooks/deploy/\n")
	assert.NotContains(t, packaged, "/usr/local/bin/")
	assert.NotContains(t, asInstalled(manual(commands(), ""), "/usr/bin/mailu-hook"), "/usr/local/bin/")
	assert.Equal(t, text(hook), asInstalled(hook, "/home/me/mailu-hook-linux-amd64"))
}

func TestHelpFitsATerminalAndExplains(t *testing.T) {
	w := newWorld(t)
	for _, cmd := range commands() {
		t.Run(cmp.Or(cmd.name, "hook"), func(t *testing.T) {
			args := []string{"--help"}
			if cmd.name != "" {
				args = []string{cmd.name, "--help"}
			}
			r := w.run(args...)
			assert.Equal(t, exitOK, r.status)
			assert.Empty(t, r.stderr)
			assert.Equal(t, r, w.run("help", cmd.name), "help COMMAND says the same as COMMAND --help")
			for line := range strings.Lines(r.stdout) {
				assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimRight(line, "\n")), 80, line)
				assert.Equal(t, strings.TrimRight(line, " \n"), strings.TrimRight(line, "\n"), "trailing blanks")
			}
			assert.Contains(t, r.stdout, "Usage:\n  mailu-hook")
			assert.True(t, strings.HasPrefix(r.stdout, cmd.summary+"."), "one sentence first")
			fs, _, _ := newFlags(cmd)
			fs.VisitAll(func(f *pflag.Flag) {
				assert.Contains(t, r.stdout, "--"+f.Name)
				assert.NotEmpty(t, f.Usage)
			})
			if fs.Lookup("config") == nil {
				return
			}
			for _, want := range []string{"Exit status:\n  0 ", "\n  2 ", "\nExamples:\n", "MAILU_HOOK_CERTS_DIR", "/etc/mailu-hook.conf", "DOCKER_HOST"} {
				assert.Contains(t, r.stdout, want)
			}
		})
	}
}

func TestHelpListsEveryCommandAndHOnItsOwnWorks(t *testing.T) {
	w := newWorld(t)
	r := w.run("help")
	assert.Equal(t, r, w.run("-h"))
	for _, cmd := range commands()[1:] {
		assert.Regexp(t, `(?m)^  `+cmd.name+` +`+cmd.summary+`$`, r.stdout)
	}
}

func TestHelpOfStatusListsTheFindings(t *testing.T) {
	help := newWorld(t).run("help", "status").stdout
	for _, code := range health.CodeNames() {
		assert.Contains(t, help, code)
	}
	assert.Contains(t, help, "sudo")
}

func TestVersionIsOneLine(t *testing.T) {
	r := newWorld(t).run("version")
	assert.Equal(t, exitOK, r.status)
	assert.Regexp(t, `^mailu-hook \S+ \(go1\.\S+\)\n$`, r.stdout)
	assert.Empty(t, r.stderr)
	assert.Equal(t, r, newWorld(t).run("--version"))
}

func TestOutputThatCannotBeWrittenIsAnError(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	w.env["RENEWED_LINEAGE"] = w.lineage
	for _, args := range [][]string{{"version"}, {"completion", "bash"}, {"completion", "zsh"}, {"completion", "fish"}} {
		var stderr strings.Builder
		status := Run(t.Context(), args, w.environ(), nil, full{}, &stderr)
		require.Equal(t, exitError, status, "%q", args)
		assert.Contains(t, stderr.String(), "disk full")
	}
	for _, args := range [][]string{{}, {"--output", "json"}} {
		var stderr strings.Builder
		status := Run(t.Context(), args, w.environ(), nil, full{}, &stderr)
		assert.Equal(t, exitOK, status, "what was installed stays installed")
		assert.Contains(t, stderr.String(), "disk full")
	}
	assert.True(t, w.installed(w.pair))
	var stderr strings.Builder
	assert.Equal(t, 3, Run(t.Context(), []string{"status"}, w.environ(), nil, full{}, &stderr), "never 0 or 2")
}

func TestDeactivatingAnAccountWantsAYes(t *testing.T) {
	r := newRenewer(t).run("account", "deactivate")
	assert.Equal(t, exitUsage, r.status)
	assert.Contains(t, r.stderr, "--yes")
}

// hung is an action that never ends.
type hung struct{ hookOptions }

func (*hung) longest() time.Duration { return -grace }

func (*hung) run(context.Context, *invocation) (result, error) { select {} }

func TestACommandThatHangsIsGivenUp(t *testing.T) {
	i := &invocation{settings: func(string) string { return "" }, stderr: io.Discard, out: &outputOptions{}}
	i.command = hookCommand()
	i.command.options = func() action { return &hung{} }
	i.all = []command{i.command}
	_, err := i.within(t.Context(), nil, func(string) string { return "" })
	require.ErrorIs(t, err, errHung)
	assert.Equal(t, exitPending, exitStatus(err))
}

// lasting is watch, as far as its time is concerned.
type lasting struct{ watchOptions }

func (*lasting) run(context.Context, *invocation) (result, error) {
	time.Sleep(7 * 24 * time.Hour)
	return text(""), nil
}

func TestAnAgentIsNotGivenUpHoweverLongItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &invocation{settings: func(string) string { return "" }, stderr: io.Discard, out: &outputOptions{}}
		i.command = watchCommand()
		i.command.options = func() action { return &lasting{} }
		i.all = []command{i.command}
		_, err := i.within(t.Context(), []string{"watch"}, func(string) string { return "" })
		require.NoError(t, err)
	})
}
