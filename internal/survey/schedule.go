package survey

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"mailu-hook/hook"
	"mailu-hook/internal/health"
	"mailu-hook/internal/source"
	"mailu-hook/reload"
)

// Host is the file system to look at; the zero value is this host's own.
type Host struct{ Root string }

func (h Host) path(name string) string { return filepath.Join("/", h.Root, name) }

// Schedule finds out what runs certbot, mailu-hook sync and mailu-hook renew, from
// unit files and crontabs: no other program is run. What cannot be read counts as
// absent.
func (h Host) Schedule() health.Schedule {
	if h.Root == "" && reload.Contained() {
		return health.Schedule{Unseen: true}
	}
	return health.Schedule{
		Certbot:       h.timer([]string{"certbot.timer", "snap.certbot.renew.timer", "certbot-renew.timer"}, "certbot", "renew"),
		Sync:          h.timer([]string{"mailu-hook-sync.timer"}, "mailu-hook", "sync"),
		Renew:         h.timer([]string{"mailu-hook-renew.timer"}, "mailu-hook renew", ""),
		CertbotFailed: h.certbotFailures(),
	}
}

// timer is the first of units that is enabled, or else the first crontab that runs
// program with word. Debian's crontab for certbot does nothing where systemd runs,
// which it tests for by /run/systemd/system.
func (h Host) timer(units []string, program, word string) health.Timer {
	systemd := h.systemd()
	for _, unit := range units {
		if !systemd || !h.enabled(unit) {
			continue
		}
		t := health.Timer{By: unit}
		if info, err := os.Stat(h.path("/var/lib/systemd/timers/stamp-" + unit)); err == nil { // kept for Persistent=true
			t.Last = info.ModTime()
		}
		return t
	}
	for _, file := range h.crontabs() {
		runs := anyLine(file, func(line string) bool {
			return !strings.HasPrefix(line, "#") && strings.Contains(line, program) && strings.Contains(line, word) &&
				!(systemd && strings.Contains(line, "/run/systemd/system"))
		})
		if runs {
			return health.Timer{By: strings.TrimPrefix(file, strings.TrimSuffix(h.path("/"), "/"))}
		}
	}
	return health.Timer{}
}

func (h Host) systemd() bool { return h.exists("/run/systemd/system") }

func (h Host) exists(name string) bool {
	_, err := os.Lstat(h.path(name))
	return err == nil
}

func (h Host) enabled(unit string) bool { return h.known("timers.target.wants/" + unit) }

// known reports whether systemd finds a file of its own.
func (h Host) known(file string) bool {
	return slices.ContainsFunc([]string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"},
		func(dir string) bool { return h.exists(filepath.Join(dir, file)) })
}

func (h Host) crontabs() []string {
	files := []string{h.path("/etc/crontab")}
	for _, pattern := range []string{"/etc/cron.d/*", "/etc/cron.hourly/*", "/etc/cron.daily/*", "/etc/cron.weekly/*", "/var/spool/cron/crontabs/*", "/var/spool/cron/*", "/etc/crontabs/*"} {
		found, _ := filepath.Glob(h.path(pattern)) // the patterns are well formed
		files = append(files, found...)
	}
	return files
}

// What certbot logs: a lineage that renew looks at, one that it saves, one that it
// could not renew (since 1.0, and before).
var (
	certbotLooks = regexp.MustCompile(`(?:Processing|Writing new config) \S*/renewal/(\S+)\.conf`)
	certbotFails = regexp.MustCompile(`Failed to renew certificate (\S+) with error: (.*)|Attempting to renew cert \((\S+)\) from \S+ produced an unexpected error: (.*)`)
)

// certbotFailures reads from certbot's log which lineages could not be renewed
// when certbot last looked at them, and why. With max-log-backups = 0, as Debian
// has it, the log holds many runs.
func (h Host) certbotFailures() map[string]string {
	failures := map[string]string{}
	anyLine(h.path("/var/log/letsencrypt/letsencrypt.log"), func(line string) bool {
		if looks := certbotLooks.FindStringSubmatch(line); looks != nil {
			delete(failures, looks[1])
		}
		if fails := certbotFails.FindStringSubmatch(line); fails != nil {
			failures[fails[1]+fails[3]] = fails[2] + fails[4]
		}
		return false
	})
	return failures
}

// Certbot adds to a lineage what certbot has configured for it: whether it is
// certbot's, and whether its renewal calls mailu-hook.
func Certbot(l *health.Lineage) {
	config := filepath.Dir(filepath.Dir(l.Path)) // of CONFIG/live/NAME
	renewal := filepath.Join(config, "renewal", filepath.Base(l.Path)+".conf")
	if _, err := os.Stat(renewal); err != nil {
		return
	}
	l.Certbot = true
	calls := func(line string) bool { return strings.Contains(line, "mailu-hook") && !strings.HasPrefix(line, "#") }
	hooks, _ := filepath.Glob(filepath.Join(config, "renewal-hooks", "deploy", "*"))
	l.Hooked = slices.ContainsFunc(append(hooks, renewal, filepath.Join(config, "cli.ini")), func(file string) bool {
		return filepath.Base(file) == "mailu-hook" || anyLine(file, calls)
	})
}

// available is the newest of certbot's lineages that covers the main hostname, ""
// if there is none.
func available(ctx context.Context, certbot string, hostnames []string) string {
	dirs, _ := filepath.Glob(filepath.Join(certbot, "live", "*"))
	var newest health.Lineage
	for _, dir := range dirs {
		l := Lineage(ctx, source.At(dir), hostnames)
		covers := l.Err == nil && len(hostnames) > 0 && len(hook.Missing(l.Chain[0], hostnames[:1])) == 0
		if covers && (newest.Path == "" || l.Chain[0].NotBefore.After(newest.Chain[0].NotBefore)) {
			newest = l
		}
	}
	return newest.Path
}

const maxLines = 1 << 16

// anyLine reports whether a line of a text file, without surrounding spaces, is as
// wanted.
func anyLine(file string, wanted func(line string) bool) bool {
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 16<<20))
	for range maxLines {
		if !lines.Scan() {
			return false
		}
		if wanted(strings.TrimSpace(lines.Text())) {
			return true
		}
	}
	return false
}
