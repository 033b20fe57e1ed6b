package main

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// fileID and entry are what python's watchdog remembers of a file. It asks
// stat, not lstat, so a link stands for what it leads to, and the switch of
// a directory link somewhere on the way shows as a new inode at the old path.
type fileID struct{ dev, ino uint64 }

type entry struct {
	id    fileID
	mtime int64 // nanoseconds
	size  int64
	dir   bool
}

type snapshot map[string]entry

// op is ordered as watchdog queues its events.
type op int

const (
	deleted op = iota
	modified
	created
	moved
)

// event says what happened to path; from is the old name of a moved file.
type event struct {
	op         op
	path, from string
}

// reaction is what the watcher does about an event.
type reaction int

const (
	ignore      reaction = iota
	reload               // the daemons read the files again
	reconfigure          // /config.py
)

// take lists the directories without descending. A link that leads nowhere is
// left out: to the watcher that file does not exist.
func take(dirs ...string) (snapshot, error) {
	snap := snapshot{}
	for _, dir := range dirs {
		names, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			path := filepath.Join(dir, name.Name())
			info, err := os.Stat(path)
			if err != nil {
				continue
			}
			snap[path] = newEntry(info)
		}
	}
	return snap, nil
}

func newEntry(info fs.FileInfo) entry {
	e := entry{mtime: info.ModTime().UnixNano(), size: info.Size(), dir: info.IsDir()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		e.id = fileID{uint64(st.Dev), st.Ino}
	}
	return e
}

func (s snapshot) paths() []string { return slices.Sorted(maps.Keys(s)) }

func (s snapshot) byID() map[fileID]string {
	byID := make(map[fileID]string, len(s))
	for _, path := range s.paths() {
		byID[s[path].id] = path
	}
	return byID
}

// diff lists the events that lead from before to after. A path that got another
// inode was deleted and created, unless the new inode was seen under another
// name before: then it was deleted and moved. Either way it counts twice.
func diff(before, after snapshot) []event {
	was, is := before.byID(), after.byID()
	var events []event
	add := func(e event, about entry) {
		if !about.dir {
			events = append(events, e)
		}
	}
	for _, path := range before.paths() {
		old := before[path]
		now, still := after[path]
		_, alive := is[old.id]
		switch {
		case still && now.id == old.id:
			if now.mtime != old.mtime || now.size != old.size {
				add(event{op: modified, path: path}, now)
			}
		case !alive:
			add(event{op: deleted, path: path}, old)
		}
	}
	for _, path := range after.paths() {
		now := after[path]
		if old, had := before[path]; had && old.id == now.id {
			continue
		}
		if from, known := was[now.id]; known {
			add(event{op: moved, path: path, from: from}, now)
		} else {
			add(event{op: created, path: path}, now)
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return int(a.op - b.op) })
	return events
}

// react decides as Mailu's handler does: only an overwritten file is merely
// reloaded, all else about the pair calls for a new configuration.
func react(e event, pair ...string) reaction {
	switch {
	case slices.Contains(pair, e.path) && e.op == modified:
		return reload
	case slices.Contains(pair, e.path):
		return reconfigure
	case e.op == moved && slices.Contains(pair, e.from):
		return reconfigure
	}
	return ignore
}
