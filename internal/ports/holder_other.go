//go:build !linux

package ports

// holder would name the program that listens on a TCP port. Other systems tell
// that only to programs that are not always there.
func holder(int) string { return "" }
