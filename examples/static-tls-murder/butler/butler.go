// The Go part of the addon, behind a small C interface.
package main

import "C"

// All that the addon asks of it.
//
//export butler_greetings
func butler_greetings() C.uint {
	greetings := make(chan C.uint)
	go func() { greetings <- 3 }()
	return <-greetings
}

func main() {}
