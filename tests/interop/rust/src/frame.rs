//! Frames: length and checksum, both little-endian, and then a protobuf message.

use bytes::{Buf, BytesMut};
use prost::Message;
use std::{fmt, io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        unix::{OwnedReadHalf, OwnedWriteHalf},
        UnixStream,
    },
    time::timeout,
};

const HEADER: usize = 8;
const READ: usize = 65_536;

#[derive(Clone, Copy)]
pub struct Settings {
    pub checksum: fn(&[u8]) -> u32,
    pub max_frame: usize,
    /// Until a frame begins, and again until it is whole.
    pub timeout: Duration,
}

impl Settings {
    pub fn parse(variant: &str, max_frame: &str, timeout_ms: &str) -> Result<Self, PeerError> {
        let wrong = |_| PeerError::new("usage", "a limit and a timeout are whole numbers");
        Ok(Settings {
            checksum: match variant {
                "ieee" => crc32fast::hash,
                "castagnoli" => crc32c::crc32c,
                _ => return Err(PeerError::new("usage", "the variant is ieee or castagnoli")),
            },
            max_frame: max_frame.parse().map_err(wrong)?,
            timeout: Duration::from_millis(timeout_ms.parse().map_err(wrong)?),
        })
    }
}

/// What went wrong with a connection: a word for the kind, and the rest in words.
#[derive(Debug)]
pub struct PeerError {
    pub kind: &'static str,
    text: String,
}

impl PeerError {
    pub fn new(kind: &'static str, text: impl Into<String>) -> Self {
        PeerError { kind, text: text.into() }
    }
}

impl fmt::Display for PeerError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.kind, self.text)
    }
}

impl std::error::Error for PeerError {}

impl From<io::Error> for PeerError {
    fn from(error: io::Error) -> Self {
        PeerError::new("closed", error.to_string())
    }
}

impl From<tokio::time::error::Elapsed> for PeerError {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        PeerError::new("timeout", "the peer took too long")
    }
}

/// Both directions of a connection. After an error it must be dropped.
pub struct Connection {
    pub reader: Reader,
    pub writer: Writer,
}

impl Connection {
    pub fn new(stream: UnixStream, settings: Settings) -> Self {
        let (incoming, outgoing) = stream.into_split();
        Connection {
            reader: Reader { half: incoming, settings, input: BytesMut::new() },
            writer: Writer { half: outgoing, settings },
        }
    }
}

pub struct Writer {
    half: OwnedWriteHalf,
    settings: Settings,
}

impl Writer {
    /// Encode a message behind what is in a buffer.
    pub fn append(&self, out: &mut Vec<u8>, message: &impl Message) -> Result<(), PeerError> {
        let begin = out.len();
        out.extend_from_slice(&[0; HEADER]);
        message.encode(out).expect("a buffer that grows has room");
        let (size, limit) = (out.len() - begin - HEADER, self.settings.max_frame);
        if size == 0 || size > limit {
            out.truncate(begin);
            return Err(match size {
                0 => PeerError::new("empty", "a message without any field cannot be sent"),
                _ => PeerError::new("too-large", format!("the message has {size} bytes, the limit is {limit}")),
            });
        }
        let checksum = (self.settings.checksum)(&out[begin + HEADER..]);
        out[begin..begin + 4].copy_from_slice(&(size as u32).to_le_bytes());
        out[begin + 4..begin + HEADER].copy_from_slice(&checksum.to_le_bytes());
        Ok(())
    }

    /// Hand over frames.
    pub async fn send(&mut self, frames: &[u8]) -> Result<(), PeerError> {
        Ok(timeout(self.settings.timeout, self.half.write_all(frames)).await??)
    }

    /// Close the sending side: no request follows.
    pub async fn end(&mut self) -> Result<(), PeerError> {
        Ok(self.half.shutdown().await?)
    }
}

pub struct Reader {
    half: OwnedReadHalf,
    settings: Settings,
    input: BytesMut,
}

impl Reader {
    /// Wait for a message; `None` if the peer closed its sending side between two frames.
    pub async fn receive<M: Message + Default>(&mut self) -> Result<Option<M>, PeerError> {
        let patience = self.settings.timeout;
        if self.input.is_empty() && timeout(patience, self.fill(READ)).await?? == 0 {
            return Ok(None);
        }
        if !self.has_frame() {
            // From its first byte to its last a frame has the whole time once more.
            timeout(patience, self.fill_frame()).await??;
        }
        let size = self.size()?;
        let payload = &self.input[HEADER..HEADER + size];
        if (self.settings.checksum)(payload) != (&self.input[4..HEADER]).get_u32_le() {
            return Err(PeerError::new("checksum", "the payload has another checksum than the header says"));
        }
        let message = M::decode(payload).map_err(|error| PeerError::new("decode", error.to_string()))?;
        self.input.advance(HEADER + size);
        Ok(Some(message))
    }

    /// Whether the next frame has come, so that `receive` does not wait.
    pub fn has_frame(&self) -> bool {
        self.input.len() >= HEADER
            && self.input.len() - HEADER >= (&self.input[..4]).get_u32_le() as usize
    }

    async fn fill_frame(&mut self) -> Result<(), PeerError> {
        while self.input.len() < HEADER {
            self.fill_more(READ).await?;
        }
        let whole = HEADER + self.size()?;
        while self.input.len() < whole {
            self.fill_more(READ.max(whole - self.input.len())).await?;
        }
        Ok(())
    }

    async fn fill_more(&mut self, at_most: usize) -> Result<(), PeerError> {
        match self.fill(at_most).await? {
            0 => Err(PeerError::new("closed", "the peer closed the connection inside a frame")),
            _ => Ok(()),
        }
    }

    async fn fill(&mut self, at_most: usize) -> io::Result<usize> {
        self.input.reserve(at_most);
        self.half.read_buf(&mut self.input).await
    }

    /// The length in the header, judged before the payload has memory.
    fn size(&self) -> Result<usize, PeerError> {
        let (size, limit) = ((&self.input[..4]).get_u32_le() as usize, self.settings.max_frame);
        if (1..=limit).contains(&size) {
            return Ok(size);
        }
        let text = format!("the frame has {size} bytes, allowed are 1 to {limit}");
        Err(PeerError::new("length", text))
    }
}
