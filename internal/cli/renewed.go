package cli

import (
	"time"

	"mailu-hook/internal/renewal"
)

// renewalDoc is what JSON tells of a renewal, beside the deploy.
type renewalDoc struct {
	Names    []string  `json:"names"`
	Server   string    `json:"server"`
	Due      bool      `json:"due"`
	Reason   string    `json:"reason"`
	Issued   bool      `json:"issued"`
	At       time.Time `json:"renew_at,omitzero"`
	Start    time.Time `json:"suggested_start,omitzero"`
	End      time.Time `json:"suggested_end,omitzero"`
	Failures int       `json:"failures"`
}

func renewalDocOf(r renewal.Result) *renewalDoc {
	doc := &renewalDoc{Names: r.Names, Server: r.Server, Due: r.Due.Now, Reason: r.Due.Reason, Issued: r.Issued, At: r.Due.At, Failures: r.Failures}
	if r.Info != nil {
		doc.Start, doc.End = r.Info.Start, r.Info.End
	}
	return doc
}
