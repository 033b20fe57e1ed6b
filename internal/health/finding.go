package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity is how bad a finding is, in the terms and numbers of monitoring
// plugins.
type Severity int

// The severities.
const (
	OK       Severity = 0
	Warning  Severity = 1
	Critical Severity = 2
	Unknown  Severity = 3
)

func (s Severity) String() string {
	return [...]string{"ok", "warning", "critical", "unknown"}[s]
}

// rank orders severities. What could not be seen may be bad, so it ranks above a
// warning.
func (s Severity) rank() int {
	return [...]int{OK: 0, Warning: 1, Unknown: 2, Critical: 3}[s]
}

// Finding is one thing that is wrong or could not be seen.
type Finding struct {
	Severity Severity
	Code     Code   // never renamed
	Front    string // the container, "" when it is about the host
	Text     string // one sentence that names the fact
	Remedy   string
}

// Code names a kind of finding.
type Code string

// The codes, by what they are about.
const (
	EngineUnseen    Code = "engine_unseen"
	FrontMissing    Code = "front_missing"
	FrontStopped    Code = "front_stopped"
	FrontPaused     Code = "front_paused"
	FrontRestarting Code = "front_restarting"
	FrontTLSOff     Code = "front_tls_off"
	FrontUnhealthy  Code = "front_unhealthy"
	NotMailu        Code = "not_mailu"
	TLSFlavor       Code = "tls_flavor"
	CertsMount      Code = "certs_mount"
	InsideUnseen    Code = "inside_unseen"
	NginxDown       Code = "nginx_down"
	DovecotDown     Code = "dovecot_down"
	PidFileLost     Code = "pid_file_lost"
	WatcherStopped  Code = "watcher_stopped"
	ChallengeLeft   Code = "challenge_left"

	PortSilent   Code = "port_silent"
	PortsUnseen  Code = "ports_unseen"
	PairMismatch Code = "pair_mismatch"
	OutOfStep    Code = "out_of_step"
	NotServed    Code = "not_served"

	CertExpired      Code = "cert_expired"
	CertExpiring     Code = "cert_expiring"
	CertNotYetValid  Code = "cert_not_yet_valid"
	NamesMissing     Code = "names_missing"
	HostnamesUnknown Code = "hostnames_unknown"
	ChainIncomplete  Code = "chain_incomplete"
	ChainUntrusted   Code = "chain_untrusted"
	RootsUnseen      Code = "roots_unseen"
	CertUnread       Code = "cert_unread"

	CertsDirUnseen  Code = "certs_dir_unseen"
	InstalledUnseen Code = "installed_unseen"
	FileMissing     Code = "file_missing"
	LinkDangling    Code = "link_dangling"
	LinkOutward     Code = "link_outward"
	CertDamaged     Code = "cert_damaged"
	NotAdopted      Code = "not_adopted"
	LinksReplaced   Code = "links_replaced"
	WrittenThrough  Code = "written_through"

	StateUnseen    Code = "state_unseen"
	StateDamaged   Code = "state_damaged"
	DeployPending  Code = "deploy_pending"
	DeployFailed   Code = "deploy_failed"
	NodeBehind     Code = "node_behind"
	NodeDown       Code = "node_down"
	LineageNewer   Code = "lineage_newer"
	LineageGone    Code = "lineage_gone"
	LineageUnseen  Code = "lineage_unseen"
	LineageDamaged Code = "lineage_damaged"

	TLSAMismatch Code = "tlsa_mismatch"
	TLSAUnseen   Code = "tlsa_unseen"

	ClockSkew           Code = "clock_skew"
	CertbotTimerMissing Code = "certbot_timer_missing"
	CertbotTimerIdle    Code = "certbot_timer_idle"
	CertbotFailing      Code = "certbot_failing"
	CertbotHookMissing  Code = "certbot_hook_missing"
	SyncTimerMissing    Code = "sync_timer_missing"
	RenewTimerMissing   Code = "renew_timer_missing"
	RenewTimerIdle      Code = "renew_timer_idle"
	RenewFailing        Code = "renew_failing"
	SyncTimerIdle       Code = "sync_timer_idle"

	// LookFailed means that there was no look, because the command line or the
	// configuration is wrong. TextfileFailed means that the metrics others read are
	// old. These two cannot be ignored.
	LookFailed     Code = "look_failed"
	TextfileFailed Code = "textfile_failed"
)

