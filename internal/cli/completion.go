package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

var shells = []struct {
	name   string
	script func([]command) string
}{{"bash", completeBash}, {"zsh", completeZsh}, {"fish", completeFish}}

func shellNames() (list []string) {
	for _, s := range shells {
		list = append(list, s.name)
	}
	return list
}

func completionCommand() command {
	return command{
		name:    "completion",
		args:    "bash|zsh|fish",
		summary: "Print a completion script for a shell",
		examples: `  mailu-hook completion bash > /etc/bash_completion.d/mailu-hook
  mailu-hook completion zsh > /usr/local/share/zsh/site-functions/_mailu-hook
  mailu-hook completion fish > /etc/fish/completions/mailu-hook.fish`,
		options: func() action { return &completionOptions{} },
	}
}

type completionOptions struct{}

func (*completionOptions) add(*flags) {}

func (*completionOptions) run(_ context.Context, i *invocation) (result, error) {
	for _, s := range shells {
		if len(i.args) == 1 && i.args[0] == s.name {
			return text(s.script(i.all)), nil
		}
	}
	return nil, usageError("name one shell: %s", oneOf(shellNames()))
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

// valueOf says what a flag takes: one of some words, or a DIR, a FILE or anything
// else by the word that stands for it in help; "" for a flag that takes nothing.
func valueOf(f *pflag.Flag) (words []string, kind string) {
	if f.NoOptDefVal != "" {
		return nil, ""
	}
	kind, _ = explained(f)
	return choicesOf(f), cmp.Or(kind, "VALUE")
}

// argumentsOf are the words that may follow a command.
func argumentsOf(cmd command, all []command) []string {
	switch args := strings.Trim(cmd.args, "[]"); {
	case args == "COMMAND":
		return names(all)
	case strings.Contains(args, "|"):
		return strings.Split(args, "|")
	}
	return nil
}

// takesFile reports whether the argument of a command is a file or directory.
func takesFile(cmd command) bool { return strings.Contains(cmd.args, "SOURCE") }

// The three shells choose alike: values after a flag that takes some, flags after a
// dash, else arguments.

func completeBash(all []command) string {
	var values, flags, arguments strings.Builder
	for _, cmd := range all {
		name := cmp.Or(cmd.name, "-*")
		fs, _, _ := newFlags(cmd)
		fs.VisitAll(func(f *pflag.Flag) {
			words, kind := valueOf(f)
			switch {
			case words != nil:
				fmt.Fprintf(&values, "    %s,--%s) COMPREPLY=($(compgen -W %q -- \"$cur\")); return ;;\n", name, f.Name, strings.Join(words, " "))
			case kind == "DIR" || kind == "FILE":
				fmt.Fprintf(&values, "    %s,--%s) COMPREPLY=($(compgen -%c -- \"$cur\")); return ;;\n", name, f.Name, kind[0]|0x20)
			case kind != "":
				fmt.Fprintf(&values, "    %s,--%s) return ;;\n", name, f.Name)
			}
		})
		fmt.Fprintf(&flags, "      %s) COMPREPLY=($(compgen -W %q -- \"$cur\")) ;;\n", name, strings.Join(flagsOf(cmd), " "))
		if words := argumentsOf(cmd, all); words != nil {
			fmt.Fprintf(&arguments, "      %s) COMPREPLY=($(compgen -W %q -- \"$cur\")) ;;\n", name, strings.Join(words, " "))
		} else if takesFile(cmd) {
			fmt.Fprintf(&arguments, "      %s) COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n", name)
		}
	}
	return fmt.Sprintf(`# bash completion for mailu-hook
_mailu_hook() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}
  COMPREPLY=()
  # bash splits --flag=value at the equals sign
  if [[ $prev == = ]]; then
    prev=${COMP_WORDS[COMP_CWORD-2]}
  elif [[ $cur == = ]]; then
    cur=
  fi
  case $command,$prev in
%s  esac
  if [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W %q -- "$cur"))
  elif [[ $cur == -* ]]; then
    case $command in
%s    esac
  else
    case $command in
%s    esac
  fi
}
complete -o filenames -F _mailu_hook mailu-hook
`, values.String(), strings.Join(append(names(all), flagsOf(all[0])...), " "), flags.String(), arguments.String())
}

func completeZsh(all []command) string {
	var values, flags, arguments strings.Builder
	for _, cmd := range all {
		name := cmp.Or(cmd.name, "-*")
		fs, _, _ := newFlags(cmd)
		fs.VisitAll(func(f *pflag.Flag) {
			words, kind := valueOf(f)
			switch {
			case words != nil:
				fmt.Fprintf(&values, "  %s,--%s) compadd -- %s; return ;;\n", name, f.Name, strings.Join(words, " "))
			case kind == "DIR":
				fmt.Fprintf(&values, "  %s,--%s) _files -/; return ;;\n", name, f.Name)
			case kind == "FILE":
				fmt.Fprintf(&values, "  %s,--%s) _files; return ;;\n", name, f.Name)
			case kind != "":
				fmt.Fprintf(&values, "  %s,--%s) return ;;\n", name, f.Name)
			}
		})
		fmt.Fprintf(&flags, "    %s) compadd -- %s ;;\n", name, strings.Join(flagsOf(cmd), " "))
		if words := argumentsOf(cmd, all); words != nil {
			fmt.Fprintf(&arguments, "    %s) compadd -- %s ;;\n", name, strings.Join(words, " "))
		} else if takesFile(cmd) {
			fmt.Fprintf(&arguments, "    %s) _files ;;\n", name)
		}
	}
	return fmt.Sprintf(`#compdef mailu-hook
case $words[2],$words[CURRENT-1] in
%sesac
if (( CURRENT == 2 )); then
  compadd -- %s
elif [[ $words[CURRENT] == -* ]]; then
  case $words[2] in
%s  esac
else
  case $words[2] in
%s  esac
fi
`, values.String(), strings.Join(append(names(all), flagsOf(all[0])...), " "), flags.String(), arguments.String())
}

func completeFish(all []command) string {
	var s strings.Builder
	s.WriteString("# fish completion for mailu-hook\ncomplete -c mailu-hook -f\n")
	for _, cmd := range all {
		condition := "__fish_seen_subcommand_from " + cmd.name
		if cmd.name == "" {
			condition = "__fish_use_subcommand"
		} else {
			fmt.Fprintf(&s, "complete -c mailu-hook -n __fish_use_subcommand -a %s -d %q\n", cmd.name, cmd.summary)
		}
		if words := argumentsOf(cmd, all); words != nil {
			fmt.Fprintf(&s, "complete -c mailu-hook -n %q -a %q\n", condition, strings.Join(words, " "))
		} else if takesFile(cmd) {
			fmt.Fprintf(&s, "complete -c mailu-hook -n %q -F\n", condition)
		}
		fs, _, _ := newFlags(cmd)
		fs.VisitAll(func(f *pflag.Flag) {
			takes := ""
			words, kind := valueOf(f)
			switch {
			case words != nil:
				takes = fmt.Sprintf(" -x -a %q", strings.Join(words, " "))
			case kind == "DIR":
				takes = " -x -a '(__fish_complete_directories)'"
			case kind == "FILE":
				takes = " -r -F"
			case kind != "":
				takes = " -x"
			}
			fmt.Fprintf(&s, "complete -c mailu-hook -n %q -l %s%s\n", condition, f.Name, takes)
		})
		fmt.Fprintf(&s, "complete -c mailu-hook -n %q -l help\n", condition)
	}
	return s.String()
}
