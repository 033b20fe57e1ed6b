// Package say is how errors speak to an administrator: a hint travels with an
// error from where the remedy is known to where it is printed, and text that
// others wrote (nginx, Docker, a CA) is made safe to show.
package say

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }
func (h hinted) Hint() string  { return h.hint }

// Hint attaches to err what its reader should do next. A nil err stays nil.
func Hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return hinted{err, fmt.Sprintf(format, args...)}
}

// HintOf returns the outermost hint that err carries, "" if it carries none.
func HintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// OneLine makes text of any origin fit for a line of a terminal or a log: valid
// UTF-8 on one line, and nothing that does not print. It is what every message
// passes through last, because certbot takes a hook's output that is not UTF-8
// for a failed renewal.
func OneLine(text string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "?"), func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
}

const foreignLimit = 400 // bytes of foreign text shown: about five lines of a terminal

// Foreign quotes text from outside the program, made Plain.
func Foreign(text string) string { return strconv.Quote(Plain(text)) }

// Plain makes text from outside the program safe to show: one line of valid
// UTF-8 without control characters, at most 400 bytes of it, and never a byte
// of PEM, so that neither a terminal nor a log can be misled by it.
func Plain(text string) string {
	text, _, cut := strings.Cut(text, "-----BEGIN")
	if end := strings.LastIndex(text, "-----END"); end >= 0 { // of a block whose beginning was lost
		text, cut = text[end+len("-----END"):], true
	}
	text = OneLine(text)
	if len(text) > foreignLimit {
		end := foreignLimit
		for !utf8.RuneStart(text[end]) {
			end--
		}
		text, cut = text[:end], true
	}
	if cut {
		text += " […]"
	}
	return text
}

const namesShown = 8

// Names lists names from outside the program, made Plain; of more than eight it
// says how many are left out.
func Names(names []string) string {
	if n := len(names); n > namesShown {
		names = append(names[:namesShown:namesShown], fmt.Sprintf("and %d more", n-namesShown))
	}
	return Plain(strings.Join(names, ", "))
}

// Time is a moment as people read it: to the minute, in UTC, and saying so.
func Time(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// Day is the date of a moment in UTC.
func Day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// JSON is a document as all commands print it. It must have no field that cannot
// be encoded.
func JSON(document any) string {
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(document)
	return out.String()
}
