package main

import "os"

// holdsBytes takes every pipe for one that somebody has put something into.
func holdsBytes(*os.File) bool { return true }
