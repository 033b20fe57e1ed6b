// Package survey looks at everything that status judges: the fronts that the
// engine knows, their ports and daemons, the certs directory, lineages, timers
// and TLSA records. It changes nothing and never opens a private key, so it can
// run as a user who may not read one.
//
// What it could not see is part of what it returns. It judges nothing: package
// health does.
package survey

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"mailu-hook/hook"
	"mailu-hook/internal/health"
	"mailu-hook/internal/mailu"
	"mailu-hook/internal/pki"
	"mailu-hook/internal/say"
	"mailu-hook/internal/source"
)

const (
	homeName   = ".mailu-hook" // that a deploy makes in the certs directory; see TestADeployIsRecognizedAsOurs
	ours       = homeName + "/live/"
	mountPoint = "/certs/" // where the front sees the directory
	maxFile    = 1 << 20
	maxLinks   = 40 // as Linux has it
)

// Directory looks at the certs directory of a front.
func Directory(facts mailu.Facts) health.Directory {
	d := health.Directory{Path: facts.CertsDir}
	for _, name := range []string{facts.CertName, facts.KeyName} {
		if !mailu.PlainName(name) {
			d.Err = fmt.Errorf("the front reads %s, which is not a file directly in %s", say.Foreign(name), d.Path)
			return d
		}
	}
	root, err := os.OpenRoot(d.Path)
	if err != nil {
		d.Err = err
		return d
	}
	defer root.Close()
	_, err = root.Lstat(homeName)
	d.Used = err == nil
	live, _ := root.Readlink(homeName + "/live") // for root only
	d.Live = hook.Generation(live)
	d.Cert, d.Key = lookAt(root, facts.CertName, "cert.pem"), lookAt(root, facts.KeyName, "key.pem")
	if d.Cert.Loads() {
		d.Chain, d.ChainErr = chainIn(root, facts.CertName)
	}
	return d
}

// lookAt finds out what a name points to as the front sees it: an absolute link
// into its /certs stays in the directory, any other leaves it. It follows the
// links of the name itself; [os.Root] takes care of those in the directories on
// the way, and does not let them leave either.
func lookAt(root *os.Root, name, file string) health.File {
	f := health.File{Name: name, Kind: health.Plain}
	at := name
	for range maxLinks {
		info, err := root.Lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist) && at == name:
			f.Kind = health.Missing
		case errors.Is(err, fs.ErrNotExist):
			f.Kind = health.Dangling
		case errors.Is(err, fs.ErrPermission), err != nil && at == name:
			f.Kind, f.Err = health.Unreadable, err
		case err != nil: // os.Root has no name for its error on a path that escapes
			f.Kind = health.Outward
		case info.Mode()&fs.ModeSymlink == 0:
			return f
		default:
			if at, err = step(root, at, &f); err == nil {
				if f.Target == ours+file {
					f.Kind = health.Ours
				}
				continue
			}
			f.Kind = health.Outward
		}
		return f
	}
	f.Kind = health.Dangling // in a circle
	return f
}

var errOutward = errors.New("leads out of the directory")

// step follows one link.
func step(root *os.Root, at string, f *health.File) (string, error) {
	target, err := root.Readlink(at)
	if err != nil {
		return "", err
	}
	if f.Target == "" {
		f.Target, f.Kind = target, health.Link
	}
	if inside, ok := strings.CutPrefix(path.Clean(target), mountPoint); ok {
		return inside, nil
	}
	next := path.Join(path.Dir(at), target)
	if path.IsAbs(target) || next == ".." || strings.HasPrefix(next, "../") {
		return "", errOutward
	}
	return next, nil
}

// chainIn reads the certificates of a file in the directory.
func chainIn(root *os.Root, name string) ([]*x509.Certificate, error) {
	at := name
	for range maxLinks { // absolute links into /certs are the container's, not os.Root's
		info, err := root.Lstat(at)
		if err != nil {
			return nil, err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			break
		}
		if at, err = step(root, at, &health.File{}); err != nil {
			return nil, err
		}
	}
	f, err := root.OpenFile(at, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return readChain(f)
}

// Lineage reads the chain of a source, the one for these names if it holds several.
func Lineage(ctx context.Context, src source.Source, names []string) health.Lineage {
	l := health.Lineage{Path: src.Lineage}
	l.Chain, l.Err = chainOf(ctx, src, names)
	l.Gone = errors.Is(l.Err, fs.ErrNotExist)
	return l
}

func chainOf(ctx context.Context, src source.Source, names []string) ([]*x509.Certificate, error) {
	if name := source.ChainFile(src); name != "" {
		f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		return readChain(f)
	}
	offer, err := hook.Read(ctx, src)
	if err != nil {
		return nil, err
	}
	bundle, err := offer.For(names)
	if err != nil {
		return nil, err
	}
	return bundle.Chain, nil
}

// lineages reads those that were named and those that deploys remember.
func lineages(ctx context.Context, named []string, memory hook.State, names []string) []health.Lineage {
	var sources []source.Source
	for _, path := range named {
		sources = append(sources, source.At(path))
	}
	for _, seen := range memory.Lineages {
		if !slices.ContainsFunc(sources, func(s source.Source) bool { return s.Lineage == seen.Lineage }) {
			sources = append(sources, seen.Source())
		}
	}
	var all []health.Lineage
	for _, src := range sources {
		l := Lineage(ctx, src, names)
		l.Last = memory.Last != nil && memory.Last.Lineage == src.Lineage
		Certbot(&l)
		all = append(all, l)
	}
	return all
}

// readChain reads the certificates of a regular file of sane size, and closes
// it. It skips other blocks, including a key, without decoding them further. Of a leaf
// that crypto/x509 does not parse it returns the outline.
func readChain(f *os.File) ([]*x509.Certificate, error) {
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, errors.New("not a regular file of sane size")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, err
	}
	chain, err := pki.ParseChain(data)
	if leaf := pki.Outline(data); err != nil && leaf != nil && pki.IsOutline(leaf) {
		return []*x509.Certificate{leaf}, nil
	}
	return chain, err
}
