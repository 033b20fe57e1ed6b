package cli

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"mailu-hook/internal/health"
	"mailu-hook/internal/say"
)

// judgingOptions say what of that which is seen is wrong.
type judgingOptions struct {
	warn, crit string
	ignore     []string
}

func (o *judgingOptions) add(fs *pflag.FlagSet) {
	fs.StringVar(&o.warn, "warn", health.DefaultWarn.String(), "`LEFT` warn when less than this is left: days (20d) or a fraction of the lifetime (25%, 0.25)")
	fs.StringVar(&o.crit, "crit", health.DefaultCrit.String(), "`LEFT` critical when less than this is left, likewise")
	fs.StringSliceVar(&o.ignore, "ignore", nil, "`CODE` finding to ignore; repeatable. Codes: "+strings.Join(health.CodeNames(), ", "))
	offer(fs, "ignore", health.Codes)
}

// read turns the options into those of a judgment.
func (o *judgingOptions) read(i *invocation) (h health.Options, err error) {
	for _, t := range []struct {
		flag, text string
		to         *health.Threshold
	}{{"warn", o.warn, &h.Warn}, {"crit", o.crit, &h.Crit}} {
		if *t.to, err = health.ParseThreshold(t.text); err != nil {
			return h, usageError("%s: %v", i.origin(t.flag, t.text), err)
		}
	}
	if h.Crit.Exceeds(h.Warn) {
		return h, say.Hint(usageError("--crit %s is more than --warn %s, so nothing would ever be a warning", h.Crit, h.Warn), "set both, such as --warn 20%% --crit 10%%")
	}
	for _, code := range o.ignore {
		if !slices.Contains(health.Codes, health.Code(code)) {
			return h, usageError("--ignore: there is no finding %s", say.Foreign(code))
		}
		h.Ignore = append(h.Ignore, health.Code(code))
	}
	return h, nil
}
