package health

import (
	"slices"
	"strings"
	"time"

	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

const (
	clockSlack = time.Minute        // between two clocks that nobody keeps together
	timerSlack = 3 * 24 * time.Hour // certbot's timer fires twice a day, that of sync four times an hour
)

// host judges what is not about one front.
func (j *judgement) host() {
	if j.look.RootsErr != nil {
		j.find(Unknown, RootsUnseen, "install the package ca-certificates, or name the roots with --roots FILE",
			"whether clients trust the chain cannot be told: %v", j.look.RootsErr)
	}
	if c := j.look.Engine; c.Seen && c.Ahead.Abs() > clockSlack {
		j.find(Warning, ClockSkew, "set both clocks by NTP (timedatectl)",
			"the clock of the Docker engine and the one of this host differ by %s", c.Ahead.Abs().Round(time.Second))
	}
	fronts := j.look.Fronts
	if slices.ContainsFunc(fronts, func(f Front) bool { return f.Directory.Used }) {
		j.timer(j.look.Schedule.Sync, SyncTimerMissing, SyncTimerIdle, "mailu-hook sync",
			"systemctl enable --now mailu-hook-sync.timer, or cp examples/cron/mailu-hook /etc/cron.d/",
			"a deploy that fails is never finished")
	}
	j.renewals()
	certbots := slices.ContainsFunc(fronts, func(f Front) bool {
		return slices.ContainsFunc(f.Lineages, func(l Lineage) bool { return l.Certbot })
	})
	if certbots {
		j.certbot()
	}
}

func (j *judgement) timer(t Timer, missing, idle Code, what, remedy, consequence string) {
	switch {
	case t.By == "":
		j.find(Warning, missing, remedy, "nothing on this host runs %s from time to time: %s", what, consequence)
	case !t.Last.IsZero() && j.look.At.Sub(t.Last) > timerSlack:
		j.find(Warning, idle, "systemctl status "+t.By+" tells why", "%s should run %s, and has not since %s", t.By, what, day(t.Last))
	}
}

// renewals judges what mailu-hook renews by itself.
func (j *judgement) renewals() {
	if !slices.ContainsFunc(j.look.Fronts, func(f Front) bool { return f.Planned != nil }) {
		return
	}
	j.timer(j.look.Schedule.Renew, RenewTimerMissing, RenewTimerIdle, "mailu-hook renew",
		"systemctl enable --now mailu-hook-renew.timer, or cp examples/cron/mailu-hook-renew /etc/cron.d/",
		"no certificate is renewed")
	for _, f := range j.look.Fronts {
		if p := f.Planned; p != nil && p.Failures > 0 {
			j.find(Warning, RenewFailing, "mend it, and try at once: mailu-hook renew --now", "mailu-hook renew has failed %d times in a row: %s", p.Failures, p.Failure)
		}
	}
}

func (j *judgement) certbot() {
	s := j.look.Schedule
	j.timer(s.Certbot, CertbotTimerMissing, CertbotTimerIdle, "certbot renew",
		"systemctl enable --now certbot.timer", "no certificate is renewed")
	if s.CertbotFailed != "" {
		j.find(Warning, CertbotFailing, "certbot renew tells why; the log is /var/log/letsencrypt/letsencrypt.log",
			"certbot's last run failed: %s", say.Foreign(s.CertbotFailed))
	}
	if s.Sync.By != "" { // which finds a renewal by itself
		return
	}
	for _, f := range j.look.Fronts {
		for _, l := range f.Lineages {
			if l.Certbot && l.Last && !l.Hooked {
				j.find(Warning, CertbotHookMissing, "certbot renew --force-renewal --deploy-hook mailu-hook, once; or deploy-hook = mailu-hook in cli.ini",
					"certbot is not told to call mailu-hook after it has renewed %s", l.Path)
			}
		}
	}
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
		j.find(Critical, FrontPaused, "docker unpause "+f.Container, "the front %s is paused: it answers nobody", f.Container)
	case "restarting":
		j.find(Critical, FrontRestarting, "docker logs "+f.Container+" tells why", "the front %s is restarting over and over", f.Container)
	default:
		j.find(Critical, FrontStopped, "docker start "+f.Container+", or docker compose up -d", "the front %s is not running (%s)", f.Container, f.State)
	}
	if f.Unsuitable != nil {
		j.unsuitable(f)
	}
	if f.Runs() && f.Health == "unhealthy" {
		j.find(Warning, FrontUnhealthy, "docker inspect -f '{{json .State.Health}}' "+f.Container+" tells what its check says", "Docker holds the front %s to be unhealthy", f.Container)
	}
}

// unsuitable: no deploy reaches the front. That is as bad as what it serves,
// unless that is nothing.
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

// readsDirectory: what is in the certs directory is what the front serves.
func (f *Front) readsDirectory() bool { return f.Unsuitable == nil }

// inside judges the daemons and their pid files.
func (j *judgement) inside(f *Front) {
	if !f.Runs() {
		return
	}
	if f.Inside == nil {
		j.find(Unknown, InsideUnseen, "run mailu-hook as root, on the host of the front", "what runs in %s cannot be seen: %v", f.Container, f.InsideErr)
		return
	}
	var lost []string
	for _, d := range f.Inside.Daemons {
		switch {
		case !d.Runs && d.Name == "nginx":
			j.find(Critical, NginxDown, "docker logs "+f.Container+" tells why; docker restart "+f.Container, "nginx does not run in %s", f.Container)
		case !d.Runs && len(f.portsOf("dovecot")) > 0:
			j.find(Critical, DovecotDown, "docker restart "+f.Container+" (first install a certificate, if there is none)",
				"dovecot does not run in %s, so ports %s are closed: a front that starts without a usable certificate never starts it", f.Container, numbers(f.portsOf("dovecot")))
		case d.Pid == mailu.PidLost || d.Pid == mailu.PidWrong:
			lost = append(lost, d.PidFile)
		}
	}
	if lost != nil && !f.Inside.Configuring {
		j.find(Warning, PidFileLost, "mailu-hook sync puts them back; docker restart "+f.Container+" does too",
			"%s in %s: lost or wrong, so reloads by nginx -s and doveadm fail, and so does the health check (Mailu#4080)", list(lost), f.Container)
	}
	if f.Inside.WatcherStopped {
		j.find(Warning, WatcherStopped, "unless a deploy is under way: mailu-hook sync sets it going; docker restart "+f.Container+" does too",
			"the watcher of the certificate files in %s is stopped, as a deploy that was killed leaves it: files that somebody else changes are not loaded", f.Container)
	}
}
