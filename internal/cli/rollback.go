package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"mailu-hook/hook"
	"mailu-hook/internal/deploy"
	"mailu-hook/internal/report"
	"mailu-hook/internal/say"
)

func rollbackCommand() command {
	return command{
		name:    "rollback",
		args:    "[GENERATION]",
		summary: "Put an earlier generation back, and prove that it is served",
		about: `Without an argument it takes the newest generation before the live one. It is
the same transaction as a deploy, with the same proof and the same way back.
sync does not undo it until the lineage is renewed.`,
		examples: `  mailu-hook rollback --list
  mailu-hook rollback
  mailu-hook rollback 20261123T150536Z-3076aa61`,
		options: func() action { return &rollbackOptions{} },
		formats: deployFormatNames(),
		failed:  deployFailed,
	}
}

type rollbackOptions struct {
	list, allowExpired bool
	deployOptions
}

func (o *rollbackOptions) add(fs *flags) {
	fs.BoolVar(&o.list, "list", false, "list the generations and change nothing")
	fs.BoolVar(&o.allowExpired, "allow-expired", false, "also put back a certificate that has expired")
	o.deployOptions.add(fs)
}

func (o *rollbackOptions) run(ctx context.Context, i *invocation) (result, error) {
	name := ""
	if len(i.args) == 1 {
		name = i.args[0]
	}
	if o.list && name != "" {
		return nil, usageError("--list shows all generations and takes no argument")
	}
	d, err := o.read(i, deploy.Person)
	if err != nil {
		return nil, err
	}
	if o.list {
		all, err := deploy.Generations(ctx, d)
		if err != nil {
			return nil, err
		}
		return generations(all), nil
	}
	r, err := deploy.Rollback(ctx, name, o.allowExpired, d)
	return &deployed{Result: r}, err
}

// generations is a list of what is stored.
type generations []deploy.Stored

// generationDoc is one line of the list.
type generationDoc struct {
	Generation hook.Generation `json:"generation"`
	Live       bool            `json:"live"`
	SHA256     string          `json:"sha256"`
	NotAfter   time.Time       `json:"not_after"`
	DNSNames   []string        `json:"dns_names"`
	// Placeholder: it was made so that a front without a certificate brings TLS up.
	Placeholder bool   `json:"placeholder,omitempty"`
	Error       string `json:"error,omitempty"`
}

func (g generations) tell(format string, err error, _ report.Screen) string {
	return inFormat(format, g, err)
}

func (g generations) document(error) any {
	docs := []generationDoc{}
	for _, s := range g {
		doc := generationDoc{Generation: s.Generation, Live: s.Live}
		if s.Err != nil {
			doc.Error = s.Err.Error()
		} else {
			leaf := s.Bundle.Leaf()
			doc.SHA256, doc.NotAfter, doc.DNSNames, doc.Placeholder = s.Bundle.Fingerprint(), leaf.NotAfter.UTC(), leaf.DNSNames, hook.IsPlaceholder(leaf)
		}
		docs = append(docs, doc)
	}
	return docs
}

func (g generations) inWords(error) string {
	var out strings.Builder
	for _, s := range g {
		mark, about := " ", ""
		if s.Live {
			mark = "*"
		}
		if s.Err != nil {
			about = say.OneLine(s.Err.Error())
		} else {
			about = fmt.Sprintf("valid until %s  %s", say.Day(s.Bundle.Leaf().NotAfter), say.Names(s.Bundle.Leaf().DNSNames))
			if hook.IsPlaceholder(s.Bundle.Leaf()) {
				about += "  (placeholder)"
			}
		}
		fmt.Fprintf(&out, "%s %s  %s\n", mark, s.Generation, about)
	}
	return out.String()
}
