package hook

import (
	"errors"
	"time"

	"mailu-hook/internal/mailu"
)

// Outcome is how a deploy ended, in one word that users script against.
type Outcome string

// The outcomes. OutcomeFailed is any other error; nothing was changed.
const (
	OutcomeInstalled      Outcome = "installed"
	OutcomeUnchanged      Outcome = "unchanged"
	OutcomeSkipped        Outcome = "skipped"
	OutcomeRejected       Outcome = "rejected"
	OutcomeRolledBack     Outcome = "rolled_back"
	OutcomeRollbackFailed Outcome = "rollback_failed"
	OutcomePending        Outcome = "pending"
	OutcomeFailed         Outcome = "failed"
	OutcomeWouldInstall   Outcome = "would_install"
)

// Step is a part of the transaction, by the name it has in the output.
type Step string

// The steps, in order. StepRollback takes the place of what follows a refusal.
const (
	StepLook     Step = "look"
	StepValidate Step = "validate"
	StepConsult  Step = "guard"
	StepStage    Step = "stage"
	StepSwitch   Step = "switch"
	StepReload   Step = "reload"
	StepVerify   Step = "verify"
	StepSettle   Step = "settle"
	StepRollback Step = "rollback"
)

// Result is what a deploy did. It is complete whatever the error.
type Result struct {
	Outcome    Outcome
	Reason     string // of a skip
	Bundle     *Bundle
	Generation Generation // that is live at the end; "" before the first
	Endpoints  []mailu.Endpoint
	Warnings   []string
	Next       time.Time // when sync will try again; zero after success
	Durations  map[Step]time.Duration
	Served     time.Duration // from the start until every port that counts served the new leaf
	Total      time.Duration
}

// OutcomeOf is the word for how a deploy ended with err.
func OutcomeOf(err error) Outcome {
	var rejection *Rejection
	switch {
	case err == nil:
		return OutcomeInstalled
	case errors.As(err, &rejection):
		return OutcomeRejected
	case errors.Is(err, ErrRolledBack):
		return OutcomeRolledBack
	case errors.Is(err, ErrRollbackFailed):
		return OutcomeRollbackFailed
	case errors.Is(err, ErrPending), errors.Is(err, ErrUnsettled), errors.Is(err, ErrWaiting):
		return OutcomePending
	}
	return OutcomeFailed
}
