package cli

import (
	"context"

	"mailu-hook/internal/renewal"
)

func renewCommand() command {
	return command{
		name:    "renew",
		summary: "Obtain or renew the certificate without certbot, and install it",
		about: `Orders a certificate for the front's HOSTNAMES when there is none yet or the
current one is due, and installs it as the deploy hook would. The front itself
answers the CA's challenge and keeps serving meanwhile; --challenge selects
another way. When nothing is due it makes sure that what it obtained is served,
and exits 0; so run it from a timer.

Before asking the CA it checks that the response is reachable, so that a
mistake does not count against the CA's rate limits. After a failure nothing has
changed; later runs back off, and always honor the CA's Retry-After. If a run is
killed, the next one resumes its order instead of requesting a second
certificate.`,
		examples: `  mailu-hook renew --agree-tos --email admin@example.com
  mailu-hook renew --agree-tos --dry-run
  mailu-hook renew --challenge dns --dns-provider rfc2136 \
      --hostname '*.example.com' --hostname example.com`,
		options: func() action { return &renewOptions{} },
		formats: deployFormatNames(),
		failed:  deployFailed,
	}
}

type renewOptions struct {
	force, now bool
	renewalOptions
}

func (o *renewOptions) add(fs *flags) {
	fs.BoolVar(&o.force, "force", false, "renew even if it is not due")
	fs.BoolVar(&o.now, "now", false, "retry now, ignoring the back-off and the CA's limit")
	o.renewalOptions.add(fs)
}

func (o *renewOptions) run(ctx context.Context, i *invocation) (result, error) {
	r, err := o.read(i)
	if err != nil {
		return nil, err
	}
	r.Force, r.Now, r.AtTerminal = o.force, o.now, isTerminal(i.stderr)
	tell := newProgress(i)
	r.Tell, r.Deploy.Progress = tell.tell, tell.step
	res, err := renewal.Run(ctx, r)
	return renewed(res, false), err
}
