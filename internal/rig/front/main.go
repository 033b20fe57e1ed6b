// Command front stands in for the programs of Mailu's "front" container.
//
// The image holds it under the three names that Mailu's scripts have,
// and it behaves as they do, bad habits included:
//
//	/start.py        PID 1; writes the configuration, starts dovecot and nginx
//	/config.py       deletes the pid files, renders the configuration, sends HUP
//	/certwatcher.py  polls /certs, then reloads or runs /config.py again
//
// It exists so that the deploy hook can be shown and tested against real
// nginx and dovecot processes without Mailu's images, its database or any
// backend. Nobody can log in. What it imitates was read in Mailu/Mailu,
// core/nginx and core/base/libs/socrate; what it leaves out is resolvers,
// HTTP/2, the renewing flavors' own renewal, and everything behind the front.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	os.Exit(run(filepath.Base(os.Args[0])))
}

func run(name string) int {
	var err error
	switch name {
	case "start.py":
		// A code of its own: PID 1 ends as nginx ended.
		return start()
	case "config.py":
		err = configure()
	case "certwatcher.py":
		err = watch()
	default:
		err = fmt.Errorf("called as %q, want start.py, config.py or certwatcher.py", name)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}
