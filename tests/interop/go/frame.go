package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
)

const headerSize = 8

// settings of a connection, as the command line gives them.
type settings struct {
	checksum *crc32.Table
	maxFrame int
	timeout  time.Duration // until a frame begins, and again until it is whole
}

func parseSettings(variant, maxFrame, timeoutMs string) (settings, error) {
	tables := map[string]*crc32.Table{
		"ieee":       crc32.IEEETable,
		"castagnoli": crc32.MakeTable(crc32.Castagnoli),
	}
	table, known := tables[variant]
	limit, err := strconv.Atoi(maxFrame)
	milliseconds, err2 := strconv.Atoi(timeoutMs)
	if !known || err != nil || err2 != nil {
		return settings{}, fmt.Errorf("wrong settings: %s %s %s", variant, maxFrame, timeoutMs)
	}
	return settings{table, limit, time.Duration(milliseconds) * time.Millisecond}, nil
}

// peerError is what went wrong with a connection: a word for the kind, and the rest in words.
type peerError struct{ kind, text string }

func (e *peerError) Error() string { return e.kind + " " + e.text }

// ofSystem says which kind an error of the operating system is.
func ofSystem(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &peerError{"timeout", "the peer took too long"}
	}
	return &peerError{"closed", err.Error()}
}

// connection carries messages. After an error it must be closed.
type connection struct {
	net.Conn
	settings
	reader  *bufio.Reader
	payload []byte
}

func newConnection(conn net.Conn, s settings) *connection {
	return &connection{Conn: conn, settings: s, reader: bufio.NewReaderSize(conn, 65_536)}
}

// appendFrame encodes a message behind what is in a buffer: length, checksum, payload.
func (c *connection) appendFrame(out []byte, message proto.Message) ([]byte, error) {
	begin := len(out)
	out = append(out, make([]byte, headerSize)...)
	out, err := proto.MarshalOptions{}.MarshalAppend(out, message)
	if err != nil {
		return out[:begin], err
	}
	payload := out[begin+headerSize:]
	if len(payload) == 0 {
		return out[:begin], &peerError{"empty", "a message without any field cannot be sent"}
	}
	if len(payload) > c.maxFrame {
		text := fmt.Sprintf("the message has %d bytes, the limit is %d", len(payload), c.maxFrame)
		return out[:begin], &peerError{"too-large", text}
	}
	binary.LittleEndian.PutUint32(out[begin:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(out[begin+4:], crc32.Checksum(payload, c.checksum))
	return out, nil
}

// send hands over frames.
func (c *connection) send(frames []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return ofSystem(err)
	}
	if _, err := c.Write(frames); err != nil {
		return ofSystem(err)
	}
	return nil
}

// hasFrame says whether the next frame has come, so that receive does not wait.
func (c *connection) hasFrame() bool {
	if c.reader.Buffered() < headerSize {
		return false
	}
	header, _ := c.reader.Peek(headerSize)
	return int64(c.reader.Buffered()) >= headerSize+int64(binary.LittleEndian.Uint32(header))
}

// receive waits for a message; io.EOF if the peer closed its sending side between two frames.
func (c *connection) receive(message proto.Message) error {
	begun := c.reader.Buffered() > 0
	if err := c.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
		return ofSystem(err)
	}
	if _, err := c.reader.Peek(1); err == io.EOF {
		return io.EOF
	} else if err != nil {
		return ofSystem(err)
	}
	// From its first byte to its last a frame has the whole time once more.
	if !begun && c.reader.Buffered() < headerSize {
		if err := c.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
			return ofSystem(err)
		}
	}
	var header [headerSize]byte
	if _, err := io.ReadFull(c.reader, header[:]); err != nil {
		return ofSystem(err)
	}
	size := binary.LittleEndian.Uint32(header[:])
	// Judged before a byte of the payload is read, or has memory.
	if size == 0 || int64(size) > int64(c.maxFrame) {
		return &peerError{"length", fmt.Sprintf("the frame has %d bytes, allowed are 1 to %d", size, c.maxFrame)}
	}
	if cap(c.payload) < int(size) {
		c.payload = make([]byte, size)
	}
	payload := c.payload[:size]
	if _, err := io.ReadFull(c.reader, payload); err != nil {
		return ofSystem(err)
	}
	if crc32.Checksum(payload, c.checksum) != binary.LittleEndian.Uint32(header[4:]) {
		return &peerError{"checksum", "the payload has another checksum than the header says"}
	}
	if err := proto.Unmarshal(payload, message); err != nil {
		return &peerError{"decode", err.Error()}
	}
	return nil
}
