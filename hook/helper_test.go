package hook

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"mailu-hook/internal/source"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// startHelper runs this binary in a role of its own and returns the process
// and what it prints, line by line. It is killed at the end of the test.
func startHelper(t *testing.T, role string, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), helperRole+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	stdin, err := cmd.StdinPipe() // a helper that outlives the test sees it end
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		kill(cmd)
	})
	return cmd, bufio.NewScanner(out)
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // says "killed", or that it was waited for already
}

// nextLine fails the test unless the helper prints another line.
func nextLine(t *testing.T, out *bufio.Scanner) string {
	t.Helper()
	require.True(t, out.Scan(), "the helper ended: %v", out.Err())
	require.NotContains(t, out.Text(), "error:")
	return out.Text()
}

// deployHelper installs the two lineages in args[1:] in turn, forever, into
// the store args[0], and prints each step as it begins.
func deployHelper(args []string) error {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for n := 0; ; n++ {
		b, err := readBundle(context.Background(), source.At(args[1+n%2]))
		if err != nil {
			return err
		}
		s, err := OpenStore(placeOf(args[0]))
		if err != nil {
			return err
		}
		_, err = Deploy(context.Background(), b, s, nil, Options{
			Rules:    Rules{AllowUntrusted: true},
			ByHand:   true,
			Progress: func(step Step) { fmt.Println(step) },
		})
		s.Close()
		if err != nil {
			return err
		}
	}
}

// stateOf is the state directory of the tests that use the certs directory dir,
// beside it.
func stateOf(dir string) string { return dir + ".state" }

func placeOf(dir string) Place { return Place{CertsDir: dir, StateDir: stateOf(dir)} }

// ledgerOf is the file in which the deploys into dir are remembered.
func ledgerOf(dir string) string {
	l, err := openLedger(stateOf(dir), dir)
	if err != nil {
		panic(err)
	}
	l.close()
	return filepath.Join(l.path(), l.name+".json")
}
