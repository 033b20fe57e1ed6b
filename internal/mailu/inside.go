package mailu

// Inside is what goes on in a front container, as its processes and pid files
// tell.
type Inside struct {
	Daemons        []Daemon // nginx, then dovecot
	NginxOnly      bool     // Mailu 2.0 and older: nginx is PID 1 and serves all ports
	Watching       bool     // the watcher of the certificate files runs
	WatcherStopped bool     // and is stopped by a signal, as a deploy that was killed leaves it
	Configuring    bool     // config.py runs: the configuration is being written
}

// Daemon is one of the two as its processes and its pid file tell.
type Daemon struct {
	Name, PidFile string
	Runs          bool
	Pid           PidState // PidUnseen when it does not run
}

// PidState is what a pid file is good for.
type PidState string

// The states of a pid file.
const (
	PidUnseen PidState = "unseen"
	PidIntact PidState = "intact"
	PidLost   PidState = "lost"
	PidWrong  PidState = "wrong" // empty, or with the number of something else
)
