package reload

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"mailu-hook/internal/disk"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/say"
)

// reader is a container's root as this host's files know it.
type reader struct {
	uid      int      // on this host: 0 unless the container has a user namespace
	override bool     // it may read files of others (CAP_DAC_OVERRIDE or CAP_DAC_READ_SEARCH)
	inside   []idsMap // override does not reach files of owners that are not in its user namespace
}

// idsMap is a range of uids of this host that exist in a user namespace. All of them
// are more than an int holds on a processor of 32 bits.
type idsMap struct{ first, count int64 }

// Capabilities by which root reads files of others (capability.h).
const capDACOverride, capDACReadSearch = 1 << 1, 1 << 2

// reads reports whether the reader may read a file of mode 0600.
func (r reader) reads(owner int) bool {
	return owner == r.uid || r.override && slices.ContainsFunc(r.inside, func(m idsMap) bool {
		return int64(owner) >= m.first && int64(owner)-m.first < m.count
	})
}

// localReader returns the reader that a container's first process is.
func localReader(pid int) (r reader, err error) {
	status, err := readSome(proc(pid, "status"), maxStatus)
	if err != nil {
		return r, err
	}
	maps, err := readSome(proc(pid, "uid_map"), maxStatus)
	if err != nil {
		return r, err
	}
	r.uid = -1
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		switch {
		case key == "Uid" && len(fields) == 4:
			r.uid, err = strconv.Atoi(fields[1])
		case key == "CapEff" && len(fields) == 1:
			caps, _ := strconv.ParseUint(fields[0], 16, 64)
			r.override = caps&(capDACOverride|capDACReadSearch) != 0
		}
	}
	if err != nil || r.uid < 0 {
		return r, errors.New("its status names no user")
	}
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line) // first uid inside, first uid outside, count (user_namespaces(7))
		if len(fields) != 3 {
			continue
		}
		first, err := strconv.ParseInt(fields[1], 10, 64)
		count, cerr := strconv.ParseInt(fields[2], 10, 64)
		if err == nil && cerr == nil {
			r.inside = append(r.inside, idsMap{first, count})
		}
	}
	return r, nil
}

// everybody are all uids of this host.
var everybody = []idsMap{{0, 1 << 32}}

// everybodyElse are those that may be in a user namespace that nobody has seen: not
// this host's root.
var everybodyElse = []idsMap{{1, 1<<32 - 1}}

// reader returns who reads the pair in the front, and whether that is known: from the
// front's first process, from whose engine it is, or from what the engine was told to
// take away from it.
func (f *Front) reader() (reader, bool) {
	if f.in.isLocal() {
		r, err := localReader(f.in.pid)
		return r, err == nil
	}
	if f.root > 0 {
		return reader{uid: f.root, override: true, inside: everybodyElse}, true
	}
	return reader{override: false, inside: everybody}, f.confined
}

// readable returns a mailu.ErrUnsuitable if the front could not read a pair that is
// installed: new files belong to an owner that is not its root, and its root may not
// read what belongs to others.
func (f *Front) readable() error {
	r, known := f.reader()
	if !known {
		return nil
	}
	owner, err := disk.OwnerFor(f.CertsDir, f.KeyName)
	if err != nil { // on another host, or missing: opening the store says so
		return nil
	}
	if r.reads(owner.UID) {
		return nil
	}
	why := "it runs without CAP_DAC_OVERRIDE"
	if r.uid != 0 {
		why = fmt.Sprintf("its root is user %d of this host", r.uid)
	}
	return say.Hint(fmt.Errorf("%w: %s could not read a new key in %s, which would belong to user %d: %s", mailu.ErrUnsuitable, f.Container, f.CertsDir, owner.UID, why),
		"give the directory to the front's root: chown -R %d %s", r.uid, f.CertsDir)
}

// sees returns a mailu.ErrUnsuitable if the front's /certs is not the directory that
// now has the name of its mount: a link in the path leads elsewhere since the front
// started, or something was mounted over it.
func (f *Front) sees() error {
	if !f.in.isLocal() {
		return nil
	}
	root, err := os.OpenRoot(proc(f.in.pid, "root"))
	if err != nil {
		return nil // not for us to see
	}
	defer root.Close()
	theirs, err := root.Stat(mountPoint[1:])
	ours, oerr := os.Stat(f.CertsDir)
	if err != nil || oerr != nil || os.SameFile(theirs, ours) {
		return nil
	}
	return say.Hint(fmt.Errorf("%w: the /certs of %s is another directory than %s is now: a link in its path was changed, or something was mounted over it, since the container started", mailu.ErrUnsuitable, f.Container, f.CertsDir),
		"if %s is the right directory, restart the front: docker restart %s", f.CertsDir, f.Container)
}

const (
	maxStatus    = 64 << 10 // bytes read of a file of /proc/PID
	maxArguments = 4 << 10  // bytes of a command line: a process may show any number of them
	maxMountInfo = 1 << 20
	maxPid       = 32 // bytes of a pid file
)

// readSome reads the beginning of a file below /proc. Whatever a container puts there,
// it neither waits for it nor takes more than limit bytes.
func readSome(file string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readRegular(f, limit)
}

var errNotRegular = errors.New("not a regular file")

func readRegular(f *os.File, limit int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: f.Name(), Err: errNotRegular}
	}
	return io.ReadAll(io.LimitReader(f, limit))
}
