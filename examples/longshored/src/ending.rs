//! When the daemon ends: a signal, or nothing to do for long enough.

use std::future::pending;
use std::time::Duration;

use longshore::api::Activity;
use longshore::{Engine, ListOptions};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// How often to look whether a container still runs.
const LOOK: Duration = Duration::from_millis(200);

/// Ends at SIGTERM or SIGINT, and after so long without a connection and a running container. A second signal ends the
/// process at once: containers are bound to it, and go with it.
pub fn end(engine: Engine, activity: Activity, idle: Option<Duration>) -> Result<impl Future<Output = ()>, Failure> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = idle_for(idle, engine, activity) => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            std::process::exit(130);
        });
    })
}

async fn idle_for(limit: Option<Duration>, engine: Engine, activity: Activity) {
    let Some(limit) = limit else { return pending().await };
    loop {
        activity.idle_for(limit).await;
        if !runs(&engine).await {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether a container runs. One that cannot be asked for counts: better to stay than to end what runs.
async fn runs(engine: &Engine) -> bool {
    let running = engine.list(ListOptions::default()).await;
    running.map_or(true, |running| !running.is_empty())
}
