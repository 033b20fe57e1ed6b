package report

import (
	"crypto/x509"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/health"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
	"mailu-hook/internal/tlsa"
)

// document is the JSON of a status. Its keys are never renamed, and all of
// them are there, whatever was seen; what was not is null.
type document struct {
	Status     string           `json:"status"`
	Summary    string           `json:"summary"`
	At         time.Time        `json:"at"`
	Complete   bool             `json:"complete"`
	Durations  map[string]int64 `json:"duration_ms"` // total, as a deploy has it
	Thresholds thresholdsDoc    `json:"thresholds"`
	Findings   []findingDoc     `json:"findings"`
	Fronts     []frontLookDoc   `json:"fronts"`
	Schedule   scheduleDoc      `json:"schedule"`
	Exit       int              `json:"exit_status"`
}

type thresholdsDoc struct {
	Warn string `json:"warn"`
	Crit string `json:"crit"`
}

type findingDoc struct {
	Severity  string      `json:"severity"`
	Code      health.Code `json:"code"`
	Container string      `json:"container"`
	Text      string      `json:"text"`
	Remedy    string      `json:"remedy"`
}

type frontLookDoc struct {
	Container string            `json:"container"`
	Asked     string            `json:"asked,omitempty"` // a name that is looked at from outside, at this address
	Address   string            `json:"address,omitempty"`
	Project   string            `json:"project"`
	Image     string            `json:"image"`
	State     string            `json:"state"`
	Health    string            `json:"health"`
	Flavor    string            `json:"tls_flavor"`
	Hostnames []string          `json:"hostnames"`
	CertsDir  string            `json:"certs_dir"`
	CertFile  string            `json:"cert_file"` // ours, plain, link, missing, dangling, outward, unreadable
	KeyFile   string            `json:"key_file"`
	Daemons   []daemonDoc       `json:"daemons"`
	Watching  *bool             `json:"watcher_running"`
	Lineages  []lineageDoc      `json:"lineages"`
	Installed *certificateDoc   `json:"installed"`
	Endpoints []endpointLookDoc `json:"endpoints"`
	Last      *lastDoc          `json:"last_deploy"`
	LastSync  *time.Time        `json:"last_sync"`
	Pending   *pendingDoc       `json:"pending"`
	Held      string            `json:"held"`
	Renewal   *nextDoc          `json:"next_renewal"`
	Nodes     []nodeDoc         `json:"nodes"` // other hosts that share the directory, as they say
	DANE      []tlsa.Doc        `json:"dane"`
}

type nodeDoc struct {
	Node    string       `json:"node"`
	Front   string       `json:"front"`
	Leaf    string       `json:"leaf"`
	Pending string       `json:"pending"`
	Last    hook.Outcome `json:"last"`
	At      time.Time    `json:"at"`
}

type daemonDoc struct {
	Daemon  string `json:"daemon"`
	Running bool   `json:"running"`
	PidFile string `json:"pid_file"`
	Pid     string `json:"pid_file_state"`
}

type certificateDoc struct {
	Leaf
	ValidUntil   time.Time `json:"valid_until"` // earlier than not_after if an issuer ends first; what is left counts until then
	FractionLeft float64   `json:"fraction_left"`
	SecondsLeft  int64     `json:"seconds_left"`
	Missing      []string  `json:"names_missing"`
	Chain        string    `json:"chain"` // complete, leaf_only, untrusted, unknown
}

// Leaf is a certificate in the JSON of all commands.
type Leaf struct {
	SHA256    string    `json:"sha256"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	DNSNames  []string  `json:"dns_names"`
	Issuer    string    `json:"issuer"`
	KeyType   string    `json:"key_type"`
}

// LeafOf describes a leaf.
func LeafOf(c *x509.Certificate) Leaf {
	key, _ := hook.KeyType(c.PublicKey)
	return Leaf{pki.Fingerprint(c), c.NotBefore.UTC(), c.NotAfter.UTC(), plain(c.DNSNames), say.Plain(c.Issuer.String()), key}
}

type lineageDoc struct {
	Lineage string          `json:"lineage"`
	Leaf    *certificateDoc `json:"leaf"`
	Error   string          `json:"error"`
}

type endpointLookDoc struct {
	Port     int             `json:"port"`
	Protocol string          `json:"protocol"`
	Daemon   string          `json:"daemon"`
	Shows    health.Relation `json:"shows"`
	Leaf     *certificateDoc `json:"leaf"`
	Error    string          `json:"error"`
}

type lastDoc struct {
	At         time.Time       `json:"at"`
	Outcome    hook.Outcome    `json:"outcome"`
	Lineage    string          `json:"lineage"`
	Generation hook.Generation `json:"generation"`
	Error      string          `json:"error"`
}

type pendingDoc struct {
	Since    time.Time `json:"since"`
	Lineage  string    `json:"lineage"`
	Leaf     string    `json:"leaf"`
	Reason   string    `json:"reason"`
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next_attempt"` // the year 1: at once
	UnderWay bool      `json:"under_way"`    // a run that lives is at it, and still has time
}

