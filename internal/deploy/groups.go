package deploy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"mailu-hook/hook"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
	"mailu-hook/reload"
)

// Ended is how the run for one of several groups of fronts ended.
type Ended[R any] struct {
	Result R
	Err    error
}

// Each does work with o. If that ends because o means several groups of fronts,
// nothing was touched, and Each does it for every group that may have it, one after
// the other, with options that mean only this one. It returns how all of them ended,
// the worst first; none if no group may have it.
func Each[R interface{ rank() int }](o Options, may func(mailu.Facts) bool, work func(Options) (R, error)) (all []Ended[R]) {
	r, err := work(o)
	var several *reload.SeveralError
	if !errors.As(err, &several) {
		return []Ended[R]{{r, err}}
	}
	for _, group := range several.Groups {
		if !may(group.Facts()) {
			continue
		}
		o.Front = reload.Selector{Container: group[0].Container}
		r, err := work(o)
		if err != nil {
			err = fmt.Errorf("%s: %w", say.Plain(group[0].Container), err)
		}
		all = append(all, Ended[R]{r, err})
	}
	slices.SortStableFunc(all, func(a, b Ended[R]) int { return cmp.Compare(a.Result.rank(), b.Result.rank()) })
	return all
}

// Ours reports whether one of several fronts is our business: it takes its
// certificates from its directory, or did when a deploy last went there.
func (o Options) Ours(f mailu.Facts) bool {
	_, known := Remembered(o.StateDir, f.CertsDir)
	return known || f.CheckFlavor() == nil
}

// worstFirst is the order in which results are told.
var worstFirst = []hook.Outcome{
	hook.OutcomeRollbackFailed, hook.OutcomeRolledBack, hook.OutcomePending, hook.OutcomeFailed, hook.OutcomeRejected,
	hook.OutcomeInstalled, hook.OutcomeWouldInstall, hook.OutcomeUnchanged, hook.OutcomeSkipped,
}

func (r Result) rank() int { return slices.Index(worstFirst, r.Outcome) }

// joined is the worst of several results, with the others beside it.
func joined(all []Ended[Result]) (Result, error) {
	all[0].Result.Also = all[1:]
	return all[0].Result, all[0].Err
}
