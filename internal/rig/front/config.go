package main

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"
)

const (
	runDir   = "/run"
	nginxPID = "/var/run/nginx.pid"

	// configDelay makes a run last as long as Mailu's, which starts Python and
	// imports a template engine and a cryptography library before it does
	// anything. Tools that wait for /config.py to be over meet a real wait.
	// FRONT_CONFIG_DELAY overrides it.
	configDelay = 200 * time.Millisecond
)

//go:embed conf
var confFS embed.FS

var templates = template.Must(template.ParseFS(confFS, "conf/*.tmpl"))

// rendered says where each template goes.
var rendered = map[string]string{
	"tls.conf.tmpl":     "/etc/nginx/tls.conf",
	"nginx.conf.tmpl":   "/etc/nginx/nginx.conf",
	"dovecot.conf.tmpl": "/etc/dovecot/proxy.conf",
}

// configure is /config.py: it deletes the pid files of running daemons, renders
// their configuration in place, and sends HUP, which brings no pid file back.
// Hence Mailu#3287 (reload impossible) and Mailu#4080 (permanently unhealthy).
func configure() error {
	delay := configDelay
	if d, err := time.ParseDuration(os.Getenv("FRONT_CONFIG_DELAY")); err == nil {
		delay = d
	}
	time.Sleep(delay)
	dropSecrets()
	removePIDFiles(runDir)

	s, err := newSettings(environ())
	if err != nil {
		return err
	}
	if s.Cert != "" && (!exists(s.Cert) || !exists(s.Key)) {
		fmt.Println("certificate or key file is missing: TLS is off")
		s.TLSError = true
	}
	for name, path := range rendered {
		text, err := render(name, s)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	// killall exits 1 when there is nothing to signal, as at the first start.
	_ = attached("killall", "-q", "-HUP", "nginx", "dovecot").Run()
	return nil
}

func render(name string, s *settings) ([]byte, error) {
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, name, s); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// removePIDFiles deletes the regular files called *.pid below dir, as
// `find dir -xdev -type f -name \*.pid -print -delete` does: links stay, and
// so does what other file systems hold.
func removePIDFiles(dir string) {
	device, ok := deviceOf(dir)
	if !ok {
		return
	}
	// Errors are passed over: daemons create and delete files meanwhile.
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if entry.IsDir() {
			if d, ok := deviceOf(path); !ok || d != device {
				return filepath.SkipDir
			}
			return nil
		}
		if entry.Type().IsRegular() && strings.HasSuffix(path, ".pid") && os.Remove(path) == nil {
			fmt.Println(path)
		}
		return nil
	})
}

func deviceOf(path string) (uint64, bool) {
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return 0, false
	}
	return uint64(st.Dev), true
}

// dropSecrets keeps SECRET_KEY and its like from the daemons' environment.
func dropSecrets() {
	for name := range environ() {
		if strings.HasSuffix(name, "_KEY") {
			os.Unsetenv(name)
		}
	}
}

func environ() map[string]string {
	env := map[string]string{}
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	return env
}

// exists follows links: one that leads nowhere is a missing file.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// attached is a command whose output goes to the container's log.
func attached(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}
