package say

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPlainTextIsOneSafeLine(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"plain":                    {"nginx: [emerg] host not found", "nginx: [emerg] host not found"},
		"empty":                    {"", ""},
		"only space":               {" \t\r\n ", ""},
		"lines":                    {"one\ntwo\r\nthree\n", "one two three"},
		"tabs and runs of spaces":  {"a\t\tb   c", "a b c"},
		"escape sequence":          {"\x1b[31mred\x1b[0m", "[31mred [0m"},
		"bell, backspace, NUL":     {"a\x07b\x08c\x00d", "a b c d"},
		"C1 control":               {"a\u009bb", "a b"},
		"right-to-left override":   {"exe\u202egpj", "exe gpj"},
		"zero-width space":         {"a\u200bb", "a b"},
		"line separator":           {"a\u2028b", "a b"},
		"invalid UTF-8":            {"caf\xe9 \xff\xfe", "caf? ?"},
		"letters of all languages": {"Zertifikat für 邮件", "Zertifikat für 邮件"},
		"PEM":                      {"key: -----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n", "key: […]"},
		"PEM at the start":         {"-----BEGIN CERTIFICATE-----\nMIIE", " […]"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Plain(c.text)
			assert.Equal(t, c.want, got)
			assert.True(t, utf8.ValidString(got))
			assert.NotContains(t, got, "\n")
		})
	}
}

func TestNoByteOfPEMIsShownWhereverItIsCut(t *testing.T) {
	const secret = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
	for name, text := range map[string]string{
		"whole":                    "a -----BEGIN PRIVATE KEY-----\n" + secret + "\n-----END PRIVATE KEY-----\n",
		"without its end":          "a -----BEGIN RSA PRIVATE KEY-----\n" + secret,
		"without its beginning":    secret + "\n-----END PRIVATE KEY-----\nnginx: failed\n",
		"the second of two":        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n" + secret,
		"one that has begun to be": "KEY-----\n" + secret + "\n-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\n",
	} {
		t.Run(name, func(t *testing.T) {
			assert.NotContains(t, Plain(text), secret[:16])
			assert.NotContains(t, Foreign(text), secret[:16])
		})
	}
}

func TestLongTextIsCutBetweenCharacters(t *testing.T) {
	for _, c := range []string{"x", "ü", "邮", "😀"} {
		for pad := range 4 {
			got := Plain(strings.Repeat("-", pad) + strings.Repeat(c, 1000))
			require.True(t, utf8.ValidString(got))
			kept, cut := strings.CutSuffix(got, " […]")
			assert.True(t, cut)
			assert.LessOrEqual(t, len(kept), foreignLimit)
			assert.Greater(t, len(kept), foreignLimit-utf8.UTFMax)
		}
	}
	exact := strings.Repeat("x", foreignLimit)
	assert.Equal(t, exact, Plain(exact))
}

func TestForeignTextIsQuoted(t *testing.T) {
	assert.Equal(t, `"it said \"no\" and \\"`, Foreign(`it said "no" and \`))
	assert.Equal(t, `"one two"`, Foreign("one\ntwo"))
	assert.Equal(t, `""`, Foreign(""))
}

func FuzzPlainIsSafe(f *testing.F) {
	for _, seed := range []string{"", "a\nb", "\xff", "-----BEGIN", strings.Repeat("ü", 300)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := Plain(text)
		assert.True(t, utf8.ValidString(got))
		assert.LessOrEqual(t, len(got), foreignLimit+len(" […]"))
		assert.NotContains(t, got, "-----BEGIN")
		for _, r := range got {
			assert.False(t, r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0, "%q", got)
		}
	})
}

func TestHintTravelsWithTheErrorThatItWasGiven(t *testing.T) {
	cause := errors.New("no such file")
	err := Hint(cause, "look in %s", "/etc")
	assert.Equal(t, "no such file", err.Error(), "a hint is no part of the message")
	assert.Equal(t, "look in /etc", HintOf(err))
	require.ErrorIs(t, err, cause)
	assert.Equal(t, "look in /etc", HintOf(fmt.Errorf("reading: %w", err)))
	assert.Equal(t, "look in /etc", HintOf(errors.Join(errors.New("other"), err)))
}

func TestTheOutermostHintIsGiven(t *testing.T) {
	inner := Hint(errors.New("x"), "inner")
	assert.Equal(t, "outer", HintOf(Hint(fmt.Errorf("wrapped: %w", inner), "outer")))
}

func TestWithoutAnErrorThereIsNoHint(t *testing.T) {
	require.NoError(t, Hint(nil, "nothing"))
	assert.Empty(t, HintOf(nil))
	assert.Empty(t, HintOf(errors.New("bare")))
}
