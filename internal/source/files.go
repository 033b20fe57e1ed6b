package source

// files are a certificate and a key that somebody named one by one. Whoever
// names a link means what it leads to, wherever that is.
var files = kind{
	is:         func(src Source) bool { return src.Lineage == "" },
	read:       func(src Source) (Pair, error) { return both(src, ReadFile) },
	unfinished: never,
}

// Files is the source of the files cert, leaf first, and key.
func Files(cert, key string) Source { return Source{CertFile: cert, KeyFile: key} }
