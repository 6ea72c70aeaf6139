//! A server. A violation, and a result that fits no frame, close the connection without a word, as in the
//! reference.

use crate::{
    detection::{DetectionResult, DetectionTask},
    frame::{Connection, PeerError, Settings},
};
use std::{borrow::Cow, fs, future::Future, io, os::unix::fs::FileTypeExt, sync::Arc};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

/// How many bytes of answers are gathered at most while more requests are in hand.
const FLUSH_AT: usize = 65_536;

pub trait Handler: Send + Sync + 'static {
    fn handle(&self, task: DetectionTask) -> impl Future<Output = Cow<'_, DetectionResult>> + Send;
}

/// Open a socket for this user alone. A dead server's is removed, and nothing else is.
pub async fn listen(endpoint: &str) -> io::Result<UnixListener> {
    if let Err(error) = UnixStream::connect(endpoint).await {
        let left = fs::symlink_metadata(endpoint).is_ok_and(|found| found.file_type().is_socket());
        if error.kind() == io::ErrorKind::ConnectionRefused && left {
            fs::remove_file(endpoint)?;
        }
    }
    // SAFETY: it has no conditions; no other thread makes files meanwhile.
    let before = unsafe { libc::umask(0o177) };
    let listener = UnixListener::bind(endpoint); // fails where something is left
    unsafe { libc::umask(before) };
    listener
}

/// Serve until it is dropped. A connection over the limit is closed at once.
pub async fn serve(listener: UnixListener, handler: impl Handler, places: usize, settings: Settings) {
    let (handler, free) = (Arc::new(handler), Arc::new(Semaphore::new(places)));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        if let Ok(place) = free.clone().try_acquire_owned() {
            let handler = handler.clone();
            tokio::spawn(async move {
                // Whatever it is, this connection alone has ended.
                let _ = converse(Connection::new(stream, settings), &*handler).await;
                drop(place);
            });
        }
    }
}

async fn converse(mut connection: Connection, handler: &impl Handler) -> Result<(), PeerError> {
    let Connection { reader, writer } = &mut connection;
    let mut answers = Vec::new();
    loop {
        let made = match reader.receive().await {
            Ok(Some(task)) => writer.append(&mut answers, &*handler.handle(task).await),
            Ok(None) => break,
            Err(error) => Err(error),
        };
        if made.is_err() || !reader.has_frame() || answers.len() >= FLUSH_AT {
            writer.send(&answers).await?;
            answers.clear();
        }
        made?;
    }
    Ok(())
}
