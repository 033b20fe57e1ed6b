package cli

import (
	"cmp"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"mailu-hook/acme"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
	"mailu-hook/internal/source"
)

const prefix = "MAILU_HOOK_"

// dockerVariables may stand in the configuration file too, because a hook that
// certbot calls has no environment file of its own.
var dockerVariables = []string{"DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION", "DOCKER_CONTEXT", "DOCKER_CONFIG"}

// variable is the environment twin of a flag.
func variable(flag string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// applySettings gives each flag that was not on the command line the value of
// its variable in the environment, else in the configuration file.
func (i *invocation) applySettings(fs *flags, env Environ) (err error) {
	o := i.out
	if i.file, err = readConfig(cmp.Or(o.config, env(variable("config"))), i.all); err != nil {
		return err
	}
	i.settings = func(name string) string { return cmp.Or(env(name), i.file[name]) }
	var wrong error
	fs.VisitAll(func(f *pflag.Flag) {
		value := i.settings(variable(f.Name))
		if f.Changed || value == "" || f.Name == "config" || wrong != nil {
			return
		}
		if err := fs.Set(f.Name, value); err != nil {
			wrong = usageError("%s: %v", variable(f.Name), err)
		}
	})
	if wrong == nil && !slices.Contains(o.formats, o.format) {
		wrong = i.badChoice("output", o.format, o.formats)
	}
	return wrong
}

// environment looks variables up, as os.Environ has them.
func environment(environ []string) Environ {
	values := make(map[string]string, len(environ))
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		values[name] = value
	}
	return func(name string) string { return values[name] }
}

// warnOfMisspelt warns of variables in the environment that are almost settings. In
// the configuration file any that is none is an error; but the environment is not only
// ours.
func (i *invocation) warnOfMisspelt() {
	var known []string
	for _, entry := range i.environ {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if known == nil {
			known = knownVariables(i.all)
		}
		if meant := didYouMean(name, known); meant != "" && !slices.Contains(known, name) {
			i.log.Warn("there is no setting " + say.Plain(name) + meant)
		}
	}
}

// warnOfOpenConfig warns of a configuration file that others than root and this user
// can change: root does what it says.
func (i *invocation) warnOfOpenConfig() {
	path := cmp.Or(i.out.config, i.settings(variable("config")), defaultConfig)
	info, err := os.Stat(path)
	if err != nil || i.file == nil {
		return
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	owned := ok && (stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
	if ok && (!owned || info.Mode()&0o002 != 0 || info.Mode()&0o020 != 0 && stat.Gid != 0) {
		i.log.Warn("others than root can change " + say.Plain(path) + ": chown root:root and chmod 644 it")
	}
}

// badChoice is the error for a value that is not among the choices, and names
// where it came from.
func (i *invocation) badChoice(flag, value string, choices []string) error {
	return usageError("%s: %q is not one of %s", i.origin(flag, value), value, strings.Join(choices, ", "))
}

// origin names where the value of a flag came from.
func (i *invocation) origin(flag, value string) string {
	if i.given(flag, value) {
		return "--" + flag
	}
	return variable(flag)
}

// given reports whether the value of a flag comes from the command line: what a
// setting says is for all runs, whether or not it fits this one.
func (i *invocation) given(flag, value string) bool {
	return value != "" && i.settings(variable(flag)) != value
}

// readConfig reads the configuration file. One that was not asked for by name
// may be missing.
func readConfig(name string, all []command) (map[string]string, error) {
	path := cmp.Or(name, defaultConfig)
	file, err := mailu.ReadVariables(path)
	if name == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, usageError("reading the configuration: %v", err)
	}
	if len(file) == 0 {
		return file, nil
	}
	known := knownVariables(all)
	for key := range file {
		if !slices.Contains(known, key) && !acme.IsProviderVariable(key) {
			return nil, usageError("reading the configuration: %s: there is no setting %s", path, key)
		}
	}
	return file, nil
}

// knownVariables are those of all commands, as one file serves them all.
func knownVariables(all []command) []string {
	known := append(slices.Clone(dockerVariables), source.PasswordVariable)
	for _, cmd := range all {
		fs, _, _ := newFlags(cmd)
		fs.VisitAll(func(f *pflag.Flag) { known = append(known, variable(f.Name)) })
	}
	return known
}

// openLog prepares the log that is asked for.
func (i *invocation) openLog() error {
	o := i.out
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return i.badChoice("log-level", o.logLevel, logLevels)
	}
	options := &slog.HandlerOptions{Level: level}
	switch o.logFormat {
	case "text":
		i.log = slog.New(slog.NewTextHandler(i.stderr, options))
	case "json":
		i.log = slog.New(slog.NewJSONHandler(i.stderr, options))
	default:
		return i.badChoice("log-format", o.logFormat, logFormats)
	}
	return nil
}
