package main

// leader is not played on Windows, which has no ptys to test with.
func leader() {}
