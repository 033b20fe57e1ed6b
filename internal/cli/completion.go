package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

func completionCommand() command {
	return command{
		name:    "completion",
		args:    "bash|zsh|fish",
		summary: "Print a completion script for a shell",
		examples: `  mailu-hook completion bash > /etc/bash_completion.d/mailu-hook
  mailu-hook completion zsh > /usr/local/share/zsh/site-functions/_mailu-hook
  mailu-hook completion fish > /etc/fish/completions/mailu-hook.fish`,
		run: func(_ context.Context, c *call) error {
			if len(c.args) == 1 {
				switch c.args[0] {
				case "bash":
					return completeBash(c.stdout)
				case "zsh":
					return completeZsh(c.stdout)
				case "fish":
					return completeFish(c.stdout)
				}
			}
			return usageError("name one shell: bash, zsh or fish")
		},
	}
}

// names returns the names of the commands.
func names() (list []string) {
	for _, cmd := range commands()[1:] {
		list = append(list, cmd.name)
	}
	return list
}

// flagsOf returns the flags of cmd, with their dashes.
func flagsOf(cmd command) (list []string) {
	newFlagSet(cmd).VisitAll(func(f *pflag.Flag) { list = append(list, "--"+f.Name) })
	return append(list, "--help")
}

func completeBash(w io.Writer) error {
	var cases strings.Builder
	for _, cmd := range commands()[1:] {
		fmt.Fprintf(&cases, "    %s) words=%q ;;\n", "1,"+cmd.name, strings.Join(flagsOf(cmd), " "))
	}
	_, err := fmt.Fprintf(w, `# bash completion for mailu-hook
_mailu_hook() {
  local words cur=${COMP_WORDS[COMP_CWORD]}
  case $((COMP_CWORD > 1)),${COMP_WORDS[1]} in
%s    *) words=%q ;;
  esac
  if [[ $cur == -* || $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  else
    COMPREPLY=($(compgen -f -- "$cur"))
  fi
}
complete -F _mailu_hook mailu-hook
`, cases.String(), strings.Join(append(names(), flagsOf(commands()[0])...), " "))
	return err
}

func completeZsh(w io.Writer) error {
	var cases strings.Builder
	for _, cmd := range commands()[1:] {
		fmt.Fprintf(&cases, "  %s) compadd -- %s ;;\n", cmd.name, strings.Join(flagsOf(cmd), " "))
	}
	_, err := fmt.Fprintf(w, `#compdef mailu-hook
if (( CURRENT == 2 )); then
  compadd -- %s
elif [[ $words[CURRENT] == -* ]]; then
  case $words[2] in
%s  esac
else
  _files
fi
`, strings.Join(append(names(), flagsOf(commands()[0])...), " "), cases.String())
	return err
}

func completeFish(w io.Writer) error {
	if _, err := fmt.Fprintln(w, "# fish completion for mailu-hook"); err != nil {
		return err
	}
	for _, cmd := range commands() {
		condition := "__fish_seen_subcommand_from " + cmd.name
		if cmd.name == "" {
			condition = "__fish_use_subcommand"
		} else if _, err := fmt.Fprintf(w, "complete -c mailu-hook -n __fish_use_subcommand -a %s -d %q\n", cmd.name, cmd.summary); err != nil {
			return err
		}
		for _, flag := range flagsOf(cmd) {
			if _, err := fmt.Fprintf(w, "complete -c mailu-hook -n %q -l %s\n", condition, strings.TrimPrefix(flag, "--")); err != nil {
				return err
			}
		}
	}
	return nil
}
