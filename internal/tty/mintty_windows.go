package tty

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// pipeName returns the name of the pipe f, or nothing when f is no pipe or has
// no name that can be had.
func pipeName(f *os.File) string {
	// FILE_NAME_INFO: the length of the name in bytes, and the name.
	var info struct {
		length uint32
		name   [windows.MAX_PATH]uint16
	}
	err := control(f, func(fd int) error {
		pipe := windows.Handle(fd)
		kind, err := windows.GetFileType(pipe)
		if err != nil || kind != windows.FILE_TYPE_PIPE {
			return err
		}
		return windows.GetFileInformationByHandleEx(pipe, windows.FileNameInfo,
			(*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	})
	n := info.length / 2
	if err != nil || n > uint32(len(info.name)) {
		return ""
	}
	return windows.UTF16ToString(info.name[:n])
}
