//go:build unix

package tty

import "os"

// pipeName is for Windows; here pipes have no names that would tell anything.
func pipeName(*os.File) string { return "" }
