//! `attach`.

use super::super::call::Call;
use super::super::error::Failure;
use super::super::hijack::{self, Stdin, Streams};
use super::super::router::Answer;
use super::logs;
use crate::containers::{AttachOptions, DetachKeys, SlowReader};

pub(super) async fn attach(mut call: Call) -> Answer {
    let flag = |name| call.query.flag(name);
    let (stdin, stdout, stderr) = (flag("stdin"), flag("stdout"), flag("stderr"));
    let (stream, with_logs) = (flag("stream"), flag("logs"));
    let keys = match call.query.get("detachKeys") {
        None | Some("") => DetachKeys::default(),
        Some(keys) => keys.parse()?,
    };
    let info = call.engine.containers().inspect(call.name()).await?;
    let tty = info.spec.tty;
    if !stream {
        if !with_logs {
            return Err(Failure::bad("attach needs stream=1, logs=1, or both"));
        }
        return logs::so_far(&mut call, tty, stdout, stderr).await;
    }
    let options = AttachOptions {
        slow: SlowReader::Wait,
        logs: with_logs,
    };
    let mut attached = call.engine.containers().attach(info.id.as_str(), options).await?;
    let mut streams = Streams::of(&mut attached, tty);
    (streams.stdout, streams.stderr) = (stdout, stderr);
    match attached.input {
        Some(input) if stdin => {
            streams.stdin = Some(Stdin {
                input,
                ends: info.spec.stdin_once && !tty,
                keys: tty.then_some(keys),
            });
        }
        // Dropped, it would close the container's stdin.
        Some(input) => input.detach(),
        None => {}
    }
    Ok(hijack::answer(&mut call, streams))
}
