package cli

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"mailu-hook/acme"
)

const (
	defaultConfig = "/etc/mailu-hook.conf"
	prefix        = "MAILU_HOOK_"
)

// dockerVariables may stand in the configuration file too, because a hook that
// certbot calls has no environment file of its own.
var dockerVariables = []string{"DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION"}

// settingFlags declares the flags of every command that takes settings.
func settingFlags(fs *pflag.FlagSet) {
	fs.String("output", "text", "`FORMAT` of the result: text or json")
	fs.String("log-level", "warn", "`LEVEL` from which to log to stderr: debug, info, warn or error")
	fs.String("log-format", "text", "`FORMAT` of the log: text or json")
	fs.String("config", "", "`FILE` with settings (default: "+defaultConfig+", if it exists)")
}

func variable(flag string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// applySettings gives each flag that was not on the command line the value of
// its variable in the environment, else in the configuration file.
func (c *call) applySettings() error {
	file, err := c.readConfig()
	if err != nil {
		return err
	}
	c.file = file
	c.settings = func(name string) string {
		if value := c.env(name); value != "" {
			return value
		}
		return file[name]
	}
	var wrong error
	c.fs.VisitAll(func(f *pflag.Flag) {
		value := c.settings(variable(f.Name))
		if f.Changed || value == "" || f.Name == "config" || wrong != nil {
			return
		}
		if err := c.fs.Set(f.Name, value); err != nil {
			wrong = usageError("%s: %v", variable(f.Name), err)
		}
	})
	if wrong != nil {
		return wrong
	}
	formats := c.formats
	if formats == nil {
		formats = []string{"text", "json"}
	}
	if format := c.text("output"); !slices.Contains(formats, format) {
		return usageError("%s: %q is neither %s", c.origin("output"), format, strings.Join(formats, " nor "))
	}
	return nil
}

// readConfig reads the configuration file. One that was not asked for by name
// may be missing.
func (c *call) readConfig() (map[string]string, error) {
	name := c.text("config")
	if name == "" {
		name = c.env(variable("config"))
	}
	file, err := readVariables(firstNonEmpty(name, defaultConfig))
	if name == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, usageError("reading the configuration: %v", err)
	}
	for key := range file {
		if !slices.Contains(knownVariables(), key) && !acme.IsProviderVariable(key) {
			return nil, usageError("reading the configuration: %s: there is no setting %s", firstNonEmpty(name, defaultConfig), key)
		}
	}
	return file, nil
}

// knownVariables are those of all commands, as one file serves them all.
func knownVariables() []string {
	known := slices.Clone(dockerVariables)
	for _, cmd := range commands() {
		newFlagSet(cmd).VisitAll(func(f *pflag.Flag) { known = append(known, variable(f.Name)) })
	}
	return known
}

// readVariables reads KEY=value lines, as systemd's EnvironmentFile= and
// Compose's env_file do: # begins a comment line, one pair of quotes around a
// value is removed. A line of another form is an error; the others are read all
// the same.
func readVariables(name string) (map[string]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	values := map[string]string{}
	var wrong error
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if key = strings.TrimSpace(key); !ok || key == "" || strings.ContainsAny(key, " \t") {
			wrong = cmp.Or(wrong, fmt.Errorf("%s:%d: not of the form KEY=value", name, n))
			continue
		}
		values[key] = unquote(strings.TrimSpace(value))
	}
	return values, cmp.Or(wrong, lines.Err())
}

func unquote(value string) string {
	if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		return value[1 : n-1]
	}
	return value
}

func (c *call) openLog() error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.text("log-level"))); err != nil {
		return usageError("%s: %q is none of debug, info, warn, error", c.origin("log-level"), c.text("log-level"))
	}
	options := &slog.HandlerOptions{Level: level}
	switch c.text("log-format") {
	case "text":
		c.log = slog.New(slog.NewTextHandler(c.stderr, options))
	case "json":
		c.log = slog.New(slog.NewJSONHandler(c.stderr, options))
	default:
		return usageError("%s: %q is neither text nor json", c.origin("log-format"), c.text("log-format"))
	}
	return nil
}

// origin names where the value of a flag came from.
func (c *call) origin(flag string) string {
	if c.settings(variable(flag)) == c.text(flag) {
		return variable(flag)
	}
	return "--" + flag
}

// text is the value of a flag, "" for one that the command does not have.
func (c *call) text(flag string) string {
	if f := c.fs.Lookup(flag); f != nil {
		return f.Value.String()
	}
	return ""
}

func firstNonEmpty(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
