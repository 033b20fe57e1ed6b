package cli

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mailu-hook/internal/report"
	"mailu-hook/internal/tlsa"
)

// jsonKeys are the keys of a document of that type, in the notation of docs/output.md:
// those of objects that have a table of their own are not followed.
func jsonKeys(at string, of reflect.Type) (keys []string) {
	switch {
	case of.Kind() == reflect.Pointer:
		return jsonKeys(at, of.Elem())
	case of.Kind() == reflect.Slice:
		return jsonKeys(at+"[]", of.Elem())
	case of.Kind() != reflect.Struct || of == reflect.TypeFor[time.Time]():
		return nil
	case at != "" && (of == reflect.TypeFor[report.Leaf]() || of == reflect.TypeFor[tlsa.Doc]() && !strings.HasPrefix(at, "published")):
		return nil
	}
	for i := range of.NumField() {
		name, option, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		mark := ""
		if option != "" {
			mark = "*"
		}
		key := strings.TrimPrefix(at+"."+name, ".")
		keys = append(append(keys, key+mark), jsonKeys(key, of.Field(i).Type)...)
	}
	return keys
}

// listedKeys are the keys in the table of that section of docs/output.md.
func listedKeys(t *testing.T, section string) (keys []string) {
	t.Helper()
	_, text, found := strings.Cut(guides(t)["docs/output.md"], "\n## "+section+"\n")
	require.True(t, found, section)
	text, _, _ = strings.Cut(text, "\n## ")
	for _, match := range regexp.MustCompile("(?m)^\\| `([^`]+)`(\\*?) \\|").FindAllStringSubmatch(text, -1) {
		keys = append(keys, match[1]+match[2])
	}
	require.NotEmpty(t, keys, section)
	return keys
}

func TestEveryKeyOfTheJSONHasALineInItsGuideAndNoOther(t *testing.T) {
	for section, of := range map[string]reflect.Type{
		"A deploy":     reflect.TypeFor[document](),
		"TLSA records": reflect.TypeFor[records](),
		"Generations":  reflect.TypeFor[[]generationDoc](),
		"An account":   reflect.TypeFor[accountDoc](),
	} {
		assert.ElementsMatch(t, jsonKeys("", of), listedKeys(t, section), section)
	}

	golden, err := os.ReadFile("../report/testdata/status_keys.txt")
	require.NoError(t, err)
	var status, certificate []string
	for key := range strings.Lines(string(golden)) {
		key = strings.TrimSpace(key)
		if inner, found := strings.CutPrefix(key, "fronts[].installed."); found {
			certificate = append(certificate, inner)
		} else if !strings.Contains(key, "leaf.") && !strings.HasPrefix(key, "fronts[].dane[]") {
			status = append(status, key)
		}
	}
	assert.ElementsMatch(t, certificate, listedKeys(t, "A certificate"))
	listed := slices.DeleteFunc(listedKeys(t, "Status"), func(key string) bool { return strings.HasSuffix(key, "*") }) // of looks from outside
	assert.ElementsMatch(t, status, listed)
}

func TestEveryMetricHasALineInItsGuideAndNoOther(t *testing.T) {
	source, err := os.ReadFile("../report/prometheus.go")
	require.NoError(t, err)
	var metrics []string
	for _, match := range regexp.MustCompile(`m\.gauge\("(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		metrics = append(metrics, "mailu_hook_"+match[1])
	}
	require.NotEmpty(t, metrics)
	assert.ElementsMatch(t, metrics, listedKeys(t, "Metrics"))
}
