//! Commands in running containers: create, start, resize, inspect.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::call::Call;
use super::containers::resize_size as size;
use super::error::Failure;
use super::hijack::{self, Stdin, Streams};
use super::object::{Object, OneOrMany};
use super::reply;
use super::router::{Answer, Route, routes};
use crate::containers::{AttachOptions, DetachKeys, ExecInfo, ExecSpec, SlowReader};
use crate::error::{Error, ErrorKind};
use crate::logs::{Chunk, LogStream, TeeItem};

/// Routes of execs.
pub(super) const ROUTES: &[Route] = routes! {
    POST "containers/{id}/exec" => create;
    POST "exec/{id}/start" => start;
    POST "exec/{id}/resize" => resize;
    GET "exec/{id}/json" => inspect;
};

async fn create(mut call: Call) -> Answer {
    let spec = spec(Object::new("", call.object().await?))?;
    let exec = call.engine.containers().exec_create(call.name(), spec).await?;
    Ok(reply::json(StatusCode::CREATED, &json!({"Id": exec.id})))
}

/// Docker's JSON to what a manager takes. Which outputs to attach is nothing that an exec here remembers: its starter gets
/// both.
fn spec(mut body: Object) -> Result<ExecSpec, Failure> {
    let command = body.take_or_default::<OneOrMany>("Cmd")?.0;
    if command.is_empty() {
        return Err(Failure::bad("No exec command specified"));
    }
    let mut spec = ExecSpec::new(command);
    for variable in body.take_or_default::<Vec<String>>("Env")? {
        let Some((name, value)) = variable.split_once('=') else {
            return Err(body.bad("Env", format!("{variable:?} has no value")));
        };
        spec.env.insert(name.to_owned(), value.to_owned());
    }
    spec.working_dir = body.text("WorkingDir")?.map(Into::into);
    spec.user = body.text("User")?;
    spec.tty = body.take_or_default("Tty")?;
    spec.stdin = body.take_or_default("AttachStdin")?;
    spec.privileged = body.take_or_default("Privileged")?;
    spec.tty_size = console(&mut body)?;
    spec.detach_keys = body.text("DetachKeys")?;
    keys_of(&spec)?;
    Ok(spec)
}

/// What a client types to leave it.
fn keys_of(spec: &ExecSpec) -> Result<DetachKeys, Failure> {
    match spec.detach_keys.as_deref() {
        None | Some("") => Ok(DetachKeys::default()),
        Some(keys) => Ok(keys.parse()?),
    }
}

fn console(body: &mut Object) -> Result<Option<(u16, u16)>, Failure> {
    match body.take_or_default::<Vec<u16>>("ConsoleSize")?[..] {
        [] | [0, _] | [_, 0] => Ok(None),
        [rows, columns] => Ok(Some((rows, columns))),
        _ => Err(body.bad("ConsoleSize", "two numbers, rows and columns, are needed")),
    }
}

async fn start(mut call: Call) -> Answer {
    let mut body = Object::new("", call.object().await?);
    let detach: bool = body.take_or_default("Detach")?;
    let console = console(&mut body)?;
    let info = call.engine.containers().exec_inspect(call.name()).await?;
    let options = AttachOptions {
        slow: if detach { SlowReader::Skip } else { SlowReader::Wait },
        logs: false,
    };
    let mut attached = match call.engine.containers().exec_start(&info.id, options).await {
        Err(error) if !detach && is_no_program(&error) => {
            return Ok(hijack::answer(&mut call, told(error, info.spec.tty)));
        }
        started => started?,
    };
    if let Some((rows, columns)) = console.filter(|_| info.spec.tty) {
        // It may have ended already.
        let _ = call.engine.containers().exec_resize(&info.id, rows, columns).await;
    }
    if detach {
        return Ok(reply::empty(StatusCode::OK));
    }
    let tty = info.spec.tty;
    let keys = keys_of(&info.spec)?;
    let mut streams = Streams::of(&mut attached, tty);
    streams.stdin = attached.input.map(|input| Stdin {
        input,
        ends: !tty,
        keys: tty.then_some(keys),
    });
    Ok(hijack::answer(&mut call, streams))
}

/// Docker tells of a program that cannot be run in the stream, where clients look for it; the code is 126 or 127.
fn is_no_program(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::CommandNotFound | ErrorKind::CommandNotExecutable
    )
}

fn told(error: Error, tty: bool) -> Streams {
    let chunk = Chunk {
        stream: LogStream::Stdout,
        bytes: format!("{}\r\n", Failure::from(error).message).into(),
    };
    Streams {
        output: Box::pin(futures_util::stream::iter([TeeItem::Chunk(chunk)])),
        stdout: true,
        stderr: true,
        tty,
        stdin: None,
    }
}

async fn resize(call: Call) -> Answer {
    let (rows, columns) = size(&call.query)?;
    call.engine.containers().exec_resize(call.name(), rows, columns).await?;
    Ok(reply::empty(StatusCode::OK))
}

async fn inspect(call: Call) -> Answer {
    let info = call.engine.containers().exec_inspect(call.name()).await?;
    Ok(reply::ok(&body(&info)))
}

pub(super) fn body(info: &ExecInfo) -> Value {
    let (program, arguments) = match info.spec.command.split_first() {
        Some((program, arguments)) => (program.as_str(), arguments),
        None => ("", &[][..]),
    };
    let mut value = json!({
        "ID": info.id,
        "Running": info.running,
        "ExitCode": info.status.map(|status| status.code()),
        "ProcessConfig": {
            "tty": info.spec.tty,
            "entrypoint": program,
            "arguments": arguments,
            "privileged": info.spec.privileged,
        },
        "OpenStdin": info.spec.stdin,
        "OpenStderr": true,
        "OpenStdout": true,
        "CanRemove": false,
        "ContainerID": info.container.as_str(),
        "DetachKeys": info.spec.detach_keys.as_deref().unwrap_or_default(),
        "Pid": info.pid.unwrap_or(0),
    });
    if let Some(user) = &info.spec.user {
        value["ProcessConfig"]["user"] = json!(user);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_in_docker_s_words() {
        let of = |value: Value| {
            let Value::Object(body) = value else { panic!() };
            spec(Object::new("", body))
        };
        let made = of(json!({"Cmd": ["a", "b"], "Env": ["X=1"], "Tty": true, "ConsoleSize": [24, 100]})).unwrap();
        assert_eq!(made.command, ["a", "b"]);
        assert_eq!(made.tty_size, Some((24, 100)));
        for bad in [
            json!({}),
            json!({"Cmd": []}),
            json!({"Cmd": ["a"], "Env": ["X"]}),
            json!({"Cmd": {}}),
        ] {
            assert_eq!(of(bad.clone()).unwrap_err().status, 400, "{bad}");
        }
    }
}
