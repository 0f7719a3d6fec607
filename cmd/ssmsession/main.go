// Command ssmsession is a client for AWS Systems Manager Session Manager: a
// shell, commands and tunnels on managed nodes without the AWS CLI or its
// plugin, and a local service to try it against.
//
// This package is the only one that knows all the others: flags become options,
// options one call into internal/session. See docs/architecture.md.
package main

import "os"

func main() {
	x := program(os.Args, system())
	if x.signal != nil {
		dieOf(x.signal)
	}
	os.Exit(x.code)
}
