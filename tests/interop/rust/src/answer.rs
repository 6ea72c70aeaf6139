//! What a server answers: the rule of tests/interop/answers.py.

use crate::{
    detection::{
        DetectionResult, DetectionTask, FilesystemRecord, HashResult, NetworkRecord, PerformanceRecord,
        ProcessFilter, ProcessRecord,
    },
    server::Handler,
};
use std::{borrow::Cow, time::Duration};

pub struct Answers;

impl Handler for Answers {
    async fn handle(&self, task: DetectionTask) -> Cow<'_, DetectionResult> {
        let metadata = task.metadata.clone().unwrap_or_default();
        let (command, rest) = metadata.split_once(' ').unwrap_or((&metadata, ""));
        let number = rest.parse::<usize>().unwrap_or_default();
        let mut result = DetectionResult { task_id: task.task_id.clone(), success: true, ..Default::default() };
        match command {
            "fail" => {
                result.success = false;
                result.error_message = Some(rest.into());
            }
            "pad" => result.error_message = Some("x".repeat(number)),
            "records" => result.processes = records(number),
            "sleep" => {
                println!("sleeping");
                tokio::time::sleep(Duration::from_millis(number as u64)).await;
            }
            _ => mirror(task, &mut result),
        }
        Cow::Owned(result)
    }
}

fn mirror(task: DetectionTask, result: &mut DetectionResult) {
    if let Some(asked) = task.process_filter {
        result.processes = (0..asked.pids.len()).map(|index| process(index, &asked)).collect();
    }
    if let Some(asked) = task.hash_check {
        result.hash_result = Some(HashResult {
            success: !asked.expected_hash.is_empty(),
            hash_value: asked.expected_hash,
            algorithm: asked.hash_algorithm,
            file_path: asked.executable_path,
            error_message: Some(String::new()),
        });
    }
    if let Some(asked) = task.network_filter {
        let protocols = asked.protocols.iter().enumerate();
        result.network_events = protocols
            .map(|(index, protocol)| NetworkRecord {
            connection_id: index.to_string(),
            source_address: asked.source_addresses.join(","),
            destination_address: asked.destination_addresses.join(","),
            protocol: protocol.clone(),
            state: asked.connection_states.join(","),
            pid: Some(index as u32),
            bytes_sent: u64::MAX - index as u64,
            bytes_received: index as u64,
            collection_time: -(index as i64),
            })
            .collect();
    }
    if let Some(asked) = task.filesystem_filter {
        let paths = asked.path_patterns.iter().enumerate();
        result.filesystem_events = paths
            .map(|(index, path)| FilesystemRecord {
                operation_id: index.to_string(),
                path: path.clone(),
                operation_type: asked.operation_types.join(","),
                pid: None,
                file_size: Some((1 << 63) + index as u64),
                permissions: Some(String::new()),
                file_hash: Some(asked.file_extensions.join(",")),
                collection_time: i64::MAX - index as i64,
            })
            .collect();
    }
    if let Some(asked) = task.performance_filter {
        let (least, most) = (asked.min_thresholds.iter(), asked.max_thresholds.iter());
        let thresholds = least.map(|one| ("min", one)).chain(most.map(|one| ("max", one)));
        result.performance_events = thresholds
            .map(|(unit, (key, value))| PerformanceRecord {
                metric_id: key.clone(),
                metric_name: asked.metric_names.join(","),
                value: *value,
                unit: unit.into(),
                component: asked.components.join(","),
                ..Default::default()
            })
            .collect();
    }
}

fn process(index: usize, asked: &ProcessFilter) -> ProcessRecord {
    let pid = asked.pids[index];
    ProcessRecord {
        pid,
        ppid: Some(pid / 2),
        name: asked.process_names.get(index).cloned().unwrap_or_default(),
        executable_path: asked.executable_pattern.clone(),
        command_line: asked.process_names.clone(),
        start_time: Some(-i64::from(pid)),
        cpu_usage: Some(f64::from(pid) / 4.0),
        memory_usage: Some(u64::from(pid) << 32),
        accessible: true,
        file_exists: pid % 2 == 1,
        collection_time: -1 - i64::from(pid),
        ..Default::default()
    }
}

/// Those of tests/benchmarks/messages.py.
pub fn records(number: usize) -> Vec<ProcessRecord> {
    let record = |index: usize| {
        let program = format!("/usr/lib/program/bin/process-{index}");
        ProcessRecord {
            pid: 1_000 + index as u32,
            ppid: Some(1),
            name: format!("process-{index}"),
            executable_path: Some(program.clone()),
            command_line: vec![program, "--config".into(), "/etc/program/program.conf".into()],
            start_time: Some(1_700_000_000 + index as i64),
            cpu_usage: Some(index as f64 / 10.0),
            memory_usage: Some(4096 * index as u64),
            user_id: Some("1000".into()),
            accessible: true,
            file_exists: true,
            collection_time: 1_700_000_000_000 + index as i64,
            ..Default::default()
        }
    };
    (0..number).map(record).collect()
}
