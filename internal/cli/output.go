package cli

import (
	"encoding/json"
	"fmt"
	"log/syslog"
	"strings"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/report"
	"mailu-hook/internal/say"
	"mailu-hook/internal/tlsa"
)

// document is the JSON that a deploy prints. Its keys are never renamed.
type document struct {
	Outcome    hook.Outcome     `json:"outcome"`
	Lineage    string           `json:"lineage"`
	Leaf       *report.Leaf     `json:"leaf"`
	Generation hook.Generation  `json:"generation"`
	Front      *frontDoc        `json:"front"`
	Endpoints  []endpointDoc    `json:"endpoints"`
	Durations  map[string]int64 `json:"duration_ms"`
	DryRun     bool             `json:"dry_run"`
	Renewal    *renewalDoc      `json:"renewal,omitempty"`
	DANE       []tlsa.Doc       `json:"dane,omitempty"`
	Reason     string           `json:"reason,omitempty"`
	Next       time.Time        `json:"next_attempt,omitzero"`
	Warnings   []string         `json:"warnings,omitempty"`
	Error      string           `json:"error,omitempty"`
	Hint       string           `json:"hint,omitempty"`
	Exit       int              `json:"exit_status"`
}

type frontDoc struct {
	Container string `json:"container"`
	Image     string `json:"image"`
	Project   string `json:"project"`
}

type endpointDoc struct {
	Port     int    `json:"port"`
	Protocol string `json:"protocol"`
	Served   string `json:"served_sha256"`
	OK       bool   `json:"ok"`
	Error    string `json:"error,omitempty"`
}

var documentSteps = []hook.Step{hook.StepValidate, hook.StepConsult, hook.StepStage, hook.StepSwitch, hook.StepTest, hook.StepReload, hook.StepVerify, hook.StepSettle, hook.StepLook, hook.StepRollback}

// finish reports how a deploy ended: on stdout, on stderr if it failed, and as
// a hook to syslog. It returns the error that decides the exit status.
func (c *call) finish(d *deployment, err error) error {
	if d.result.Outcome == "" || err != nil {
		d.result.Outcome = hook.OutcomeOf(err)
	}
	d.result.Warnings = append(d.notes, d.result.Warnings...)
	line := d.line()
	if c.text("output") == "json" {
		out := json.NewEncoder(c.stdout)
		out.SetIndent("", "  ")
		if jerr := out.Encode(d.document(err)); jerr != nil && err == nil {
			err = fmt.Errorf("writing the result: %w", jerr)
		}
	} else if err == nil {
		if _, werr := fmt.Fprintln(c.stdout, line); werr != nil {
			err = fmt.Errorf("writing the result: %w", werr)
		}
	}
	if d.unattended && d.worthALine() {
		logToSyslog(err, line)
	}
	if err == nil {
		return nil
	}
	writeError(c.stderr, err)
	for _, w := range d.result.Warnings {
		fmt.Fprintf(c.stderr, "mailu-hook: warning: %s\n", say.OneLine(w))
	}
	return &reportedError{err}
}

// worthALine: a sync that found nothing to do says nothing, four times an hour.
func (d *deployment) worthALine() bool {
	return d.asHook || d.result.Outcome != hook.OutcomeUnchanged && d.result.Outcome != hook.OutcomeSkipped
}

// fail reports an error from before a deploy began: where JSON was asked for,
// one document comes all the same, and certbot's hook leaves its trace.
func (c *call) fail(err error) error {
	if err != nil && !reported(err) && c.failed != nil {
		return c.failed(c, err)
	}
	asHook := c.name == "" && c.env(renewedLineage) != ""
	if err == nil || reported(err) || c.text("output") != "json" && !asHook {
		return err
	}
	return c.finish(&deployment{c: c, asHook: asHook, unattended: asHook}, err)
}

// line is a success in one line.
func (d *deployment) line() string {
	var s strings.Builder
	r := &d.result
	what := firstNonEmpty(d.src.Lineage, d.src.CertFile)
	switch r.Outcome {
	case hook.OutcomeInstalled:
		fmt.Fprintf(&s, "installed %s (%s)", what, d.validity())
		if r.Endpoints == nil {
			s.WriteString("; the front will load it at its start")
		} else {
			fmt.Fprintf(&s, "; %s serves it on %s, %s after the start", d.target.facts.Container, d.ports(), r.Served.Round(time.Millisecond))
		}
	case hook.OutcomeUnchanged:
		fmt.Fprintf(&s, "nothing to do: %s (%s) is installed", what, d.validity())
		if r.Endpoints != nil {
			fmt.Fprintf(&s, " and served on %s", d.ports())
		}
	case hook.OutcomeSkipped:
		if what == "" {
			return "nothing to do: " + r.Reason
		}
		fmt.Fprintf(&s, "passed over %s: %s", what, r.Reason)
	case hook.OutcomeWouldInstall:
		if r.Bundle == nil {
			fmt.Fprintf(&s, "would renew: %s", r.Reason)
			break
		}
		fmt.Fprintf(&s, "would install %s (%s) into %s", what, d.validity(), d.target.facts.CertsDir)
	}
	for _, w := range r.Warnings {
		s.WriteString("; note: " + w)
	}
	return say.OneLine(s.String())
}

