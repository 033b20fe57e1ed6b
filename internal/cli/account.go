package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/pflag"

	"mailu-hook/acme"
	"mailu-hook/internal/say"
)

func accountCommand() command {
	return command{
		name:    "account",
		args:    "[show|deactivate]",
		summary: "Show the ACME account that renew uses, or end it for ever",
		about: `renew makes an account at its first use and keeps its key in the state
directory. show asks the CA what it knows of it. deactivate tells the CA to
take no more requests of that key, and removes it here; certificates stay
valid, and the next renew makes a new account.`,
		examples: `  mailu-hook account
  mailu-hook account show --staging --output json
  mailu-hook account deactivate`,
		flags: func(fs *pflag.FlagSet) {
			caFlags(fs)
			fs.Duration("timeout", time.Minute, "`TIME` after which to give up on the CA")
			settingFlags(fs)
		},
		run: runAccount,
	}
}

// accountDoc is what JSON tells of an account.
type accountDoc struct {
	Server  string    `json:"server"`
	URL     string    `json:"url"`
	Email   string    `json:"email"`
	Status  string    `json:"status"`
	Created time.Time `json:"created,omitzero"`
}

func runAccount(ctx context.Context, c *call) error {
	action := "show"
	if len(c.args) == 1 {
		action = c.args[0]
	}
	if action != "show" && action != "deactivate" {
		return usageError("account takes show or deactivate, not %s", say.Foreign(action))
	}
	options, err := c.client()
	if err != nil {
		return err
	}
	return c.limited(ctx, "timeout", func(ctx context.Context) error {
		state, err := acme.OpenExisting(c.text("state-dir"))
		if errors.Is(err, fs.ErrNotExist) {
			return acme.NoAccount(options.Directory)
		}
		if err != nil {
			return err
		}
		defer state.Close()
		unlock, err := state.Lock(ctx)
		if err != nil {
			return err
		}
		defer unlock()
		client := acme.NewClient(ctx, state, options)
		defer client.Close()
		if action == "deactivate" {
			return c.deactivate(client)
		}
		return c.showAccount(client)
	})
}

func (c *call) showAccount(client *acme.Client) error {
	account, err := client.Account()
	if err != nil {
		return err
	}
	return c.tellAccount(account)
}

func (c *call) deactivate(client *acme.Client) error {
	account, err := client.Deactivate()
	if err != nil {
		return err
	}
	return c.tellAccount(account)
}

func (c *call) tellAccount(a acme.Account) error {
	if c.text("output") == "json" {
		out := json.NewEncoder(c.stdout)
		out.SetIndent("", "  ")
		return out.Encode(accountDoc{a.Directory, a.URL, a.Email, say.Plain(a.Status), a.Created})
	}
	_, err := fmt.Fprintf(c.stdout, "%s  %s  %s\n", say.Plain(a.URL), say.Plain(a.Status), say.Plain(firstNonEmpty(a.Email, "no address")))
	return err
}
