package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/deploy"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/report"
	"mailu-hook/internal/say"
	"mailu-hook/internal/tlsa"
)

// deployed is how a deploy ended.
type deployed struct {
	deploy.Result
	renewal    *renewalDoc // of renew
	hooked     bool        // certbot called
	unattended bool        // nobody reads what is printed, so it goes to syslog too
	among      bool        // there are others: each line names its front
	also       []ended     // for the other groups of fronts, none of it worse
}

// ended is how the run for another group of fronts ended.
type ended struct {
	*deployed
	err error
}

// newDeployed is what became of a deploy, for every group of fronts that it was for.
func newDeployed(r deploy.Result, as deployed) *deployed {
	d := as
	d.Result, d.among = r, as.among || len(r.Also) > 0
	as.among = d.among
	for _, other := range r.Also {
		d.also = append(d.also, ended{newDeployed(other.Result, as), other.Err})
	}
	return &d
}

// deployFailed is the result of an error that came before a deploy began.
func deployFailed(err error) (result, error) {
	return &deployed{Result: deploy.Failed(err)}, err
}

func (d *deployed) tell(format string, err error, _ report.Screen) string {
	return inFormat(format, d, err)
}

// inWords has a line for each success.
func (d *deployed) inWords(err error) string {
	var lines string
	if err == nil {
		lines = d.line() + "\n"
	}
	for _, other := range d.also {
		lines += other.inWords(other.err)
	}
	return lines
}

func (d *deployed) others() (all []told) {
	for _, other := range d.also {
		all = append(all, told{other.deployed, other.err})
	}
	return all
}

// journal: a sync that found nothing to do says nothing, four times an hour.
func (d *deployed) journal() (line string, worthIt bool) {
	return d.line(), d.unattended && (d.hooked || !isIdle(d.Outcome))
}

func isIdle(o hook.Outcome) bool { return o == hook.OutcomeUnchanged || o == hook.OutcomeSkipped }

// hasSwitched reports whether a front was switched, to what was new or back.
func (d *deployed) hasSwitched() bool {
	switch d.Outcome {
	case hook.OutcomeInstalled, hook.OutcomeRolledBack, hook.OutcomeRollbackFailed:
		return true
	}
	return slices.ContainsFunc(d.also, func(e ended) bool { return e.hasSwitched() })
}

// idle reports whether nothing was done, for none of the groups.
func (d *deployed) idle() bool {
	return isIdle(d.Outcome) && !slices.ContainsFunc(d.also, func(e ended) bool { return !e.idle() })
}

func (d *deployed) warnings() []string { return d.Warnings }

// line is a success in one line.
func (d *deployed) line() string {
	var s strings.Builder
	if d.among && d.Front != nil {
		s.WriteString(d.Front.Container + ": ")
	}
	what := cmp.Or(d.Source.Lineage, d.Source.CertFile)
	switch d.Outcome {
	case hook.OutcomeInstalled:
		fmt.Fprintf(&s, "installed %s (%s)", what, d.validity())
		if d.Endpoints == nil {
			s.WriteString("; the front will load it when it starts")
		} else {
			fmt.Fprintf(&s, "; %s serves it on %s after %s", d.Front.Container, d.ports(), d.Served.Round(time.Millisecond))
		}
	case hook.OutcomeUnchanged:
		fmt.Fprintf(&s, "nothing to do: %s (%s) is installed", what, d.validity())
		if d.Endpoints != nil {
			fmt.Fprintf(&s, " and served on %s", d.ports())
		}
	case hook.OutcomeSkipped:
		if what == "" {
			return say.OneLine(s.String() + "nothing to do: " + d.Reason)
		}
		fmt.Fprintf(&s, "skipped %s: %s", what, d.Reason)
	case hook.OutcomeWouldInstall:
		if d.Bundle == nil {
			fmt.Fprintf(&s, "would renew: %s", d.Reason)
			break
		}
		fmt.Fprintf(&s, "would install %s (%s) into %s", what, d.validity(), d.Front.CertsDir)
	}
	for _, w := range d.Warnings {
		s.WriteString("; note: " + w)
	}
	return say.OneLine(s.String())
}

func (d *deployed) validity() string {
	leaf := d.Bundle.Leaf()
	key, _ := hook.KeyType(leaf.PublicKey)
	return fmt.Sprintf("%s, valid until %s", key, say.Day(leaf.NotAfter))
}

func (d *deployed) ports() string {
	var list []string
	for _, e := range d.Endpoints {
		if e.Leaf == d.Bundle.Fingerprint() {
			list = append(list, fmt.Sprint(e.Number))
		}
	}
	return strings.Join(list, ", ")
}

// document is the JSON of a deploy.
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
	Also       []any            `json:"also,omitempty"` // where there are several groups of fronts: the documents of the others
}

type frontDoc struct {
	Container string `json:"container"`
	Image     string `json:"image"`
	Project   string `json:"project"`
}

type endpointDoc struct {
	Port      int    `json:"port"`
	Protocol  string `json:"protocol"`
	Container string `json:"container,omitempty"` // where several fronts serve from one directory
	Served    string `json:"served_sha256"`
	OK        bool   `json:"ok"`
	Error     string `json:"error,omitempty"`
}

var documentSteps = []hook.Step{
	hook.StepValidate, hook.StepConsult, hook.StepStage, hook.StepSwitch, hook.StepReload,
	hook.StepVerify, hook.StepSettle, hook.StepLook, hook.StepRollback,
}

func (d *deployed) document(err error) any {
	doc := document{
		Outcome: d.Outcome, Lineage: d.Source.Lineage, Generation: d.Generation, Reason: d.Reason, Next: d.Next, Warnings: d.Warnings,
		DryRun: d.DryRun, Exit: exitStatus(err), Renewal: d.renewal, DANE: tlsa.Docs(d.DANE), Endpoints: []endpointDoc{},
		Durations: map[string]int64{"total": d.Total.Milliseconds(), "test": 0}, // nginx is the test: its time is that of reload
	}
	if err != nil {
		doc.Error, doc.Hint = err.Error(), say.HintOf(err)
	}
	for _, step := range documentSteps {
		doc.Durations[string(step)] = d.Durations[step].Milliseconds()
	}
	want := ""
	if b := d.Bundle; b != nil {
		leaf := report.LeafOf(b.Leaf())
		doc.Leaf, want = &leaf, leaf.SHA256
	}
	if f := d.Front; f != nil {
		doc.Front = &frontDoc{f.Container, f.Image, f.Project}
	}
	for _, e := range d.Endpoints {
		doc.Endpoints = append(doc.Endpoints, endpoint(e, want))
	}
	for _, other := range d.also {
		doc.Also = append(doc.Also, other.document(other.err))
	}
	return doc
}

func endpoint(e mailu.Endpoint, want string) endpointDoc {
	doc := endpointDoc{Port: e.Number, Protocol: e.Protocol, Container: e.Of, Served: e.Leaf, OK: e.Answers() && e.Leaf == want}
	if e.Err != nil {
		doc.Error = e.Err.Error()
	}
	return doc
}
