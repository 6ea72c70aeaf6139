package main

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"peer/detection"
)

// As this project's own contender is: tests/benchmarks/contenders/ours.py.
const loadPlaces = "256"

var loadSettings = settings{crc32.IEEETable, 1 << 20, 30 * time.Second}

// prepared answers tasks by their ids, as tests/benchmarks/messages.py does.
func prepared() handler {
	results := map[string]*detection.DetectionResult{}
	for name, number := range map[string]int{"100": 100, "1000": 1_000} {
		results[name] = &detection.DetectionResult{TaskId: name, Success: true, Processes: records(number)}
	}
	largest := &detection.ProcessRecord{Pid: 1, Name: "p", CommandLine: []string{strings.Repeat("x", 1<<20-64)}}
	results["1MiB"] = &detection.DetectionResult{
		TaskId: "1MiB", Success: true, Processes: []*detection.ProcessRecord{largest},
	}
	return func(task *detection.DetectionTask) *detection.DetectionResult {
		if task.TaskId == "1ms" {
			time.Sleep(time.Millisecond)
		}
		if result, known := results[task.TaskId]; known {
			return result
		}
		return &detection.DetectionResult{TaskId: task.TaskId, Success: true}
	}
}

// load is what a job does: each operation is repeated by a goroutine of its own.
type load struct {
	operations  []func() error
	callsEach   int
	connections []*connection
}

func openLoad(use, message, path string, number int) (*load, error) {
	task := &detection.DetectionTask{TaskId: message}
	expected := map[string]int{"100": 100, "1000": 1_000, "1MiB": 1}[message]
	l := &load{callsEach: 1}
	call := func(c *connection, tasks []*detection.DetectionTask) error {
		return c.call(tasks, false, func(result *detection.DetectionResult) {
			if !result.Success || len(result.Processes) != expected {
				panic("a wrong answer to " + message)
			}
		})
	}
	if use == "connect" {
		l.operations = append(l.operations, func() error {
			c, err := connect(path, loadSettings)
			if err != nil {
				return err
			}
			defer c.Close()
			return call(c, []*detection.DetectionTask{task})
		})
		return l, nil
	}
	tasks, clients := []*detection.DetectionTask{task}, number
	if use == "pipelined" {
		tasks, clients, l.callsEach = slices.Repeat(tasks, number), 1, number
	}
	for range clients {
		c, err := connect(path, loadSettings)
		if err != nil {
			return nil, err
		}
		l.connections = append(l.connections, c)
		l.operations = append(l.operations, func() error { return call(c, tasks) })
	}
	return l, nil
}

// run repeats the operations for so long, and at least so often, and returns what each took.
func (l *load) run(duration time.Duration, least int, pause time.Duration) ([]time.Duration, error) {
	times := make([][]time.Duration, len(l.operations))
	errs := make([]error, len(l.operations))
	until := time.Now().Add(duration)
	var group sync.WaitGroup
	for index, operation := range l.operations {
		group.Add(1)
		go func() {
			defer group.Done()
			for begin := time.Now(); begin.Before(until) || len(times[index]) < least; begin = time.Now() {
				if errs[index] = operation(); errs[index] != nil {
					return
				}
				times[index] = append(times[index], time.Since(begin))
				if pause > 0 {
					time.Sleep(pause)
				}
			}
		}()
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return slices.Concat(times...), nil
}

func (l *load) close() {
	for _, c := range l.connections {
		c.Close()
	}
}

// runLoad reads commands, and prints what came of each: tests/benchmarks/contenders/native.py has them.
func runLoad() error {
	lines := bufio.NewReader(os.Stdin)
	l := &load{}
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		words := strings.Fields(line)
		switch words[0] {
		case "open":
			number, _ := strconv.Atoi(words[4])
			opened, err := openLoad(words[1], words[2], words[3], number)
			if err == nil {
				l = opened
			}
			report(err, "ok")
		case "run":
			seconds, _ := strconv.ParseFloat(words[1], 64)
			least, _ := strconv.Atoi(words[2])
			pause, _ := strconv.Atoi(words[3])
			begin := time.Now()
			times, err := l.run(
				time.Duration(seconds*1e9), least, time.Duration(pause)*time.Microsecond,
			)
			seconds = time.Since(begin).Seconds()
			if err != nil {
				report(err, "")
				continue
			}
			slices.Sort(times)
			// The median is the mean of the two in the middle, and the 99th percentile the nearest rank.
			middle := float64(times[(len(times)-1)/2]+times[len(times)/2]) / 2
			p99 := times[max(0, (99*len(times)+99)/100-1)]
			report(nil, fmt.Sprintf("sample %d %g %g %d", len(times)*l.callsEach, seconds, middle, p99))
		case "close":
			l.close()
			l = &load{}
			report(nil, "ok")
		}
	}
}

func report(err error, text string) {
	if err != nil {
		text = "error " + strings.ReplaceAll(err.Error(), "\n", " ")
	}
	fmt.Println(text)
}
