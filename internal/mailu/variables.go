package mailu

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"strings"
)

// ReadVariables reads a file of KEY=value lines, as systemd's EnvironmentFile=
// and Compose's env_file do: # or ; begins a comment line, and # after a space a
// comment behind a value, as for Compose; one pair of quotes around a value is
// removed. A line of another form is an error, but the others are returned anyway.
func ReadVariables(name string) (map[string]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	values := map[string]string{}
	var wrong error
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff") // a byte order mark, as Windows editors write it
		}
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if key = strings.TrimSpace(key); !ok || key == "" || strings.ContainsAny(key, " \t") {
			wrong = cmp.Or(wrong, fmt.Errorf("%s:%d: not of the form KEY=value", name, n))
			continue
		}
		values[key] = unquote(uncomment(strings.TrimSpace(value)))
	}
	return values, cmp.Or(wrong, lines.Err())
}

// uncomment cuts the comment off a value, unless it is between quotes.
func uncomment(value string) string {
	if strings.HasPrefix(value, `"`) || strings.HasPrefix(value, "'") {
		if end := strings.IndexByte(value[1:], value[0]); end >= 0 && strings.HasPrefix(strings.TrimSpace(value[end+2:]), "#") {
			return value[:end+2]
		}
		return value
	}
	for i := range len(value) {
		if value[i] == '#' && (i == 0 || value[i-1] == ' ' || value[i-1] == '\t') {
			return strings.TrimSpace(value[:i])
		}
	}
	return value
}

func unquote(value string) string {
	if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		return value[1 : n-1]
	}
	return value
}
