package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/hook"
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
		flags: func(fs *pflag.FlagSet) {
			fs.Bool("list", false, "list the generations and change nothing")
			fs.Bool("allow-expired", false, "also put back a certificate that has expired")
			deployFlags(fs)
		},
		run: runRollback,
	}
}

func runRollback(ctx context.Context, c *call) error {
	d := &deployment{c: c}
	defer d.close()
	if d.flag("list") {
		if len(c.args) > 0 {
			return usageError("--list shows all generations, and takes none")
		}
		return d.list(ctx)
	}
	return d.within(ctx, d.rollback)
}

func (d *deployment) rollback(ctx context.Context) error {
	store, err := d.open(ctx)
	if err != nil {
		return err
	}
	gen, err := d.chooseGeneration(store)
	if err != nil {
		return err
	}
	bundle, err := store.Bundle(gen)
	if err != nil {
		return err
	}
	d.src = bundle.Source
	if mine, err := d.isOurs(bundle.Leaf()); !mine || err != nil {
		return err
	}
	o, err := d.options()
	if err != nil {
		return err
	}
	o.Rules.AllowExpired = d.flag("allow-expired")
	if live, err := store.Bundle(store.Live()); err == nil && live.Fingerprint() != bundle.Fingerprint() {
		o.RollsBackFrom = live.Fingerprint()
	}
	return d.install(ctx, bundle, o)
}

// chooseGeneration is the one that the argument names, in full or by an
// unmistakable beginning, else the newest before the live one.
func (d *deployment) chooseGeneration(store *hook.Store) (hook.Generation, error) {
	gens, err := store.Generations()
	if err != nil {
		return "", err
	}
	const look = "'mailu-hook rollback --list' shows what there is"
	if len(d.c.args) == 1 {
		matching := slices.DeleteFunc(slices.Clone(gens), func(g hook.Generation) bool { return !strings.HasPrefix(string(g), d.c.args[0]) })
		if len(matching) != 1 {
			return "", say.Hint(usageErr{fmt.Sprintf("%d generations begin with %s", len(matching), say.Foreign(d.c.args[0]))}, look)
		}
		return matching[0], nil
	}
	live, _ := store.Bundle(store.Live())
	for _, gen := range slices.Backward(gens) {
		b, err := store.Bundle(gen)
		if gen < store.Live() && err == nil && !hook.IsPlaceholder(b.Leaf()) && (live == nil || b.Fingerprint() != live.Fingerprint()) {
			return gen, nil
		}
	}
	return "", say.Hint(usageErr{"there is no other certificate before the live one"}, look)
}

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

func (d *deployment) list(ctx context.Context) error {
	store, err := d.open(ctx)
	if err != nil {
		return err
	}
	gens, err := store.Generations()
	if err != nil {
		return err
	}
	docs := []generationDoc{}
	for _, gen := range slices.Backward(gens) {
		doc := generationDoc{Generation: gen, Live: gen == store.Live()}
		if b, err := store.Bundle(gen); err != nil {
			doc.Error = err.Error()
		} else {
			doc.SHA256, doc.NotAfter, doc.DNSNames, doc.Placeholder = b.Fingerprint(), b.Leaf().NotAfter.UTC(), b.Leaf().DNSNames, hook.IsPlaceholder(b.Leaf())
		}
		docs = append(docs, doc)
	}
	if d.c.text("output") == "json" {
		out := json.NewEncoder(d.c.stdout)
		out.SetIndent("", "  ")
		return out.Encode(docs)
	}
	for _, doc := range docs {
		mark, about := " ", doc.Error
		if doc.Live {
			mark = "*"
		}
		if about == "" {
			about = fmt.Sprintf("valid until %s  %s", doc.NotAfter.Format("2006-01-02"), quoteList(doc.DNSNames))
		}
		if doc.Placeholder {
			about += "  (placeholder)"
		}
		if _, err := fmt.Fprintf(d.c.stdout, "%s %s  %s\n", mark, doc.Generation, about); err != nil {
			return err
		}
	}
	return nil
}
