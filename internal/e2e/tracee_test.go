package e2e

import (
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func memory(tid int, addr uint64, n int) string {
	data := make([]byte, n)
	if n == 0 {
		return ""
	}
	local := []unix.Iovec{{Base: &data[0]}}
	local[0].SetLen(n)
	got, _ := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: n}}, 0)
	return string(data[:max(got, 0)])
}

// text reads a string that ends with a zero byte, and no page behind it.
func text(tid int, addr uint64) string {
	var all []byte
	for {
		n := 4096 - int(addr%4096)
		chunk := memory(tid, addr, n)
		before, _, ended := strings.Cut(chunk, "\x00")
		all = append(all, before...)
		if ended || len(chunk) < n {
			return string(all)
		}
		addr += uint64(n)
	}
}

// registers calls edit on the general registers of a stopped thread.
func registers(tid int, edit func(regs *[64]uint64)) error {
	var regs [64]uint64
	iov := unix.Iovec{Base: (*byte)(unsafe.Pointer(&regs))}
	iov.SetLen(int(unsafe.Sizeof(regs)))
	const generalRegisters = 1 // NT_PRSTATUS
	if err := ptrace(unix.PTRACE_GETREGSET, tid, generalRegisters, uintptr(unsafe.Pointer(&iov))); err != nil {
		return err
	}
	edit(&regs)
	return ptrace(unix.PTRACE_SETREGSET, tid, generalRegisters, uintptr(unsafe.Pointer(&iov)))
}

// skipCall makes the call that a thread is about to begin an invalid one.
func skipCall(tid int) error {
	if runtime.GOARCH == "arm64" {
		none := int32(-1)
		iov := unix.Iovec{Base: (*byte)(unsafe.Pointer(&none))}
		iov.SetLen(4)
		const callNumber = 0x404 // NT_ARM_SYSTEM_CALL
		return ptrace(unix.PTRACE_SETREGSET, tid, callNumber, uintptr(unsafe.Pointer(&iov)))
	}
	return registers(tid, func(regs *[64]uint64) { regs[15] = ^uint64(0) }) // orig_rax
}

func setReturn(tid int, value int64) error {
	result := map[string]int{"amd64": 10 /* rax */, "arm64": 0 /* x0 */}[runtime.GOARCH]
	return registers(tid, func(regs *[64]uint64) { regs[result] = uint64(value) })
}
