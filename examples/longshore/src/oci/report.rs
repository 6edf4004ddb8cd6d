//! How the process that has a container tells the one that made it how that came out: once, over a socket that is gone then.

use std::time::Duration;

use longshore::{Error, ErrorKind};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Child;

use super::place::Place;

/// The socket's name.
const NAME: &str = "report";
/// How long a report may be on its way from a process that has ended.
const LATE: Duration = Duration::from_millis(100);
/// The longest report.
const LONGEST: u64 = 256 << 10;

/// Listens for the report. Before the process is there that makes it.
pub fn listen(place: &Place) -> Result<UnixListener, Error> {
    let (_dir, path) = place.short(NAME)?;
    UnixListener::bind(path).map_err(|error| Error::os("listen for the container's process", error))
}

/// The report: the container's pid.
///
/// # Errors
/// What the process says; `Os` if it ended without a word.
pub async fn take(listener: UnixListener, child: &mut Child) -> Result<u32, Error> {
    let failed = |error| Error::os("hear of the container's process", error);
    let heard = tokio::select! {
        heard = listener.accept() => heard,
        ended = child.wait() => {
            let ended = ended.map_err(failed)?;
            // What it said before may be on its way here still.
            let late = tokio::time::timeout(LATE, listener.accept()).await;
            late.map_err(|_| {
                let message = format!("the process that was to have the container ended with {ended}");
                Error::new(ErrorKind::Os, message)
            })?
        }
    };
    let (stream, _) = heard.map_err(failed)?;
    let mut text = String::new();
    stream.take(LONGEST).read_to_string(&mut text).await.map_err(failed)?;
    let malformed = || Error::new(ErrorKind::Os, "the process that was to have the container was killed");
    let value: Value = serde_json::from_str(&text).map_err(|_| malformed())?;
    if let Some(pid) = value["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()) {
        return Ok(pid);
    }
    Err(Error::new(
        ErrorKind::Os,
        value["error"].as_str().ok_or_else(malformed)?.to_owned(),
    ))
}

/// Tells it.
///
/// # Errors
/// `Os` if nobody is there to be told: then there is to be no container.
pub async fn tell(place: &Place, outcome: Result<u32, &Error>) -> Result<(), Error> {
    let failed = |error| Error::os("tell whoever creates the container", error);
    let (_dir, path) = place.short(NAME)?;
    let mut stream = UnixStream::connect(path).await.map_err(failed)?;
    let report = match outcome {
        Ok(pid) => json!({"pid": pid}),
        Err(error) => json!({"error": error.report()}),
    };
    stream.write_all(report.to_string().as_bytes()).await.map_err(failed)?;
    stream.shutdown().await.map_err(failed)
}

/// The socket is of no more use.
pub fn forget(place: &Place) {
    let _ = std::fs::remove_file(place.dir.join(NAME));
}
