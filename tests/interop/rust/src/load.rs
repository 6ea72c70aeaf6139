//! Load for the benchmarks: tests/benchmarks/contenders/native.py has the commands.

use crate::{
    answer::records,
    client::{call, connect},
    detection::{DetectionResult, DetectionTask, ProcessRecord},
    frame::{Connection, PeerError, Settings},
    server::Handler,
};
use std::{
    borrow::Cow,
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::io::{AsyncBufReadExt, BufReader};

/// As this project's own contender is: tests/benchmarks/contenders/ours.py.
pub const PLACES: usize = 256;

pub fn settings() -> Settings {
    Settings { checksum: crc32fast::hash, max_frame: 1 << 20, timeout: Duration::from_secs(30) }
}

/// Answers tasks by their ids, as tests/benchmarks/messages.py does.
pub struct Prepared(HashMap<&'static str, DetectionResult>);

impl Default for Prepared {
    fn default() -> Self {
        let largest = ProcessRecord {
            pid: 1,
            name: "p".into(),
            command_line: vec!["x".repeat((1 << 20) - 64)],
            ..Default::default()
        };
        let all = [("100", records(100)), ("1000", records(1_000)), ("1MiB", vec![largest])];
        let result = |(name, processes): (&'static str, _)| {
            (name, DetectionResult { task_id: name.into(), success: true, processes, ..Default::default() })
        };
        Prepared(all.into_iter().map(result).collect())
    }
}

impl Handler for Prepared {
    async fn handle(&self, task: DetectionTask) -> Cow<'_, DetectionResult> {
        if task.task_id == "1ms" {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        match self.0.get(&*task.task_id) {
            Some(result) => Cow::Borrowed(result),
            None => Cow::Owned(DetectionResult { task_id: task.task_id, success: true, ..Default::default() }),
        }
    }
}

/// A caller, which repeats one operation.
struct Caller {
    path: String,
    /// None for who connects for each operation.
    connection: Option<Connection>,
    tasks: Vec<DetectionTask>,
    expected: usize,
}

impl Caller {
    async fn operate(&mut self) -> Result<(), PeerError> {
        let mut results = Vec::with_capacity(self.tasks.len());
        match &mut self.connection {
            Some(connection) => call(connection, &self.tasks, false, &mut results).await?,
            None => {
                let mut connection = connect(&self.path, settings()).await?;
                call(&mut connection, &self.tasks, false, &mut results).await?;
            }
        }
        let right = |result: &DetectionResult| result.success && result.processes.len() == self.expected;
        if !results.iter().all(right) {
            return Err(PeerError::new("mismatch", "a wrong answer"));
        }
        Ok(())
    }

    /// Operate for so long, and at least so often; give what each operation took.
    async fn repeat(
        mut self,
        until: Instant,
        least: usize,
        pause: Duration,
    ) -> Result<(Self, Vec<Duration>), PeerError> {
        let mut times = Vec::new();
        let mut begin = Instant::now();
        while begin < until || times.len() < least {
            self.operate().await?;
            times.push(begin.elapsed());
            if !pause.is_zero() {
                std::thread::sleep(pause); // as exact as the others' pauses
            }
            begin = Instant::now();
        }
        Ok((self, times))
    }
}

async fn open(use_: &str, message: &str, path: &str, number: usize) -> Result<Vec<Caller>, PeerError> {
    let task = DetectionTask { task_id: message.into(), ..Default::default() };
    let expected = match message {
        "100" => 100,
        "1000" => 1_000,
        "1MiB" => 1,
        _ => 0,
    };
    let (clients, ahead) = if use_ == "pipelined" { (1, number) } else { (number, 1) };
    let mut callers = Vec::new();
    for _ in 0..clients {
        let connection = match use_ {
            "connect" => None,
            _ => Some(connect(path, settings()).await?),
        };
        callers.push(Caller { path: path.into(), connection, tasks: vec![task.clone(); ahead], expected });
    }
    Ok(callers)
}

async fn repeat_all(
    callers: &mut Vec<Caller>,
    seconds: f64,
    least: usize,
    pause_us: u64,
) -> Result<String, PeerError> {
    let calls_each = callers.first().map_or(1, |caller| caller.tasks.len());
    let begin = Instant::now();
    let until = begin + Duration::from_secs_f64(seconds);
    let pause = Duration::from_micros(pause_us);
    let mut times = Vec::new();
    let tasks: Vec<_> =
        callers.drain(..).map(|caller| tokio::spawn(caller.repeat(until, least, pause))).collect();
    for task in tasks {
        let failed = |error: tokio::task::JoinError| PeerError::new("closed", error.to_string());
        let (caller, taken) = task.await.map_err(failed)??;
        callers.push(caller);
        times.extend(taken);
    }
    let elapsed = begin.elapsed().as_secs_f64();
    times.sort();
    // The median is the mean of the two in the middle, and the 99th percentile the nearest rank.
    let median = (times[(times.len() - 1) / 2] + times[times.len() / 2]).as_nanos() as f64 / 2.0;
    let p99 = times[(99 * times.len()).div_ceil(100).max(1) - 1].as_nanos();
    Ok(format!("sample {} {elapsed} {median} {p99}", times.len() * calls_each))
}

/// Read commands, and print what came of each.
pub async fn run() -> Result<(), PeerError> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut callers = Vec::new();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split(' ').collect();
        let said = match words[..] {
            ["open", use_, message, path, number] => {
                match open(use_, message, path, number.parse().unwrap_or(1)).await {
                    Ok(opened) => {
                        callers = opened;
                        Ok("ok".into())
                    }
                    Err(error) => Err(error),
                }
            }
            ["run", seconds, least, pause] => {
                let numbers = (seconds.parse(), least.parse(), pause.parse());
                match numbers {
                    (Ok(seconds), Ok(least), Ok(pause)) => {
                        repeat_all(&mut callers, seconds, least, pause).await
                    }
                    _ => Err(PeerError::new("usage", "run SECONDS LEAST PAUSE_US")),
                }
            }
            ["close"] => {
                callers.clear();
                Ok("ok".into())
            }
            _ => Err(PeerError::new("usage", "open, run or close")),
        };
        match said {
            Ok(text) => println!("{text}"),
            Err(error) => println!("error {}", error.to_string().replace('\n', " ")),
        }
    }
    Ok(())
}
