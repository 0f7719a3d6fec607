package main

import "os"

// hasty is the program, but that its checks are due after a tenth of the time, and
// wait no longer.
func hasty() {
	e := system()
	e.haste = 10
	os.Exit(program(os.Args, e).code)
}
