package disk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// FileSystem names the kind of file system that the directory is on, for an
// error message.
func (d *Dir) FileSystem() string {
	f, err := d.root.Open(".")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return "unknown"
	}
	switch uint32(fs.Type) {
	case 0x2011bab0:
		return "exfat"
	case unix.MSDOS_SUPER_MAGIC:
		return "vfat"
	case 0xff534d42, 0xfe534d42, unix.SMB_SUPER_MAGIC:
		return "cifs"
	case 0x5346544e, 0x7366746e:
		return "ntfs"
	case unix.NFS_SUPER_MAGIC:
		return "nfs"
	case unix.V9FS_MAGIC:
		return "9p"
	case unix.FUSE_SUPER_MAGIC:
		return "fuse"
	}
	return fmt.Sprintf("type %#x", uint32(fs.Type))
}

// HasLinks reports whether the directory is on a file system that is known to have
// symbolic links. For others only trying tells.
func (d *Dir) HasLinks() bool {
	f, err := d.root.Open(".")
	if err != nil {
		return false
	}
	defer f.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return false
	}
	switch uint32(fs.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC, 0x2fc12fc1: // the last is zfs
		return true
	}
	return false
}
