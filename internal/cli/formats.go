package cli

import "mailu-hook/internal/say"

// documented is a result that can be printed in every one of deployFormats. err is
// how the command ended.
type documented interface {
	inWords(err error) string // "": the error says it all
	document(err error) any   // for JSON; its keys are never renamed
}

// deployFormats are those of every command but status, the default first. To add
// one, write its function and name it here.
var deployFormats = []struct {
	name string
	tell func(documented, error) string
}{
	{"text", documented.inWords},
	{"json", func(d documented, err error) string { return say.JSON(d.document(err)) }},
}

// deployFormatNames are the words that choose a format.
func deployFormatNames() []string {
	var names []string
	for _, f := range deployFormats {
		names = append(names, f.name)
	}
	return names
}

// inFormat is a result in the format of that name; the first, if there is none.
func inFormat(name string, d documented, err error) string {
	for _, f := range deployFormats {
		if f.name == name {
			return f.tell(d, err)
		}
	}
	return deployFormats[0].tell(d, err)
}
