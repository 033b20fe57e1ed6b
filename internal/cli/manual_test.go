package cli

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestManualNamesEveryCommandAndFlag(t *testing.T) {
	var out, complaints strings.Builder
	require.Equal(t, exitOK, Run(t.Context(), []string{"help", "--man"}, nil, nil, &out, &complaints))
	assert.Empty(t, complaints.String())
	text := out.String()
	plain := strings.ReplaceAll(text, `\-`, "-")
	for _, cmd := range commands() {
		assert.Contains(t, plain, usageLine(cmd))
		assert.Contains(t, plain, cmd.summary[1:])
		fs, _, _ := newFlags(cmd)
		fs.VisitAll(func(f *pflag.Flag) { assert.Contains(t, plain, `\fB--`+f.Name+`\fR`, cmd.name) })
	}
	for _, title := range []string{"Front", "Certificate", "DANE", "State", "Output", "CA", "Challenge", "Order", "DNS"} {
		assert.Equal(t, 1, strings.Count(text, ".SH "+strings.ToUpper(title)+" FLAGS\n"), title)
	}
	assert.NotContains(t, text, "\n'")
	if man, err := exec.LookPath("man"); err == nil {
		cmd := exec.Command(man, "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", "-")
		cmd.Stdin = strings.NewReader(text)
		cmd.Stderr = &complaints
		require.NoError(t, cmd.Run())
		assert.Empty(t, complaints.String())
	}
}
