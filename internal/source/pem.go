package source

import "context"

// pemFile is one file with a certificate, its chain and its key, in any order, as
// HAProxy wants it.
var pemFile = kind{
	name: "a PEM file",
	is:   func(_ Source, at look) bool { return at.file },
	read: func(_ context.Context, src Source) ([]Pair, error) {
		data, err := ReadFile(src.Lineage)
		if err != nil {
			return nil, err
		}
		return pairsIn(src.Lineage, src.Lineage, data)
	},
	unfinished: whileIncomplete,
}

// shown is PEM that was read from elsewhere, such as standard input.
var shown = kind{
	name: "PEM on standard input",
	is:   func(src Source, _ look) bool { return src.shown != nil },
	read: func(_ context.Context, src Source) ([]Pair, error) {
		pairs, err := pairsIn("", src.CertFile, *src.shown)
		for i := range pairs {
			pairs[i].KeyFile = src.KeyFile
		}
		return pairs, err
	},
	unfinished: never,
}

// Shown is the source of PEM that name, such as standard input, held.
func Shown(name string, data []byte) Source {
	return Source{CertFile: name, KeyFile: name, shown: &data}
}

// pairsIn finds the pairs in the content of a file. If there is but one, it is
// returned as it was found, for package hook to say what is wrong with it.
func pairsIn(lineage, file string, data []byte) ([]Pair, error) {
	var c collection
	c.add(file, data)
	all := c.pairs(lineage)
	switch len(all) {
	case 0:
		if !isPEM(data) {
			return []Pair{{Source: Source{Lineage: lineage, CertFile: file, KeyFile: file}, Cert: data, Key: data}}, nil // it is told which format this is
		}
		return nil, c.lack(file)
	case 1:
		all[0].Cert, all[0].Key = data, data
	}
	return all, nil
}
