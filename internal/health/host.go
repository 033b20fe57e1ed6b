package health

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

const (
	clockSlack = time.Minute        // that two clocks may differ
	syncSlack  = 24 * time.Hour     // that sync may not have run
	timerSlack = 3 * 24 * time.Hour // that a timer may be late; see TestTimersFireWellWithinTheirSlack
)

// host judges what is not about one front.
func (j *judgement) host() {
	if j.look.RootsErr != nil {
		j.find(Unknown, RootsUnseen, "install the package ca-certificates, or name the CA certificates: --roots FILE",
			"cannot check whether clients trust the chain: %v", j.look.RootsErr)
	}
	if c := j.look.Engine; c.Seen && c.Ahead.Abs() > clockSlack {
		j.find(Warning, ClockSkew, "set both clocks by NTP (timedatectl)",
			"the clocks of the Docker engine and of this host differ by %s", c.Ahead.Abs().Round(time.Second))
	}
	fronts := j.look.Fronts
	j.sync()
	j.renewals()
	certbots := slices.ContainsFunc(fronts, func(f Front) bool {
		return slices.ContainsFunc(f.Lineages, func(l Lineage) bool { return l.Certbot })
	})
	if certbots && !j.look.Schedule.Unseen {
		j.certbot()
	}
}

// sync judges whether something runs mailu-hook sync. A timer that fires proves
// nothing, because its unit may fail each time: what counts is when sync last ran
// to its end.
func (j *judgement) sync() {
	i := slices.IndexFunc(j.look.Fronts, func(f Front) bool { return f.Directory.Used })
	if i < 0 {
		return
	}
	timer, f := j.look.Schedule.Sync, &j.look.Fronts[i]
	if by := f.Memory.SyncedBy; by != "" {
		timer.By = "mailu-hook " + by
	}
	remedy := "run mailu-hook sync to see why"
	if unit, ok := strings.CutSuffix(timer.By, ".timer"); ok {
		remedy = "systemctl status " + unit + ".service shows why"
	}
	if timer.By == "" && j.look.Schedule.Unseen {
		timer.By = "something on the host" // when it last ran is known all the same
	}
	ran := f.Memory.LastSync
	switch last := f.Memory.Last; {
	case timer.By == "":
		j.find(Warning, SyncTimerMissing, j.look.Setup.run("sync", "mailu-hook"),
			"no timer or cron job on this host runs mailu-hook sync, so a failed deploy would not be retried")
	case !ran.IsZero() && j.look.At.Sub(ran) > syncSlack:
		j.find(Warning, SyncTimerIdle, remedy, "%s should run mailu-hook sync, but sync has not completed since %s", timer.By, say.Time(ran))
	case ran.IsZero() && last != nil && j.look.At.Sub(last.At) > syncSlack:
		j.find(Warning, SyncTimerIdle, remedy, "%s should run mailu-hook sync, but sync has never completed", timer.By)
	}
}

// watched reports whether the agent looks after the fronts, in one of these ways.
func (j *judgement) watched(ways ...string) bool {
	return slices.ContainsFunc(j.look.Fronts, func(f Front) bool { return slices.Contains(ways, f.Memory.SyncedBy) })
}

// renewals judges what mailu-hook renews by itself. As for sync, a timer that fires
// proves nothing: what counts is when a run last looked at the certificate.
func (j *judgement) renewals() {
	i := slices.IndexFunc(j.look.Fronts, func(f Front) bool { return f.Planned != nil })
	if i < 0 {
		return
	}
	by, remedy := j.look.Schedule.Renew.By, "run mailu-hook renew to see why"
	if unit, ok := strings.CutSuffix(by, ".timer"); ok {
		remedy = "systemctl status " + unit + ".service shows why"
	}
	if j.look.Schedule.Unseen {
		by = "something on the host"
	}
	if j.watched(hook.WatchRenew) {
		by = "mailu-hook " + hook.WatchRenew
	}
	switch ran := j.look.Fronts[i].Planned.Ran; {
	case by == "":
		j.find(Warning, RenewTimerMissing, j.look.Setup.run("renew", "mailu-hook-renew"),
			"no timer or cron job on this host runs mailu-hook renew, so no certificate is renewed")
	case !ran.IsZero() && j.look.At.Sub(ran) > timerSlack:
		j.find(Warning, RenewTimerIdle, remedy, "%s should run mailu-hook renew, but renew has not looked at the certificate since %s", by, say.Time(ran))
	}
	for _, f := range j.look.Fronts {
		if p := f.Planned; p != nil && p.Failures > 0 {
			j.find(Warning, RenewFailing, "fix the cause, then run: mailu-hook renew --now", "%s: %s", failures(p.Failures), p.Failure)
		}
	}
}

func failures(n int) string {
	if n == 1 {
		return "the last run of mailu-hook renew failed"
	}
	return fmt.Sprintf("the last %d runs of mailu-hook renew failed", n)
}

