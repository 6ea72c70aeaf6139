//! The protocol of docs/wire-protocol.md in Rust. tests/interop/README.md says what this program reads and
//! prints.

mod answer;
mod client;
mod frame;
mod hex;
mod load;
mod server;

/// Generated from our own .proto.
#[allow(dead_code)] // some are never sent
mod detection {
    include!(concat!(env!("OUT_DIR"), "/trio_ipc.daemoneye.v1.rs"));
}

use frame::{PeerError, Settings};
use std::{env, fs, process::ExitCode};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["serve", endpoint, variant, max_frame, places, timeout_ms] => {
            match (Settings::parse(variant, max_frame, timeout_ms), places.parse::<usize>()) {
                (Ok(settings), Ok(places)) => serve(endpoint, answer::Answers, places, settings).await,
                (Err(error), _) => Err(error),
                (_, Err(_)) => Err(PeerError::new("usage", "the places are a whole number")),
            }
        }
        ["serve-load", endpoint] => {
            serve(endpoint, load::Prepared::default(), load::PLACES, load::settings()).await
        }
        ["call"] => client::Commands::default().run().await,
        ["load"] => load::run().await,
        _ => Err(PeerError::new("usage", "peer serve|call|serve-load|load, as tests/interop/README.md says")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Serve until the standard input ends.
async fn serve(
    endpoint: &str,
    handler: impl server::Handler,
    places: usize,
    settings: Settings,
) -> Result<(), PeerError> {
    let listener = server::listen(endpoint).await?;
    tokio::spawn(server::serve(listener, handler, places, settings));
    println!("listening");
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    Ok(fs::remove_file(endpoint)?)
}
