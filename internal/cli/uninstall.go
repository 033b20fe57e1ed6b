package cli

import (
	"context"
	"path/filepath"
	"strings"

	"mailu-hook/hook"
	"mailu-hook/internal/deploy"
	"mailu-hook/internal/report"
)

func uninstallCommand() command {
	return command{
		name:    "uninstall",
		summary: "Give plain files back to the front, and say what else to remove",
		about: `Replaces mailu-hook's links in the certs directory by plain files with the same
certificate and key, makes sure that every port serves them, and removes
.mailu-hook and what was remembered. The certificate stays in place and is
served throughout. It then lists what is left of mailu-hook on this host: hooks,
timers, the configuration. renew's accounts and certificates stay as well.`,
		examples: `  mailu-hook uninstall
  mailu-hook uninstall --dry-run`,
		options: func() action { return &uninstallOptions{} },
		formats: deployFormatNames(),
		failed:  deployFailed,
	}
}

type uninstallOptions struct{ switchOptions }

func (o *uninstallOptions) run(ctx context.Context, i *invocation) (result, error) {
	d, err := o.read(i, deploy.Person)
	if err != nil {
		return nil, err
	}
	r, err := deploy.Uninstall(ctx, d)
	return &uninstalled{deployed{Result: r}, leftovers(o.state)}, err
}

// leftovers lists what else of mailu-hook is on this host.
func leftovers(o stateOptions) (left []string) {
	for _, pattern := range []string{
		filepath.Join(o.certbotDir, "renewal-hooks/deploy/mailu-hook"), "/etc/mailu-hook.conf",
		"/etc/systemd/system/mailu-hook-*", "/etc/systemd/system/mailu-alert@.service", "/etc/cron.d/mailu-hook*", o.stateDir,
	} {
		found, _ := filepath.Glob(pattern) // a pattern that is none, of a strange directory, finds nothing
		left = append(left, found...)
	}
	return left
}

// uninstalled is how an uninstall ended.
type uninstalled struct {
	deployed
	left []string
}

func (u *uninstalled) tell(format string, err error, _ report.Screen) string {
	return inFormat(format, u, err)
}

func (u *uninstalled) inWords(err error) string {
	if err != nil {
		return ""
	}
	var s strings.Builder
	switch u.Outcome {
	case hook.OutcomeSkipped:
		s.WriteString("nothing to do: " + u.Reason + "\n")
	case hook.OutcomeWouldInstall:
		s.WriteString("would put plain files in place of the links in " + u.Front.CertsDir + "\n")
	default:
		s.WriteString("plain files with the same certificate are in " + u.Front.CertsDir + "\n")
	}
	for _, name := range u.left {
		s.WriteString("left for you to remove: " + name + "\n")
	}
	return s.String()
}
