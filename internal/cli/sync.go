package cli

import (
	"context"

	"mailu-hook/internal/deploy"
)

func syncCommand() command {
	return command{
		name:    "sync",
		summary: "Finish interrupted deploys and repair what has changed since",
		about: `certbot calls a hook once, and does not retry it if it fails. So run this from
a timer. It compares the lineages that were deployed before, the installed pair
and what each port serves, and does what is needed: a whole deploy, a reload,
a missing link, a lost pid file. If all is well it returns at once.

After a failure it backs off, for an hour at most, and says until when. A
certificate held back by DANE is retried on every run and installed once a
matching record has been published for a full TTL. A manual rollback stays in
effect until the lineage is renewed.`,
		examples: `  mailu-hook sync
  mailu-hook sync --now --lineage /etc/letsencrypt/live/mail.example.com`,
		options: func() action { return &syncOptions{} },
		formats: deployFormatNames(),
		failed:  deployFailed,
	}
}

type syncOptions struct {
	lineages []string
	now      bool
	ping     pingOptions
	deployOptions
}

func (o *syncOptions) add(fs *flags) {
	fs.StringArrayVar(&o.lineages, "lineage", nil, "`SOURCE` source to consider in addition to those deployed before; repeatable")
	fs.BoolVar(&o.now, "now", false, "retry now, ignoring the back-off")
	o.ping.add(fs.FlagSet)
	o.deployOptions.add(fs)
}

func (o *syncOptions) run(ctx context.Context, i *invocation) (result, error) {
	if err := o.ping.check(); err != nil {
		return nil, err
	}
	d, err := o.read(i, deploy.Timer)
	if err != nil {
		return nil, err
	}
	d.Pinned = i.settings(variable("lineage"))
	sources, err := sourcesAt(o.lineages, "--lineage")
	if err != nil {
		return nil, err
	}
	r, err := deploy.Sync(ctx, deploy.Wish{Now: o.now, Sources: sources}, d)
	o.ping.tell(ctx, i, err)
	return newDeployed(r, deployed{unattended: true}), err
}
