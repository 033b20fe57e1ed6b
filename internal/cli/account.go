package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"mailu-hook/acme"
	"mailu-hook/internal/report"
	"mailu-hook/internal/say"
)

func accountCommand() command {
	return command{
		name:    "account",
		args:    "[show|deactivate]",
		summary: "Show or deactivate the ACME account that renew uses",
		about: `renew creates an account at its first use and keeps its key in the state
directory. show asks the CA about it. deactivate tells the CA to accept no more
requests signed with that key, and removes it here; certificates stay valid,
and the next renew creates a new account.`,
		examples: `  mailu-hook account
  mailu-hook account show --staging --output json
  mailu-hook account deactivate --yes`,
		exits: `  0  done
  1  there is no account, or the CA refused or did not answer
  2  usage error, or ambiguous configuration
  7  another run held the lock until the time was up
`,
		options: func() action { return &accountOptions{} },
		formats: deployFormatNames(),
		failed:  deployFailed,
	}
}

type accountOptions struct {
	ca      caOptions
	state   stateOptions
	timeout time.Duration
	yes     bool
}

func (o *accountOptions) add(fs *flags) {
	fs.DurationVar(&o.timeout, "timeout", time.Minute, "time limit for the CA's answers")
	fs.BoolVar(&o.yes, "yes", false, "deactivate without asking again")
	fs.group("CA", &o.ca)
	fs.group("State", &o.state)
}

func (o *accountOptions) run(ctx context.Context, i *invocation) (result, error) {
	action := "show"
	if len(i.args) == 1 {
		action = i.args[0]
	}
	do, ok := map[string]func(*acme.Client) (acme.Account, error){"show": (*acme.Client).Account, "deactivate": (*acme.Client).Deactivate}[action]
	if !ok {
		return nil, usageError("account takes show or deactivate, not %s", say.Foreign(action))
	}
	if action == "deactivate" && !o.yes {
		return nil, usageError("deactivating an account cannot be undone: to do it, add --yes")
	}
	client, err := o.ca.read(i, false)
	if err != nil {
		return nil, err
	}
	return limited(ctx, "timeout", o.timeout, func(ctx context.Context) (result, error) {
		state, err := acme.OpenExisting(o.state.stateDir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, acme.NoAccount(client.Directory)
		}
		if err != nil {
			return nil, err
		}
		defer state.Close()
		if action == "deactivate" {
			unlock, err := state.Lock(ctx)
			if err != nil {
				return nil, err
			}
			defer unlock()
		}
		c := acme.NewClient(ctx, state, client)
		defer c.Close()
		a, err := do(c)
		if err != nil {
			return nil, err
		}
		return account(a), nil
	})
}

// account is what the CA says of an account.
type account acme.Account

type accountDoc struct {
	Server  string    `json:"server"`
	URL     string    `json:"url"`
	Email   string    `json:"email"`
	Status  string    `json:"status"`
	Created time.Time `json:"created,omitzero"`
}

func (a account) tell(format string, err error, _ report.Screen) string {
	return inFormat(format, a, err)
}

func (a account) inWords(error) string {
	return fmt.Sprintf("%s  %s  %s\n", say.Plain(a.URL), say.Plain(a.Status), say.Plain(cmp.Or(a.Email, "no address")))
}

func (a account) document(error) any {
	return accountDoc{a.Directory, a.URL, a.Email, say.Plain(a.Status), a.Created}
}
