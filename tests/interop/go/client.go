package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"google.golang.org/protobuf/proto"
	"peer/detection"
)

func connect(endpoint string, s settings) (*connection, error) {
	conn, err := net.Dial("unix", endpoint)
	if err != nil {
		return nil, &peerError{"connect", err.Error()}
	}
	return newConnection(conn, s), nil
}

// call sends tasks, all of them before the first response, and gives the results, which come in their order.
func (c *connection) call(tasks []*detection.DetectionTask, last bool, give func(*detection.DetectionResult)) error {
	var frames []byte
	for _, task := range tasks {
		var err error
		if frames, err = c.appendFrame(frames, task); err != nil {
			return err
		}
	}
	if len(tasks) == 1 && !last {
		if err := c.send(frames); err != nil {
			return err
		}
	} else {
		// While results are read: a server that can't get rid of its answers takes no more requests.
		go func() {
			if c.send(frames) == nil && last {
				c.Conn.(*net.UnixConn).CloseWrite()
			}
		}()
	}
	for _, task := range tasks {
		var result detection.DetectionResult
		if err := c.receive(&result); err == io.EOF {
			return &peerError{"closed", "the server closed the connection before it answered"}
		} else if err != nil {
			return err
		}
		if result.TaskId != task.TaskId {
			return &peerError{"mismatch", fmt.Sprintf("the result is of %q: %s", result.TaskId, result.GetErrorMessage())}
		}
		give(&result)
	}
	return nil
}

// client is the program's state between its commands.
type client struct{ *connection }

// run reads commands, and prints what came of each.
func (c *client) run() error {
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		words := strings.Fields(line)
		if err := c.do(words[0], words[1:]); err != nil {
			c.close()
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		}
	}
}

func (c *client) do(command string, words []string) error {
	switch command {
	case "open":
		return c.open(words)
	case "close":
		c.close()
		fmt.Println("ok")
	case "recode":
		return recode(words[0], words[1])
	case "call", "last":
		return c.calls(words, command == "last")
	default:
		fmt.Println("unsupported")
	}
	return nil
}

func (c *client) open(words []string) error {
	c.close()
	s, err := parseSettings(words[1], words[2], words[3])
	if err != nil {
		return err
	}
	if c.connection, err = connect(words[0], s); err != nil {
		return err
	}
	fmt.Println("ok")
	return nil
}

func (c *client) calls(words []string, last bool) error {
	if c.connection == nil {
		return &peerError{"closed", "there is no connection"}
	}
	tasks := make([]*detection.DetectionTask, len(words))
	for index, word := range words {
		tasks[index] = &detection.DetectionTask{}
		if err := fromHex(word, tasks[index]); err != nil {
			return err
		}
	}
	var wrong error
	err := c.call(tasks, last, func(result *detection.DetectionResult) {
		text, err := toHex(result)
		wrong = errors.Join(wrong, err)
		fmt.Println("result", text)
	})
	if err = errors.Join(err, wrong); err != nil || !last {
		return err
	}
	if err := c.receive(&detection.DetectionResult{}); err != io.EOF {
		return &peerError{"mismatch", "no end behind the last result"}
	}
	fmt.Println("end")
	return nil
}

func (c *client) close() {
	if c.connection != nil {
		c.Close()
		c.connection = nil
	}
}

func recode(kind, data string) error {
	var message proto.Message = &detection.DetectionTask{}
	if kind == "result" {
		message = &detection.DetectionResult{}
	}
	if err := fromHex(data, message); err != nil {
		return err
	}
	text, err := toHex(message)
	if err == nil {
		fmt.Println("message", text)
	}
	return err
}

func fromHex(text string, message proto.Message) error {
	data, err := hex.DecodeString(strings.Trim(text, "-"))
	if err == nil {
		err = proto.Unmarshal(data, message)
	}
	if err != nil {
		return &peerError{"decode", err.Error()}
	}
	return nil
}

func toHex(message proto.Message) (string, error) {
	data, err := proto.Marshal(message)
	if len(data) == 0 {
		return "-", err
	}
	return hex.EncodeToString(data), err
}
