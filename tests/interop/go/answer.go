package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"peer/detection"
)

// answer is the rule of tests/interop/answers.py.
func answer(task *detection.DetectionTask) *detection.DetectionResult {
	command, rest, _ := strings.Cut(task.GetMetadata(), " ")
	number, _ := strconv.Atoi(rest)
	result := &detection.DetectionResult{TaskId: task.TaskId, Success: true}
	switch command {
	case "fail":
		return failure(task.TaskId, rest)
	case "pad":
		result.ErrorMessage = proto.String(strings.Repeat("x", number))
	case "records":
		result.Processes = records(number)
	case "sleep":
		fmt.Println("sleeping")
		time.Sleep(time.Duration(number) * time.Millisecond)
	default:
		mirror(task, result)
	}
	return result
}

func mirror(task *detection.DetectionTask, result *detection.DetectionResult) {
	if asked := task.ProcessFilter; asked != nil {
		for index, pid := range asked.Pids {
			result.Processes = append(result.Processes, process(index, pid, asked))
		}
	}
	if asked := task.HashCheck; asked != nil {
		result.HashResult = &detection.HashResult{
			HashValue:    asked.ExpectedHash,
			Algorithm:    asked.HashAlgorithm,
			FilePath:     asked.ExecutablePath,
			Success:      asked.ExpectedHash != "",
			ErrorMessage: proto.String(""),
		}
	}
	if asked := task.NetworkFilter; asked != nil {
		for index, protocol := range asked.Protocols {
			result.NetworkEvents = append(result.NetworkEvents, &detection.NetworkRecord{
				ConnectionId:       strconv.Itoa(index),
				SourceAddress:      strings.Join(asked.SourceAddresses, ","),
				DestinationAddress: strings.Join(asked.DestinationAddresses, ","),
				Protocol:           protocol,
				State:              strings.Join(asked.ConnectionStates, ","),
				Pid:                proto.Uint32(uint32(index)),
				BytesSent:          1<<64 - 1 - uint64(index),
				BytesReceived:      uint64(index),
				CollectionTime:     -int64(index),
			})
		}
	}
	if asked := task.FilesystemFilter; asked != nil {
		for index, path := range asked.PathPatterns {
			result.FilesystemEvents = append(result.FilesystemEvents, &detection.FilesystemRecord{
				OperationId:    strconv.Itoa(index),
				Path:           path,
				OperationType:  strings.Join(asked.OperationTypes, ","),
				FileSize:       proto.Uint64(1<<63 + uint64(index)),
				Permissions:    proto.String(""),
				FileHash:       proto.String(strings.Join(asked.FileExtensions, ",")),
				CollectionTime: 1<<63 - 1 - int64(index),
			})
		}
	}
	if asked := task.PerformanceFilter; asked != nil {
		result.PerformanceEvents = append(
			thresholds("min", asked.MinThresholds, asked),
			thresholds("max", asked.MaxThresholds, asked)...,
		)
	}
}

func process(index int, pid uint32, asked *detection.ProcessFilter) *detection.ProcessRecord {
	record := &detection.ProcessRecord{
		Pid:            pid,
		Ppid:           proto.Uint32(pid / 2),
		ExecutablePath: asked.ExecutablePattern,
		CommandLine:    asked.ProcessNames,
		StartTime:      proto.Int64(-int64(pid)),
		CpuUsage:       proto.Float64(float64(pid) / 4),
		MemoryUsage:    proto.Uint64(uint64(pid) << 32),
		Accessible:     true,
		FileExists:     pid%2 == 1,
		CollectionTime: -1 - int64(pid),
	}
	if index < len(asked.ProcessNames) {
		record.Name = asked.ProcessNames[index]
	}
	return record
}

func thresholds(unit string, values map[string]float64, asked *detection.PerformanceFilter) []*detection.PerformanceRecord {
	var found []*detection.PerformanceRecord
	for _, key := range slices.Sorted(maps.Keys(values)) {
		found = append(found, &detection.PerformanceRecord{
			MetricId:   key,
			MetricName: strings.Join(asked.MetricNames, ","),
			Value:      values[key],
			Unit:       unit,
			Component:  strings.Join(asked.Components, ","),
		})
	}
	return found
}

// records are those of tests/benchmarks/messages.py.
func records(number int) []*detection.ProcessRecord {
	found := make([]*detection.ProcessRecord, number)
	for index := range found {
		program := fmt.Sprintf("/usr/lib/program/bin/process-%d", index)
		found[index] = &detection.ProcessRecord{
			Pid:            uint32(1_000 + index),
			Ppid:           proto.Uint32(1),
			Name:           fmt.Sprintf("process-%d", index),
			ExecutablePath: proto.String(program),
			CommandLine:    []string{program, "--config", "/etc/program/program.conf"},
			StartTime:      proto.Int64(1_700_000_000 + int64(index)),
			CpuUsage:       proto.Float64(float64(index) / 10),
			MemoryUsage:    proto.Uint64(4096 * uint64(index)),
			UserId:         proto.String("1000"),
			Accessible:     true,
			FileExists:     true,
			CollectionTime: 1_700_000_000_000 + int64(index),
		}
	}
	return found
}
