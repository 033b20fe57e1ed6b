package watch

import (
	"net"
	"strconv"
	"time"

	"mailu-hook/internal/say"
)

// Notifier tells systemd how the agent is doing (sd_notify(3)): datagrams to a socket.
// A nil Notifier tells nobody.
type Notifier struct {
	address *net.UnixAddr
	dog     time.Duration // how often systemd wants to hear of it; 0: never
	ready   bool
}

// NewNotifier is for the service manager that the environment names, nil if it names
// none.
func NewNotifier(env func(string) string) *Notifier {
	name := env("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if name[0] == '@' { // of the abstract namespace
		name = "\x00" + name[1:]
	}
	n := &Notifier{address: &net.UnixAddr{Name: name, Net: "unixgram"}}
	if microseconds, err := strconv.ParseInt(env("WATCHDOG_USEC"), 10, 64); err == nil && microseconds > 0 {
		n.dog = time.Duration(microseconds) * time.Microsecond / 2
	}
	return n
}

// Ready tells once that the agent has started.
func (n *Notifier) Ready() {
	if n != nil && !n.ready {
		n.ready = true
		n.tell("READY=1")
	}
}

// Status tells what the agent does.
func (n *Notifier) Status(text string) { n.tell("STATUS=" + say.OneLine(text)) }

// Alive feeds the watchdog.
func (n *Notifier) Alive() { n.tell("WATCHDOG=1") }

// Stopping tells that the agent ends.
func (n *Notifier) Stopping() { n.tell("STOPPING=1") }

// tell sends a state. That nobody receives it is no reason to do anything else.
func (n *Notifier) tell(state string) {
	if n == nil {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, n.address)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write([]byte(state))
}

// watchdog ticks as often as the watchdog wants to be fed, never if there is none.
func (n *Notifier) watchdog() (feed <-chan time.Time, stop func()) {
	if n == nil || n.dog == 0 {
		return nil, func() {}
	}
	ticker := time.NewTicker(n.dog)
	return ticker.C, ticker.Stop
}
