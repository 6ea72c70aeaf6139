// Command peer speaks the protocol of docs/wire-protocol.md in Go. tests/interop/README.md says what it reads
// and prints.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 6 && arguments[0] == "serve":
		s, err := parseSettings(arguments[2], arguments[3], arguments[5])
		if err != nil {
			return err
		}
		return runServer(arguments[1], arguments[4], answer, s)
	case len(arguments) == 2 && arguments[0] == "serve-load":
		return runServer(arguments[1], loadPlaces, prepared(), loadSettings)
	case len(arguments) == 1 && arguments[0] == "call":
		return new(client).run()
	case len(arguments) == 1 && arguments[0] == "load":
		return runLoad()
	}
	return fmt.Errorf("usage: peer serve|call|serve-load|load, as tests/interop/README.md says")
}

// runServer serves until its standard input ends.
func runServer(endpoint, places string, handle handler, s settings) error {
	listener, err := listen(endpoint)
	if err != nil {
		return err
	}
	defer listener.Close() // removes the socket
	go serve(listener, handle, places, s)
	fmt.Println("listening")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
