package source

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const mostWatched = 50 // directories of one source

// Watched are the directories in which something changes when src is replaced: that
// of the source, where its links lead, and those below it that are read.
func Watched(src Source) (dirs []string) {
	if src.Lineage == "" {
		return nil
	}
	add := func(path string) {
		info, err := os.Stat(path)
		if err == nil && !info.IsDir() {
			path = filepath.Dir(path)
		}
		for err != nil && path != "/" { // where it will come to be, with what is above it
			path = filepath.Dir(path)
			_, err = os.Stat(path)
		}
		dirs = append(dirs, path)
	}
	add(src.Lineage)
	if real, err := filepath.EvalSymlinks(src.Lineage); err == nil && real != src.Lineage {
		add(real)
	}
	if kindOf(src).name != directory.name {
		return dirs
	}
	_ = filepath.WalkDir(src.Lineage+"/", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || !entry.IsDir() || filepath.Clean(path) == src.Lineage:
			return nil
		case strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		}
		dirs = append(dirs, filepath.Clean(path))
		rel, _ := filepath.Rel(src.Lineage, path) // it is below
		if strings.Count(rel, "/")+1 >= deepest {
			return fs.SkipDir
		}
		return nil
	})
	return dirs[:min(len(dirs), mostWatched)]
}
