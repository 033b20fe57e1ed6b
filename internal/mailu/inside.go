package mailu

// Inside is what goes on in a front container, as its processes and pid files show.
type Inside struct {
	Daemons        []Daemon // nginx, then dovecot
	NginxOnly      bool     // Mailu 2.0 and older: nginx is PID 1 and serves all ports
	Watching       bool     // the watcher of the certificate files runs
	WatcherStopped bool     // it is stopped by a signal, as a killed deploy leaves it
	Configuring    bool     // config.py is writing the configuration
}

// Daemon is nginx or dovecot as its processes and its pid file show it.
type Daemon struct {
	Name, PidFile string
	Runs          bool
	Pid           PidState // PidUnseen if it does not run
}

// PidState is the state of a pid file.
type PidState string

// The states of a pid file.
const (
	PidUnseen PidState = "unseen"
	PidIntact PidState = "intact"
	PidLost   PidState = "lost"
	PidWrong  PidState = "wrong" // empty, or the pid of something else
)
