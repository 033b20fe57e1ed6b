package cli

import (
	"context"

	"github.com/spf13/pflag"

	"mailu-hook/internal/watch"
)

// pingOptions name a dead man's switch: a monitor that raises an alarm when nobody
// calls it in time.
type pingOptions struct{ url string }

func (o *pingOptions) add(fs *pflag.FlagSet) {
	fs.StringVar(&o.url, "ping", "", "`URL` call it when all is well, and URL/fail when something is not (Healthchecks); of a push monitor of Uptime Kuma, status and msg are set")
}

func (o *pingOptions) check() error {
	if o.url == "" {
		return nil
	}
	if err := watch.CheckPing(o.url); err != nil {
		return usageError("--ping: %v", err) // the URL may be a secret
	}
	return nil
}

// tell calls the switch. That it cannot be reached is logged, and changes nothing.
func (o *pingOptions) tell(ctx context.Context, i *invocation, failure error) {
	if o.url == "" {
		return
	}
	if err := watch.Ping(ctx, o.url, failure); err != nil && ctx.Err() == nil {
		i.log.Warn("the dead man's switch was not reached", "error", err)
	}
}
