package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

func completionCommand() command {
	return command{
		name:    "completion",
		args:    "bash|zsh|fish",
		summary: "Print a completion script for a shell",
		examples: `  mailu-hook completion bash > /usr/share/bash-completion/completions/mailu-hook
  mailu-hook completion zsh > /usr/local/share/zsh/site-functions/_mailu-hook
  mailu-hook completion fish > /etc/fish/completions/mailu-hook.fish`,
		options: func() action { return &completionOptions{} },
	}
}

type completionOptions struct{}

func (*completionOptions) add(*flags) {}

func (*completionOptions) run(_ context.Context, i *invocation) (result, error) {
	scripts := map[string]func([]command) string{"bash": completeBash, "zsh": completeZsh, "fish": completeFish}
	if len(i.args) == 1 && scripts[i.args[0]] != nil {
		return text(scripts[i.args[0]](i.all)), nil
	}
	return nil, usageError("name one shell: bash, zsh or fish")
}

// names returns the names of the commands.
func names(all []command) (list []string) {
	for _, cmd := range all[1:] {
		list = append(list, cmd.name)
	}
	return list
}

// flagsOf returns the flags of cmd, with their dashes.
func flagsOf(cmd command) (list []string) {
	fs, _, _ := newFlags(cmd)
	fs.VisitAll(func(f *pflag.Flag) { list = append(list, "--"+f.Name) })
	return append(list, "--help")
}

func completeBash(all []command) string {
	var cases strings.Builder
	for _, cmd := range all[1:] {
		fmt.Fprintf(&cases, "    %s) words=%q ;;\n", "1,"+cmd.name, strings.Join(flagsOf(cmd), " "))
	}
	return fmt.Sprintf(`# bash completion for mailu-hook
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
`, cases.String(), strings.Join(append(names(all), flagsOf(all[0])...), " "))
}

func completeZsh(all []command) string {
	var cases strings.Builder
	for _, cmd := range all[1:] {
		fmt.Fprintf(&cases, "  %s) compadd -- %s ;;\n", cmd.name, strings.Join(flagsOf(cmd), " "))
	}
	return fmt.Sprintf(`#compdef mailu-hook
if (( CURRENT == 2 )); then
  compadd -- %s
elif [[ $words[CURRENT] == -* ]]; then
  case $words[2] in
%s  esac
else
  _files
fi
`, strings.Join(append(names(all), flagsOf(all[0])...), " "), cases.String())
}

func completeFish(all []command) string {
	var s strings.Builder
	s.WriteString("# fish completion for mailu-hook\n")
	for _, cmd := range all {
		condition := "__fish_seen_subcommand_from " + cmd.name
		if cmd.name == "" {
			condition = "__fish_use_subcommand"
		} else {
			fmt.Fprintf(&s, "complete -c mailu-hook -n __fish_use_subcommand -a %s -d %q\n", cmd.name, cmd.summary)
		}
		for _, flag := range flagsOf(cmd) {
			fmt.Fprintf(&s, "complete -c mailu-hook -n %q -l %s\n", condition, strings.TrimPrefix(flag, "--"))
		}
	}
	return s.String()
}
