package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"

	"google.golang.org/protobuf/proto"
	"peer/detection"
)

// flushAt is how many bytes of answers are gathered at most while more requests are in hand.
const flushAt = 65_536

type handler func(*detection.DetectionTask) *detection.DetectionResult

// listen opens a socket for this user alone. A dead server's is removed, and nothing else is.
func listen(endpoint string) (net.Listener, error) {
	probe, err := net.Dial("unix", endpoint)
	if err == nil {
		probe.Close()
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if found, err := os.Lstat(endpoint); err == nil && found.Mode().Type() == os.ModeSocket {
			os.Remove(endpoint)
		}
	}
	before := syscall.Umask(0o177)
	defer syscall.Umask(before)
	return net.Listen("unix", endpoint) // fails where something is left
}

// serve answers until the listener is closed. A connection over the limit is closed at once.
func serve(listener net.Listener, handle handler, places string, s settings) {
	limit, err := strconv.Atoi(places)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	taken := make(chan struct{}, limit)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		select {
		case taken <- struct{}{}:
			go func() {
				defer func() { <-taken }()
				defer conn.Close()
				converse(newConnection(conn, s), handle)
			}()
		default:
			conn.Close()
		}
	}
}

func converse(c *connection, handle handler) {
	var answers []byte
	for {
		var task detection.DetectionTask
		if err := c.receive(&task); err != nil {
			c.refuse(answers, err)
			return
		}
		result := handle(&task)
		var err error
		answers, err = c.appendFrame(answers, result)
		var refused *peerError
		if errors.As(err, &refused) { // the client is told instead
			answers, err = c.appendFrame(answers, failure(result.TaskId, refused.text))
		}
		if err != nil {
			return
		}
		if !c.hasFrame() || len(answers) >= flushAt {
			if c.send(answers) != nil {
				return
			}
			answers = answers[:0]
		}
	}
}

// refuse sends what was answered before a connection's end, and where the peer broke the protocol, a failure
// that says how.
func (c *connection) refuse(answers []byte, err error) {
	var refused *peerError
	if errors.As(err, &refused) {
		switch refused.kind {
		case "length", "checksum", "decode":
			if more, err := c.appendFrame(answers, failure("", "protocol violation: "+refused.text)); err == nil {
				answers = more
			}
		case "timeout":
		default:
			return
		}
	} else if err != io.EOF {
		return
	}
	if len(answers) > 0 {
		c.send(answers) // whether it arrives or not, this is the end
	}
}

func failure(taskID, text string) *detection.DetectionResult {
	return &detection.DetectionResult{TaskId: taskID, ErrorMessage: proto.String(text)}
}
