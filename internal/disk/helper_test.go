package disk

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"
)

// helperRole in the environment makes this binary a process that works on the
// directory in its argument, so that a test can kill or trace it.
const helperRole = "MAILU_HOOK_TEST_HELPER"

func TestMain(m *testing.M) {
	role := os.Getenv(helperRole)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := help(role, os.Args[1]); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func help(role, dir string) error {
	d, err := Open(dir)
	if err != nil {
		return err
	}
	switch role {
	case "hold":
		return hold(d)
	case "Lock":
		return makeAndLock(d)
	case "MakeDir":
		_, err := d.MakeDir("name")
		return err
	case "RemoveAll":
		return d.RemoveAll("name")
	case "Sync":
		return d.Sync()
	}
	return changes[role](d, "name")
}

// hold keeps the lock until stdin ends.
func hold(d *Dir) error {
	unlock, err := d.Lock(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	fmt.Println("locked")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// makeAndLock is how the directory of the lock comes to be.
func makeAndLock(d *Dir) error {
	if err := d.Mkdir("name"); err != nil {
		return err
	}
	home, err := d.OpenDir("name")
	if err != nil {
		return err
	}
	_, err = home.Lock(context.Background())
	return err
}