// Codes are those that Judge can return.
var Codes = []Code{
	EngineUnseen, FrontMissing, FrontStopped, FrontPaused, FrontRestarting, FrontTLSOff, FrontUnhealthy, NotMailu, TLSFlavor,
	CertsMount, InsideUnseen, NginxDown, DovecotDown, PidFileLost, WatcherStopped, ChallengeLeft, PortSilent, PortsUnseen, PairMismatch, OutOfStep, NotServed,
	CertExpired, CertExpiring, CertNotYetValid, NamesMissing, HostnamesUnknown, ChainIncomplete, ChainUntrusted, RootsUnseen, CertUnread,
	CertsDirUnseen, InstalledUnseen, FileMissing, LinkDangling, LinkOutward, CertDamaged, NotAdopted, LinksReplaced, WrittenThrough,
	StateUnseen, StateDamaged, DeployPending, DeployFailed, NodeBehind, NodeDown, LineageNewer, LineageGone, LineageUnseen, LineageDamaged,
	TLSAMismatch, TLSAUnseen, ClockSkew, CertbotTimerMissing, CertbotTimerIdle, CertbotFailing, CertbotHookMissing, SyncTimerMissing, SyncTimerIdle,
	RenewTimerMissing, RenewTimerIdle, RenewFailing,
}

// CodeNames are the codes as text.
func CodeNames() []string {
	var names []string
	for _, code := range Codes {
		names = append(names, string(code))
	}
	return names
}

// Options of a judgement. The zero value finds a certificate only once it has
// expired.
type Options struct {
	Warn, Crit Threshold
	Ignore     []Code // findings to leave out
	// Pinned is the only lineage that may replace another unasked; "" for any.
	Pinned string
	// RequireDANE: TLSA records that cannot be checked are a finding even where none
	// was ever seen.
	RequireDANE bool
}

// Judge returns what is wrong with what was seen, the worst first; nil if
// everything was seen and is fine.
func Judge(l Look, o Options) []Finding {
	j := &judgement{look: l, o: o}
	j.host()
	for i := range l.Fronts {
		f := &l.Fronts[i]
		j.at = f.Container
		if f.Outside {
			j.outside(f)
			j.certificates(f)
			j.dane(f)
			continue
		}
		j.container(f)
		j.inside(f)
		j.directory(f)
		j.ports(f)
		j.certificates(f)
		j.dane(f)
		j.memory(f)
		j.nodes(f)
		j.lineages(f)
	}
	// Filter last, so that ignoring a finding does not bring up its consequences
	// instead.
	j.findings = slices.DeleteFunc(j.findings, func(f Finding) bool { return slices.Contains(o.Ignore, f.Code) })
	return WorstFirst(j.findings)
}

// WorstFirst sorts findings by severity, keeping the order of equals.
func WorstFirst(findings []Finding) []Finding {
	slices.SortStableFunc(findings, func(a, b Finding) int { return cmp.Compare(b.Severity.rank(), a.Severity.rank()) })
	return findings
}

// Worst is the severity of the worst of findings, OK of none.
func Worst(findings []Finding) Severity {
	worst := OK
	for _, f := range findings {
		if f.Severity.rank() > worst.rank() {
			worst = f.Severity
		}
	}
	return worst
}

type judgement struct {
	look     Look
	o        Options
	at       string // the front under judgement
	findings []Finding
}

func (j *judgement) find(s Severity, code Code, remedy, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if len(j.look.Fronts) > 1 && !strings.Contains(text, j.at) {
		text = j.at + ": " + text
	}
	j.findings = append(j.findings, Finding{s, code, j.at, text, remedy})
}

// found reports whether a finding of that code was made about the front.
func (j *judgement) found(code Code) bool {
	return slices.ContainsFunc(j.findings, func(f Finding) bool { return f.Front == j.at && f.Code == code })
}