func (j *judgement) certbot() {
	s := j.look.Schedule
	switch t := s.Certbot; {
	case t.By == "":
		j.find(Warning, CertbotTimerMissing, "systemctl enable --now certbot.timer", "no timer or cron job on this host runs certbot renew, so no certificate is renewed")
	case !t.Last.IsZero() && j.look.At.Sub(t.Last) > timerSlack:
		j.find(Warning, CertbotTimerIdle, "systemctl status "+t.By+" shows why", "%s should run certbot renew, but has not since %s", t.By, say.Day(t.Last))
	}
	for _, l := range j.deployed() {
		if reason := s.CertbotFailed[filepath.Base(l.Path)]; reason != "" {
			j.find(Warning, CertbotFailing, "run certbot renew; its log is /var/log/letsencrypt/letsencrypt.log",
				"certbot could not renew %s: %s", l.Path, say.Foreign(reason))
		}
		if l.Hooked || j.watched(hook.Watch, hook.WatchRenew) {
			continue
		}
		consequence := "so renewals are not installed"
		if s.Sync.By != "" {
			consequence = "so a renewal is installed only by the next mailu-hook sync"
		}
		hooks := filepath.Join(filepath.Dir(filepath.Dir(l.Path)), "renewal-hooks", "deploy")
		j.find(Warning, CertbotHookMissing, "ln -s "+j.look.Setup.Program+" "+hooks+"/",
			"certbot does not call mailu-hook after renewing %s, %s", l.Path, consequence)
	}
}

// deployed are certbot's lineages that the fronts' certificates come from, each
// once.
func (j *judgement) deployed() []Lineage {
	var all []Lineage
	for _, f := range j.look.Fronts {
		for _, l := range f.Lineages {
			if l.Certbot && l.Last && !slices.ContainsFunc(all, func(o Lineage) bool { return o.Path == l.Path }) {
				all = append(all, l)
			}
		}
	}
	return all
}

// container judges the container as the engine describes it.
func (j *judgement) container(f *Front) {
	switch f.State {
	case "running":
	case "":
		if j.look.EngineDown {
			j.find(Unknown, EngineUnseen, say.HintOf(j.look.NoFront), "%v", j.look.NoFront)
		} else {
			j.find(Critical, FrontMissing, say.HintOf(j.look.NoFront), "%v", j.look.NoFront)
		}
	case "paused":
		j.find(Critical, FrontPaused, "docker unpause "+f.Container, "the front %s is paused and answers nobody", f.Container)
	case "restarting":
		j.find(Critical, FrontRestarting, "docker logs "+f.Container+" shows why", "the front %s keeps restarting", f.Container)
	default:
		j.find(Critical, FrontStopped, "docker start "+f.Container+", or docker compose up -d", "the front %s is not running (%s)", f.Container, f.State)
	}
	if f.Unsuitable != nil {
		j.unsuitable(f)
	}
	if f.Leftover != "" {
		j.find(Warning, ChallengeLeft, "mailu-hook sync removes it", "a run of mailu-hook renew that was killed left %s, where %s still answers its challenge", f.Leftover, f.Container)
	}
	if f.Runs() && f.Health == "unhealthy" {
		j.find(Warning, FrontUnhealthy, "docker inspect -f '{{json .State.Health}}' "+f.Container+" shows what its health check says", "Docker reports the front %s as unhealthy", f.Container)
	}
}

// unsuitable judges a front that a deploy cannot serve. That is critical only if
// the front serves no TLS at all; what it does serve is judged like any other.
func (j *judgement) unsuitable(f *Front) {
	remedy := say.HintOf(f.Unsuitable)
	switch {
	case f.Flavor == "":
		j.find(Critical, NotMailu, remedy, "%v", f.Unsuitable)
	case strings.HasSuffix(f.Flavor, "letsencrypt"):
		j.find(Warning, TLSFlavor, remedy, "%v", f.Unsuitable)
	case f.CheckFlavor() != nil:
		j.find(Critical, TLSFlavor, remedy, "%v", f.Unsuitable)
	default:
		j.find(Warning, CertsMount, remedy, "%v", f.Unsuitable)
	}
}

// readsDirectory reports whether the front serves what is in the certs directory.
func (f *Front) readsDirectory() bool { return f.Unsuitable == nil }

// inside judges the daemons and their pid files.
func (j *judgement) inside(f *Front) {
	if !f.Runs() {
		return
	}
	if f.Inside == nil {
		j.find(Unknown, InsideUnseen, "run mailu-hook as root on the host of the front", "cannot see what runs in %s: %v", f.Container, f.InsideErr)
		return
	}
	var lost []string
	for _, d := range f.Inside.Daemons {
		switch {
		case !d.Runs && d.Name == "nginx":
			j.find(Critical, NginxDown, "docker logs "+f.Container+" shows why; then docker restart "+f.Container, "nginx does not run in %s", f.Container)
		case !d.Runs && f.bare():
		case !d.Runs && len(f.portsOf("dovecot")) > 0:
			j.find(Critical, DovecotDown, "docker restart "+f.Container+" (if there is no certificate, install one first)",
				"dovecot does not run in %s, so ports %s are closed: a front that starts without a usable certificate never starts dovecot", f.Container, numbers(f.portsOf("dovecot")))
		case d.Pid == mailu.PidLost || d.Pid == mailu.PidWrong:
			lost = append(lost, d.PidFile)
		}
	}
	if f.Deploys(j.look.At) { // it pauses the watcher, and restores what that has deleted
		return
	}
	if lost != nil && !f.Inside.Configuring {
		j.find(Warning, PidFileLost, "mailu-hook sync restores them; so does docker restart "+f.Container,
			"pid files are missing or wrong in %s (%s), so nginx -s reload, doveadm reload and the health check fail (Mailu#4080)", f.Container, list(lost))
	}
	if f.Inside.WatcherStopped {
		j.find(Warning, WatcherStopped, "unless a deploy is running: mailu-hook sync resumes it; so does docker restart "+f.Container,
			"the certificate watcher in %s is stopped, probably by a deploy that was killed: files changed by others are not loaded", f.Container)
	}
}
