// Command demo shows mailu-hook at work, against real peers on this machine:
// certbot, the ACME server Pebble, and a front container. It issues a first
// certificate and renews it with mailu-hook as the deploy hook; then it breaks
// the front's configuration, renews again, and shows that mailu-hook puts the
// old certificate back. Each claim that it prints was checked; one that does
// not hold ends the demo with exit status 1. Nothing is left behind.
//
// Run it with make demo, which builds ./mailu-hook first. FRONT_IMAGE chooses
// another front image.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"mailu-hook/internal/rig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo: error:", err)
		os.Exit(1)
	}
}

// host is the mail server's name.
const host = "mail.example.com"

// demo is what the steps share.
type demo struct {
	*page
	hook    string // mailu-hook's path
	dir     string // everything that is written
	ca      *rig.CA
	certbot *rig.Certbot
	front   *rig.Front
	shown   leaves // what the ports showed last
}

func run(ctx context.Context, out io.Writer) (err error) {
	d := &demo{page: &page{out: out, blank: true}}
	defer func() { err = errors.Join(err, d.cleanUp()) }()
	for _, step := range []func(context.Context) error{d.prepare, d.issue, d.renew, d.fail, d.repair} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) prepare(ctx context.Context) error {
	root, err := rig.RepositoryRoot()
	if err != nil {
		return err
	}
	d.hook = filepath.Join(root, "mailu-hook")
	if _, err := os.Stat(d.hook); err != nil {
		return fmt.Errorf("%w (make build builds it)", err)
	}
	if err := rig.RemoveLeftovers(ctx); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "demo"); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	d.shorten(d.dir, "$DEMO")
	d.shorten(d.hook, "mailu-hook")
	if d.ca, err = rig.StartCA(ctx, filepath.Join(d.dir, "pebble"), rig.CAOptions{}); err != nil {
		return err
	}
	roots, err := d.ca.Roots(ctx)
	if err != nil {
		return err
	}
	// Pebble's root is of this minute, so that no system can trust it.
	d.certbot = &rig.Certbot{Dir: d.dir, CA: d.ca, Env: []string{"MAILU_HOOK_ROOTS=" + roots, "MAILU_HOOK_DANE=off"}}
	d.title("mailu-hook, for certbot and Mailu")
	d.text("ACME server  Pebble at " + d.ca.DirectoryURL)
	d.text("front        image " + rig.FrontImage())
	d.text("mailu-hook   " + d.version(ctx))
	return nil
}

func (d *demo) version(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, d.hook, "version").Output()
	if err != nil {
		return err.Error()
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimPrefix(first, "mailu-hook ")
}

// issue makes the first certificate, and puts it in place as Mailu's
// documentation says: with cp, before the front starts.
func (d *demo) issue(ctx context.Context) error {
	d.title("1. The first certificate, by hand")
	d.command("certbot certonly --standalone --domain " + host)
	if _, _, err := d.certbot.Certonly(ctx, host, "", []string{host}); err != nil {
		return err
	}
	mailu := filepath.Join(d.dir, "mailu")
	if err := os.MkdirAll(filepath.Join(mailu, "certs"), 0o755); err != nil {
		return fmt.Errorf("making the certs directory: %w", err)
	}
	for _, file := range [][2]string{{"fullchain.pem", "cert.pem"}, {"privkey.pem", "key.pem"}} {
		from := filepath.Join(d.certbot.Live(host), file[0])
		to := filepath.Join(mailu, "certs", file[1])
		d.command("cp " + from + " " + to)
		if out, err := exec.CommandContext(ctx, "cp", from, to).CombinedOutput(); err != nil {
			return fmt.Errorf("copying %s: %w: %s", file[0], err, out)
		}
	}
	d.command("docker run --label com.docker.compose.service=front ... " + rig.FrontImage())
	var err error
	if d.front, err = rig.StartFront(ctx, rig.FrontOptions{Root: mailu, HealthEvery: 2 * time.Second}); err != nil {
		return err
	}
	if err := d.chooseFront(ctx); err != nil {
		return err
	}
	return errors.Join(d.front.WaitServing(ctx), d.front.WaitHealthy(ctx), d.look(ctx, "before"))
}

