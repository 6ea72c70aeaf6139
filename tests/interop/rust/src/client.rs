//! A client, and its commands.

use crate::{
    detection::{DetectionResult, DetectionTask},
    frame::{Connection, PeerError, Settings},
    hex,
};
use prost::Message;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixStream,
};

pub async fn connect(endpoint: &str, settings: Settings) -> Result<Connection, PeerError> {
    let stream = UnixStream::connect(endpoint).await;
    let stream = stream.map_err(|error| PeerError::new("connect", error.to_string()))?;
    Ok(Connection::new(stream, settings))
}

/// Send tasks, all of them before the first response; gather the results, which come in their order.
pub async fn call(
    connection: &mut Connection,
    tasks: &[DetectionTask],
    last: bool,
    results: &mut Vec<DetectionResult>,
) -> Result<(), PeerError> {
    let Connection { reader, writer } = connection;
    let mut frames = Vec::new();
    for task in tasks {
        writer.append(&mut frames, task)?;
    }
    let sending = async {
        // What goes wrong here is seen by who reads, too.
        if writer.send(&frames).await.is_ok() && last {
            writer.end().await?;
        }
        Ok::<(), PeerError>(())
    };
    let receiving = async {
        for task in tasks {
            let Some(result) = reader.receive::<DetectionResult>().await? else {
                return Err(PeerError::new("closed", "the server closed the connection before it answered"));
            };
            if result.task_id != task.task_id {
                let text = format!("the result is of {:?}: {:?}", result.task_id, result.error_message);
                return Err(PeerError::new("mismatch", text));
            }
            results.push(result);
        }
        Ok::<(), PeerError>(())
    };
    // At the same time: a server that can't get rid of its answers takes no more requests.
    tokio::try_join!(sending, receiving)?;
    Ok(())
}

#[derive(Default)]
pub struct Commands {
    connection: Option<Connection>,
}

impl Commands {
    /// Read commands, and print what came of each.
    pub async fn run(&mut self) -> Result<(), PeerError> {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = lines.next_line().await? {
            let words: Vec<&str> = line.split(' ').collect();
            if let Err(error) = self.obey(&words).await {
                self.connection = None;
                println!("error {}", error.to_string().replace('\n', " "));
            }
        }
        Ok(())
    }

    async fn obey(&mut self, words: &[&str]) -> Result<(), PeerError> {
        match words {
            ["open", endpoint, variant, max_frame, timeout_ms] => {
                self.connection = None;
                let settings = Settings::parse(variant, max_frame, timeout_ms)?;
                self.connection = Some(connect(endpoint, settings).await?);
                println!("ok");
            }
            ["close"] => {
                self.connection = None;
                println!("ok");
            }
            ["recode", "task", data] => println!("message {}", encoded(&decoded::<DetectionTask>(data)?)),
            ["recode", "result", data] => println!("message {}", encoded(&decoded::<DetectionResult>(data)?)),
            [command @ ("call" | "last"), tasks @ ..] => self.call(tasks, *command == "last").await?,
            _ => println!("unsupported"),
        }
        Ok(())
    }

    async fn call(&mut self, words: &[&str], last: bool) -> Result<(), PeerError> {
        let Some(connection) = &mut self.connection else {
            return Err(PeerError::new("closed", "there is no connection"));
        };
        let tasks = words.iter().map(|word| decoded(word)).collect::<Result<Vec<DetectionTask>, _>>()?;
        let mut results = Vec::new();
        let called = call(connection, &tasks, last, &mut results).await;
        for result in &results {
            println!("result {}", encoded(result));
        }
        called?;
        if last {
            if connection.reader.receive::<DetectionResult>().await?.is_some() {
                return Err(PeerError::new("mismatch", "a result that nobody asked for"));
            }
            println!("end");
        }
        Ok(())
    }
}

fn decoded<M: Message + Default>(text: &str) -> Result<M, PeerError> {
    let wrong = |text: String| PeerError::new("decode", text);
    let data = hex::decode(text.trim_matches('-')).ok_or_else(|| wrong("no hexadecimal".into()))?;
    M::decode(&*data).map_err(|error| wrong(error.to_string()))
}

fn encoded(message: &impl Message) -> String {
    match message.encoded_len() {
        0 => "-".into(),
        _ => hex::encode(&message.encode_to_vec()),
    }
}