func (d *deployment) validity() string {
	leaf := d.result.Bundle.Leaf()
	key, _ := hook.KeyType(leaf.PublicKey)
	return fmt.Sprintf("%s, valid until %s", key, leaf.NotAfter.UTC().Format("2006-01-02"))
}

func (d *deployment) ports() string {
	var list []string
	for _, e := range d.result.Endpoints {
		if e.Leaf == d.result.Bundle.Fingerprint() {
			list = append(list, fmt.Sprint(e.Number))
		}
	}
	return strings.Join(list, ", ")
}

func (d *deployment) document(err error) document {
	doc := document{
		Outcome: d.result.Outcome, Lineage: d.src.Lineage, Generation: d.result.Generation,
		Reason: d.result.Reason, Next: d.result.Next, Warnings: d.result.Warnings, DryRun: d.flag("dry-run"), Exit: exitStatus(err),
		Renewal: d.renewal.document(), DANE: tlsa.Docs(d.dane), Endpoints: []endpointDoc{}, Durations: map[string]int64{"total": d.result.Total.Milliseconds()},
	}
	if err != nil {
		doc.Error, doc.Hint = err.Error(), say.HintOf(err)
	}
	for _, step := range documentSteps {
		doc.Durations[string(step)] = d.result.Durations[step].Milliseconds()
	}
	want := ""
	if b := d.result.Bundle; b != nil {
		want = b.Fingerprint()
		leaf := report.LeafOf(b.Leaf())
		doc.Leaf = &leaf
	}
	if d.target != nil {
		f := d.target.facts
		doc.Front = &frontDoc{f.Container, f.Image, f.Project}
	}
	for _, e := range d.result.Endpoints {
		doc.Endpoints = append(doc.Endpoints, endpoint(e, want))
	}
	return doc
}

func endpoint(e mailu.Endpoint, want string) endpointDoc {
	doc := endpointDoc{Port: e.Number, Protocol: e.Protocol, Served: e.Leaf, OK: e.Answers() && e.Leaf == want}
	if e.Err != nil {
		doc.Error = e.Err.Error()
	}
	return doc
}

// logToSyslog leaves a trace of a hook's result: certbot -q drops everything
// else. A host without syslog has none, and that is no error of the deploy.
func logToSyslog(err error, line string) {
	w, serr := syslog.New(syslog.LOG_INFO|syslog.LOG_MAIL, "mailu-hook")
	if serr != nil {
		return
	}
	defer w.Close()
	if err == nil {
		_ = w.Info(line)
		return
	}
	text := "error: " + err.Error()
	if hint := say.HintOf(err); hint != "" {
		text += "; hint: " + hint
	}
	_ = w.Err(say.OneLine(text))
}

// progress shows each step of a deploy as it begins.
func (d *deployment) progress() func(hook.Step) {
	return func(step hook.Step) {
		d.c.log.Debug("step begins", "step", step)
		d.tell(stepTexts[step])
	}
}

// tell shows on a terminal what begins now, and how long after the start.
func (d *deployment) tell(text string) {
	if d.began.IsZero() {
		d.began = time.Now()
	}
	if isTerminal(d.c.stderr) && !d.asHook {
		fmt.Fprintf(d.c.stderr, "%7.3f s  %s\n", time.Since(d.began).Seconds(), say.OneLine(text))
	}
}

var stepTexts = map[hook.Step]string{
	hook.StepLook:     "asking the ports what they serve now",
	hook.StepValidate: "checking key and chain",
	hook.StepConsult:  "asking the DNS what senders expect (DANE)",
	hook.StepStage:    "writing a new generation",
	hook.StepSwitch:   "switching to it",
	hook.StepTest:     "letting nginx test its configuration",
	hook.StepReload:   "reloading nginx and dovecot",
	hook.StepVerify:   "asking every port for the new certificate",
	hook.StepSettle:   "all served; waiting for the front's own watcher to finish",
	hook.StepRollback: "refused: putting the old pair back",
}

func quoteList(names []string) string {
	return say.Names(names)
}