// chooseFront names our front to mailu-hook where it is not the only one:
// without a project it would refuse to guess. Nor must a configuration of
// this host reach into the demo.
func (d *demo) chooseFront(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "docker", "ps", "--all", "--quiet",
		"--filter", "label=com.docker.compose.service=front").Output()
	if err != nil {
		return fmt.Errorf("counting the fronts: %w", err)
	}
	if strings.Count(string(out), "\n") > 1 {
		d.setting("MAILU_HOOK_PROJECT=" + d.front.Project)
	}
	if _, err := os.Stat("/etc/mailu-hook.conf"); err == nil {
		empty := filepath.Join(d.dir, "mailu-hook.conf")
		if err := os.WriteFile(empty, nil, 0o600); err != nil {
			return fmt.Errorf("making an empty configuration: %w", err)
		}
		d.setting("MAILU_HOOK_CONFIG=" + empty)
	}
	return nil
}

// setting gives mailu-hook one more variable, and says so.
func (d *demo) setting(variable string) {
	d.certbot.Env = append(d.certbot.Env, variable)
	d.command("export " + variable)
}

func (d *demo) renew(ctx context.Context) error {
	d.title("2. certbot renews, mailu-hook deploys")
	before := d.shown
	if err := d.renewal(ctx); err != nil {
		return err
	}
	if err := d.look(ctx, "after"); err != nil {
		return err
	}
	return errors.Join(
		d.claim("every port serves the renewed certificate", d.renewed(before)),
		d.claim("the front is healthy", d.healthy(ctx)),
	)
}

// fail breaks what includes nginx's configuration, as a mistyped override
// does, and renews once more.
func (d *demo) fail(ctx context.Context) error {
	d.title("3. A failure being caught: a broken override for nginx")
	before := d.shown
	d.command("echo 'no such directive;' > " + d.override())
	if err := os.WriteFile(d.override(), []byte("no such directive;\n"), 0o644); err != nil {
		return fmt.Errorf("writing the override: %w", err)
	}
	if err := d.renewal(ctx); err != nil {
		return err
	}
	if err := d.look(ctx, "after"); err != nil {
		return err
	}
	return errors.Join(
		d.claim("mailu-hook exited 4; certbot calls that a success", d.said("reported error code 4")),
		d.claim("every port still serves the old certificate", same(before, d.shown)),
		d.claim("the files are a pair: the old one", d.installed(before)),
		d.claim("the front is healthy", d.healthy(ctx)),
	)
}

// repair shows what an administrator does after step 3.
func (d *demo) repair(ctx context.Context) error {
	d.title("4. The override is fixed, and the certificate installed")
	before := d.shown
	d.command("rm " + d.override())
	if err := os.Remove(d.override()); err != nil {
		return fmt.Errorf("removing the override: %w", err)
	}
	args := []string{"install", "--lineage", d.certbot.Live(host)}
	d.command("mailu-hook " + strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, d.hook, args...)
	cmd.Env = append(os.Environ(), d.certbot.Env...)
	said, err := cmd.CombinedOutput()
	d.quote(string(said))
	if err != nil {
		return fmt.Errorf("installing: %w", err)
	}
	if err := d.look(ctx, "after"); err != nil {
		return err
	}
	return errors.Join(
		d.claim("every port serves the renewed certificate", d.renewed(before)),
		d.claim("the front is healthy", d.healthy(ctx)),
	)
}

func (d *demo) override() string {
	return filepath.Join(d.front.Root, "overrides", "nginx", "broken.conf")
}

// renewal runs certbot as its timer does, with mailu-hook for a hook, and
// prints what certbot passes on of it. certbot succeeds whatever the hook did.
func (d *demo) renewal(ctx context.Context) error {
	d.command("certbot renew --force-renewal --deploy-hook " + d.hook)
	stdout, stderr, err := d.certbot.Renew(ctx, d.hook)
	if err != nil {
		return err
	}
	d.quote(ofHook(stderr + "\n" + stdout))
	return nil
}

// ofHook picks from certbot's output what it says of the hook, and its own
// verdict.
func ofHook(output string) string {
	var picked strings.Builder
	inHook := false
	for line := range strings.Lines(output) {
		inHook = strings.HasPrefix(line, "Hook '") || inHook && strings.HasPrefix(line, " ")
		if inHook || strings.HasPrefix(line, "Congratulations") {
			picked.WriteString(strings.TrimRight(line, ": \n") + "\n")
		}
	}
	return picked.String()
}

// cleanUp removes all of it; it works after a Ctrl-C too.
func (d *demo) cleanUp() error {
	var err error
	if d.front != nil {
		err = d.front.Remove()
	}
	if d.ca != nil {
		d.ca.Close()
	}
	if d.dir != "" {
		err = errors.Join(err, os.RemoveAll(d.dir))
	}
	return err
}

// look asks every port what it serves, and prints it.
func (d *demo) look(ctx context.Context, when string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	shown, err := d.front.Leaves(ctx)
	if err != nil {
		return err
	}
	d.shown = shown
	d.table(when, shown)
	return nil
}