type nextDoc struct {
	From    time.Time `json:"from"`
	By      string    `json:"by"`
	Timer   string    `json:"timer"`
	Lineage string    `json:"lineage"`
}

type scheduleDoc struct {
	Certbot string `json:"certbot"`
	Sync    string `json:"sync"`
	Renew   string `json:"renew"`
}

// JSON is the report as one JSON document.
func JSON(r *Report) string {
	worst := r.Worst()
	doc := document{
		Status: worst.String(), Summary: r.Summary(), At: r.At.UTC(), Complete: r.Complete(), Durations: map[string]int64{"total": r.Took.Milliseconds()},
		Thresholds: thresholdsDoc{r.Options.Warn.String(), r.Options.Crit.String()},
		Findings:   []findingDoc{}, Fronts: []frontLookDoc{}, Exit: int(worst),
		Schedule: scheduleDoc{r.Schedule.Certbot.By, r.Schedule.Sync.By, r.Schedule.Renew.By},
	}
	for _, f := range r.Findings {
		doc.Findings = append(doc.Findings, findingDoc{f.Severity.String(), f.Code, f.Front, f.Text, f.Remedy})
	}
	for i := range r.Fronts {
		doc.Fronts = append(doc.Fronts, r.frontDoc(&r.Fronts[i]))
	}
	return say.JSON(doc)
}

func (r *Report) frontDoc(f *health.Front) frontLookDoc {
	doc := frontLookDoc{
		Container: f.Container, Project: f.Project, Image: f.Image, State: f.State, Health: f.Health, Flavor: f.Flavor,
		Hostnames: plain(f.Hostnames), CertsDir: f.CertsDir,
		CertFile: string(f.Directory.Cert.Kind), KeyFile: string(f.Directory.Key.Kind),
		Daemons: []daemonDoc{}, Lineages: []lineageDoc{}, Endpoints: []endpointLookDoc{}, Nodes: []nodeDoc{}, DANE: []tlsa.Doc{},
		Installed: r.certificateDoc(f, f.Directory.Chain), Held: first(f.Memory.RolledBackFrom),
	}
	if f.Outside {
		doc.Asked, doc.Address = first(f.Hostnames), first(f.Asked)
	}
	if last := f.Memory.Last; last != nil {
		doc.Last = &lastDoc{last.At, last.Outcome, last.Lineage, last.Generation, last.Error}
	}
	if at := f.Memory.LastSync.UTC(); !at.IsZero() {
		doc.LastSync = &at
	}
	if p := f.Memory.Pending; p != nil {
		doc.Pending = &pendingDoc{p.Since, p.Lineage, p.Leaf, p.Reason, p.Attempts, p.Next, f.Deploys(r.At)}
	}
	if f.Inside != nil {
		doc.Watching = &f.Inside.Watching
		for _, d := range f.Inside.Daemons {
			doc.Daemons = append(doc.Daemons, daemonDoc{d.Name, d.Runs, d.PidFile, string(d.Pid)})
		}
	}
	for _, l := range f.Lineages {
		doc.Lineages = append(doc.Lineages, lineageDoc{l.Path, r.certificateDoc(f, l.Chain), errorText(l.Err)})
	}
	for _, e := range f.Endpoints {
		doc.Endpoints = append(doc.Endpoints, r.endpointDoc(f, e))
	}
	for _, n := range f.Nodes {
		doc.Nodes = append(doc.Nodes, nodeDoc{n.Name, say.Plain(n.Front), say.Plain(n.Leaf), say.Plain(n.Pending), hook.Outcome(say.Plain(string(n.Last))), n.At})
	}
	if f.DANE != nil {
		doc.DANE = tlsa.Docs(f.DANE)
	}
	if next, ok := f.Renewal(r.Schedule); ok {
		doc.Renewal = &nextDoc{next.From.UTC(), next.By, next.Timer, next.Lineage}
	}
	return doc
}

func (r *Report) endpointDoc(f *health.Front, e mailu.Endpoint) endpointLookDoc {
	return endpointLookDoc{e.Number, e.Protocol, f.Daemon(e.Number), f.Shows(e), r.certificateDoc(f, e.Chain), errorText(e.Err)}
}

func (r *Report) certificateDoc(f *health.Front, chain []*x509.Certificate) *certificateDoc {
	leaf := health.Leaf(chain)
	if leaf == nil {
		return nil
	}
	life := r.LifeOf(chain)
	return &certificateDoc{
		Leaf:         LeafOf(leaf),
		ValidUntil:   life.End().UTC(),
		FractionLeft: max(0, life.Fraction(r.At)),
		SecondsLeft:  int64(life.Left(r.At) / time.Second),
		Missing:      plain(hook.Missing(leaf, f.Hostnames)),
		Chain:        r.chainWord(chain),
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// plain is a list of names of foreign origin, empty and not null if there are
// none.
func plain(names []string) []string {
	list := []string{}
	for _, name := range names {
		list = append(list, say.Plain(name))
	}
	return list
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
