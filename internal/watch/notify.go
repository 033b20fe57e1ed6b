package watch

import (
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"mailu-hook/internal/say"
)

// Notifier tells systemd how the agent is doing (sd_notify(3)): datagrams to a socket.
// A nil Notifier tells nobody.
type Notifier struct {
	address *net.UnixAddr
	dog     time.Duration // how often systemd wants to hear of it; 0: never
	begun   atomic.Int64  // the start, and each reload
	ended   int64         // how many of them
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
	n.begun.Store(1)
	return n
}

// Reloading tells that the agent was asked to reload: it looks at everything again.
// The round that begins next ends that, not the one under way.
func (n *Notifier) Reloading() {
	var now unix.Timespec
	if n == nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return
	}
	n.begun.Add(1)
	n.tell(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

// Round tells that a round begins. ended tells that it has ended, and with it the start
// or the reload that was asked for before it began.
func (n *Notifier) Round(why string) (ended func()) {
	if n == nil {
		return func() {}
	}
	begun := n.begun.Load()
	n.tell("STATUS=working, because " + say.OneLine(why))
	return func() {
		n.tell("STATUS=waiting")
		if n.ended != begun && n.begun.Load() == begun {
			n.ended = begun
			n.tell("READY=1")
		}
	}
}

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
