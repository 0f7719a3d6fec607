package main

import "errors"

// become cannot be done here.
func become([]string) error { return errors.ErrUnsupported }
