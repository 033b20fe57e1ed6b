package watch

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"mailu-hook/internal/wait"
)

const (
	lookEvery = time.Minute
	lookAfter = time.Second // an event
	mostDirs  = 100
)

// Files is a feed that tells of changes in directories. The kernel tells of them at
// once; where it does not, as on NFS, a look each minute finds them. dirs is asked
// again with each look, so it may return other directories; those that do not exist
// are looked for.
func Files(dirs func() []string) Feed {
	return func(ctx context.Context, tell func(why string)) {
		f := &files{dirs: dirs}
		if w, err := fsnotify.NewWatcher(); err == nil { // without one, the looks remain
			defer w.Close()
			f.kernel = w
		}
		f.look()
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		var soon <-chan time.Time // a look at what events have told of
		told := false
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-f.events():
				if e.Op != fsnotify.Chmod {
					tell(filepath.Dir(e.Name) + " has changed")
					told = true
				}
			case <-f.errors(): // an overflow: something may have been missed
				tell("files have changed")
				told = true
			case <-ticker.C:
				if changed := f.look(); changed != "" {
					tell(changed + " has changed")
				}
				continue
			case <-soon:
				if changed := f.look(); changed != "" && (!told || f.grew) { // a mode, or what came into a directory before it was watched
					tell(changed + " has changed")
				}
				soon, told = nil, false
				continue
			}
			if soon == nil { // however many events come
				soon = time.After(lookAfter)
			}
		}
	}
}

// Changes is a feed that asks every few seconds whether something has changed, and tells
// if it has. It is for what others write, who may do so all the time: as long as it
// always has, the questions are further and further apart, up to a minute.
func Changes(what string, changed func() bool) Feed {
	return func(ctx context.Context, tell func(why string)) {
		const shortest, longest = 4 * time.Second, time.Minute
		for pause := shortest; wait.For(ctx, pause) == nil; {
			if !changed() {
				pause = max(pause/2, shortest)
				continue
			}
			tell(what + " has changed")
			pause = min(2*pause, longest)
		}
	}
}

// files is what is known of the directories.
type files struct {
	dirs   func() []string
	kernel *fsnotify.Watcher // nil: there is none
	seen   map[string]uint64 // what each directory held
	grew   bool              // the last look found a directory that the one before did not
}

func (f *files) events() <-chan fsnotify.Event {
	if f.kernel == nil {
		return nil
	}
	return f.kernel.Events
}

func (f *files) errors() <-chan error {
	if f.kernel == nil {
		return nil
	}
	return f.kernel.Errors
}

// look has the kernel watch the directories there are now, and returns one that is new
// or has changed since the last look, "" if none has.
func (f *files) look() (changed string) {
	dirs := f.dirs()
	dirs = dirs[:min(len(dirs), mostDirs)]
	f.follow(dirs)
	seen := make(map[string]uint64, len(dirs))
	f.grew = false
	for _, dir := range dirs {
		seen[dir] = content(dir)
		before, known := f.seen[dir]
		f.grew = f.grew || f.seen != nil && !known
		if f.seen != nil && before != seen[dir] {
			changed = dir
		}
	}
	f.seen = seen
	return changed
}

// follow has the kernel tell of these directories and no others.
func (f *files) follow(dirs []string) {
	if f.kernel == nil {
		return
	}
	for _, dir := range f.kernel.WatchList() {
		if !slices.Contains(dirs, dir) {
			_ = f.kernel.Remove(dir) // gone already
		}
	}
	for _, dir := range dirs {
		_ = f.kernel.Add(dir) // where it cannot, the looks remain
	}
}

func inode(info os.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return 0
}

// content sums up what a directory holds: the names, modes, sizes, times and inodes.
func content(dir string) uint64 {
	sum := fnv.New64()
	entries, _ := os.ReadDir(dir) // one that cannot be read holds nothing
	for _, entry := range entries {
		if info, err := os.Stat(filepath.Join(dir, entry.Name())); err == nil {
			fmt.Fprintln(sum, entry.Name(), info.Mode(), info.Size(), info.ModTime().UnixNano(), inode(info))
		}
	}
	return sum.Sum64()
}
