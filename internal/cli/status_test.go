package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"mailu-hook/internal/mint"
	"mailu-hook/internal/report"
)

func TestScreenIsColoredOnATerminalOnlyAndNeverWithNOCOLOR(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	for name, c := range map[string]struct {
		env     map[string]string
		columns uint16
		color   bool
	}{
		"a terminal":            {nil, 100, true},
		"NO_COLOR":              {map[string]string{"NO_COLOR": "1"}, 100, false},
		"a terminal without it": {map[string]string{"TERM": "dumb"}, 100, false},
		"a narrow terminal":     {nil, 60, true},
		"of no known width":     {nil, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			out := onTerminal(t, c.columns, func(tty *os.File) {
				Run(t.Context(), []string{"status"}, append(w.environ(), environOf(c.env)...), nil, tty, tty)
			})
			assert.Contains(t, out, "CRITICAL")
			assert.Equal(t, c.color, strings.Contains(out, "\x1b[1;31mCRITICAL"))
			width := int(c.columns)
			if width == 0 {
				width = report.Usual
			}
			longest := 0
			for line := range strings.Lines(regexp.MustCompile(`\x1b\[[\d;]*m`).ReplaceAllString(out, "")) {
				if strings.Contains(line, w.dir) { // paths are left whole
					continue
				}
				longest = max(longest, len([]rune(strings.TrimRight(line, "\r\n"))))
			}
			assert.LessOrEqual(t, longest, width)
			assert.Greater(t, longest, min(width, 80)-20, "it is used")
		})
	}
	assert.NotContains(t, w.run("status").stdout, "\x1b", "no terminal")
}

// onTerminal returns what work writes to a terminal of so many columns.
func onTerminal(t *testing.T, columns uint16, work func(tty *os.File)) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	defer master.Close()
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	tty, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: 24}))
	out := make(chan string)
	go func() {
		var all []byte
		for buffer := make([]byte, 4096); ; {
			n, err := master.Read(buffer)
			all = append(all, buffer[:n]...)
			if err != nil { // EIO, once nobody has the other end open
				out <- string(all)
				return
			}
		}
	}()
	work(tty)
	tty.Close()
	return <-out
}

func TestSettingsOfOneFrontAreNotThoseOfSeveral(t *testing.T) {
	w := newWorld(t) // MAILU_HOOK_CERTS_DIR is set
	other := container{"other-front-1", "other", "exited", t.TempDir(), map[string]string{"TLS_FLAVOR": "cert", "HOSTNAMES": "mail.example.org"}}
	w.engine(w.stopped(), other)
	doc := w.run("status", "--output", "json").document(t)
	fronts := doc["fronts"].([]any)
	require.Len(t, fronts, 2)
	for i, want := range []string{w.certs, other.certs} {
		assert.Equal(t, want, fronts[i].(map[string]any)["certs_dir"])
	}
	require.NoError(t, os.WriteFile(filepath.Join(w.certs, "cert.pem"), w.pair.Chain, 0o600))
	assert.Contains(t, w.run("status", "--output", "nagios").stdout, " | mailu-front-1_installed=", "labels are told apart")
	assert.Equal(t, 3, w.run("status", "--container", "other-front-1").status, "the directory that was set is not the one it mounts")
}

func TestMistakeOfTheCallerIsUnknownAndNotCritical(t *testing.T) {
	w := newWorld(t)
	for _, args := range [][]string{
		{"--frobnicate"}, {"extra"}, {"--warn", "soon"}, {"--warn", "20%", "--crit", "50%"}, {"--warn", "7d", "--crit", "20d"}, {"--dane", "perhaps"}, {"--crit", "-1"}, {"--timeout", "0s"}, {"--ignore", "everything"},
		{"--roots", "/nonexistent"}, {"--config", "/nonexistent"}, {"--log-level", "loud"}, {"--textfile", "/tmp/mailu.txt"},
	} {
		r := w.run(append([]string{"status"}, args...)...)
		assert.Equal(t, 3, r.status, "%q", args)
		assert.Contains(t, r.stderr, "mailu-hook: error: ", "%q", args)
		doc := w.run(append([]string{"status", "--output", "json"}, args...)...).document(t)
		assert.Equal(t, "unknown", doc["status"], "%q", args)
	}
	r := w.run("status", "--output", "yaml")
	assert.Equal(t, 3, r.status)
	w.env["DOCKER_HOST"] = "nonsense"
	assert.Equal(t, 3, w.run("status").status)
}

func TestMetricsThatCannotBeWrittenAreAnError(t *testing.T) {
	w := newWorld(t)
	w.engine(w.stopped())
	r := w.run("status", "--textfile", filepath.Join(w.dir, "none", "mailu.prom"))
	assert.Equal(t, 2, r.status)
	assert.Contains(t, r.stdout, "UNKNOWN   writing the metrics", "nobody may take old metrics for new ones")
	assert.Contains(t, r.stdout, "is not running", "what was seen is reported anyway")
	dir := filepath.Join(w.dir, "mailu.prom")
	require.NoError(t, os.Mkdir(dir, 0o755))
	doc := w.run("status", "--output", "json", "--ignore", "front_stopped,file_missing", "--textfile", dir).document(t)
	assert.Equal(t, "unknown", doc["status"])
	entries, err := os.ReadDir(w.dir)
	require.NoError(t, err)
	assert.Len(t, entries, 3, "no litter: %v", entries) // certs, letsencrypt, mailu.prom
}

func TestOnlyStatusHasItsFormats(t *testing.T) {
	w := newWorld(t)
	for _, cmd := range commands() {
		fs, _, _ := newFlags(cmd)
		if fs.Lookup("output") == nil || cmd.name == "status" {
			continue
		}
		r := w.run(slices.DeleteFunc([]string{cmd.name, "--output", "nagios"}, func(arg string) bool { return arg == "" })...)
		assert.Equal(t, exitUsage, r.status, cmd.name)
		assert.Contains(t, r.stderr, `"nagios" is not one of text, json`)
	}
	fs, _, _ := newFlags(statusCommand())
	fs.VisitAll(func(f *pflag.Flag) { assert.Equal(t, f.DefValue, f.Value.String(), f.Name) })
}

func TestHostileCertificateDoesNoHarmInAStatus(t *testing.T) {
	ca, err := mint.NewCA(mint.CAOptions{Name: "Evil | '" + controls})
	require.NoError(t, err)
	w := newWorldOf(t, ca, mint.Leaf{Names: []string{"x" + strings.ReplaceAll(controls, "\u202e", ""), "-----BEGIN PRIVATE KEY-----"}})
	c := w.stopped()
	c.name, c.env["HOSTNAMES"] = "front|'\x1b[31m", "evil"+controls+".example.com"
	require.NoError(t, os.WriteFile(filepath.Join(w.certs, "cert.pem"), w.pair.Chain, 0o600))
	require.NoError(t, os.Symlink("/evil"+strings.ReplaceAll(controls, "\x00", ""), filepath.Join(w.certs, "key.pem")))
	for _, engine := range []func(){func() {}, func() { w.engine(c) }} {
		engine()
		for _, output := range []string{"text", "json", "prometheus", "nagios"} {
			r := w.run("status", "--output", output, "--lineage", w.lineage, "--timeout", "3s")
			assert.NotZero(t, r.status)
			if output == "nagios" {
				assert.Equal(t, 1, strings.Count(r.stdout, "|"))
			}
		}
	}
}
