//! `longshore oci exec`: a command beside the first process of a container.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use longshore::Error;
use serde_json::{Value, json};

use super::ask::Request;
use super::create::absolute;
use super::place::{Root, write_whole};

#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Give it a terminal, which somebody takes at --console-socket
    #[arg(short, long)]
    tty: bool,
    /// Directory to run it in
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Set a variable, beside those of the container's first process
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// User and group to run it as, by number
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// File that says all of this, as the specification's `process`
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Leave it running, and return
    #[arg(short, long)]
    detach: bool,
    /// File for its pid
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Socket at which somebody takes its terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// What the container is called
    #[arg(value_name = "CONTAINER")]
    id: String,
    /// Program and arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Args {
    /// What the process that has the container is told.
    fn to_json(&self) -> Result<Value, Error> {
        if self.process.is_none() == self.command.is_empty() {
            return Err(Error::invalid("a command is needed, or --process"));
        }
        let console = self.console_socket.as_deref().map(absolute).transpose()?;
        let mut said = json!({"console": console.as_deref().map(utf8).transpose()?});
        let Some(file) = &self.process else {
            said["args"] = json!(self.command);
            said["env"] = json!(self.env);
            said["cwd"] = json!(self.cwd.as_deref().map(utf8).transpose()?);
            said["terminal"] = json!(self.tty);
            said["user"] = self.user.as_deref().map(numbers).transpose()?.unwrap_or_default();
            return Ok(said);
        };
        let text =
            std::fs::read_to_string(file).map_err(|error| Error::os(format!("read {}", file.display()), error))?;
        said["process"] = serde_json::from_str(&text)
            .map_err(|error| Error::invalid(format!("{} is no JSON: {error}", file.display())))?;
        Ok(said)
    }
}

fn utf8(path: &Path) -> Result<&str, Error> {
    let bad = || Error::invalid(format!("{} is no UTF-8", path.display()));
    path.to_str().ok_or_else(bad)
}

/// `UID[:GID]`.
fn numbers(text: &str) -> Result<Value, Error> {
    let bad = || Error::invalid(format!("invalid user {text:?}: UID or UID:GID is needed, in numbers"));
    let number = |text: &str| text.parse::<u32>().map_err(|_| bad());
    match text.split_once(':') {
        Some((uid, gid)) => Ok(json!({"uid": number(uid)?, "gid": number(gid)?})),
        None => Ok(json!({"uid": number(text)?})),
    }
}

/// The command's process: what was said of it, and for the rest that of the container, as runc does it.
pub fn merged(container: &Value, said: &Value) -> Value {
    if said["process"].is_object() {
        return said["process"].clone();
    }
    let mut process = container.clone();
    process["args"] = said["args"].clone();
    process["terminal"] = said["terminal"].clone();
    if let Some(all) = process.as_object_mut() {
        all.remove("consoleSize");
    }
    if said["cwd"].is_string() {
        process["cwd"] = said["cwd"].clone();
    }
    let env = |value: &Value| value["env"].as_array().cloned().unwrap_or_default();
    process["env"] = Value::Array([env(container), env(said)].concat());
    for key in ["uid", "gid"] {
        if said["user"][key].is_u64() {
            process["user"][key] = said["user"][key].clone();
        }
    }
    process
}

/// Runs it, and, unless it is left alone, waits for its end. Its streams are ours.
pub async fn run(root: &Root, args: &Args) -> Result<u8, Error> {
    let place = root.container(&args.id)?;
    let request = Request::Exec(args.to_json()?);
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let mut answers = place.ask_with(&request, &streams).await?;
    let pid = answers.next().await?;
    if let Some(file) = &args.pid_file {
        write_whole(file, pid.to_string().as_bytes())?;
    }
    if args.detach {
        return Ok(0);
    }
    Ok(u8::try_from(answers.next().await?).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oci_a_command_is_the_containers_process_with_changes() {
        let container = json!({
            "args": ["sleep"], "env": ["PATH=/bin", "A=1"], "cwd": "/", "terminal": true,
            "consoleSize": {"height": 1, "width": 2}, "user": {"uid": 1, "gid": 2, "additionalGids": [3]},
            "noNewPrivileges": true,
        });
        let said = json!({"args": ["id"], "env": ["A=2"], "cwd": null, "terminal": false, "user": null});
        let merged_with = |said: &Value| merged(&container, said);
        let expected = json!({
            "args": ["id"], "env": ["PATH=/bin", "A=1", "A=2"], "cwd": "/", "terminal": false,
            "user": {"uid": 1, "gid": 2, "additionalGids": [3]}, "noNewPrivileges": true,
        });
        assert_eq!(merged_with(&said), expected);
        let said = json!({"args": ["id"], "cwd": "/tmp", "terminal": true, "user": {"uid": 7}});
        let made = merged_with(&said);
        assert_eq!(
            (&made["cwd"], &made["user"]["uid"], &made["user"]["gid"]),
            (&json!("/tmp"), &json!(7), &json!(2))
        );
        let whole = json!({"args": ["all"], "cwd": "/"});
        assert_eq!(merged_with(&json!({"process": whole, "console": null})), whole);
    }

    #[test]
    fn oci_users_of_commands_are_numbers() {
        assert_eq!(numbers("7").unwrap(), json!({"uid": 7}));
        assert_eq!(numbers("7:8").unwrap(), json!({"uid": 7, "gid": 8}));
        for bad in ["", "root", "7:", ":8", "7:8:9", "-1", "4294967296", "+7x"] {
            numbers(bad).unwrap_err();
        }
    }
}
