//! Containers over the API.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::client::{Ask, Client, read_json, segment};
use super::error::nonsense;
use super::hijack::{self, Wanted};
use super::json::{self, flag, list, required, stamp, text, text_or_empty};
use super::pieces::{self, Lines};
use super::{logs, places, spec, stats};
use crate::containers::{
    AttachOptions, Attached, BoxStream, CheckpointOptions, CommitOptions, ContainerExit, ContainerInfo,
    ContainerManager, ContainerSpec, ContainerState, ContainerSummary, CopiedOut, CopyInOptions, Created, Exec,
    ExecInfo, ExecSpec, Exiting, Health, HealthStatus, Limits, ListOptions, PathStat, ProbeResult, Pruned,
    RemoveOptions, RestartPolicy, Stats, StatsOptions, StopOptions, Top, WaitCondition,
};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::images::ByteStream;
use crate::logs::{LogEntries, LogQuery};
use crate::types::{Change, ChangeKind, EndpointSpec, ExitStatus, Filter, ImageId, Outcome, Signal};

/// How often it is looked whether a command has ended: at first, and at most.
const LOOK: Duration = Duration::from_millis(5);
const LOOK_AT_MOST: Duration = Duration::from_millis(250);

/// The one condition that every version of the API has.
const NOT_RUNNING: &str = "not-running";

/// Containers of an engine elsewhere.
#[derive(Debug)]
pub(super) struct Containers(pub(super) Client);

/// `containers/NAME/verb`. The empty name would lead elsewhere.
fn of(name: &str, verb: &str) -> Result<String> {
    path("containers", ObjectKind::Container, name, verb)
}

fn exec(id: &str, verb: &str) -> Result<String> {
    path("exec", ObjectKind::Exec, id, verb)
}

fn path(group: &str, kind: ObjectKind, name: &str, verb: &str) -> Result<String> {
    if name.is_empty() {
        return Err(Error::not_found(kind, name));
    }
    Ok(format!("{group}/{}{verb}", segment(name)))
}

fn shown(path: Option<PathBuf>) -> Option<String> {
    path.map(|path| path.display().to_string())
}

fn outcome(code: StatusCode) -> Outcome {
    match code {
        StatusCode::NOT_MODIFIED => Outcome::Already,
        _ => Outcome::Done,
    }
}

fn stopping(ask: Ask, options: StopOptions) -> Ask {
    // The API knows whole seconds: rounded up, so that nobody is killed early.
    let whole = |length: Duration| length.as_secs() + u64::from(length.subsec_nanos() > 0);
    ask.with_some("t", options.timeout.map(whole))
        .with_some("signal", options.signal)
}

/// What is said of a path beside the answer, in base64. Modes are Go's. Source: moby, `api/types/container`, `PathStat`.
fn path_stat(headers: &hyper::HeaderMap) -> Result<PathStat> {
    use base64::Engine as _;
    let header = headers.get("x-docker-container-path-stat");
    let text = header.and_then(|text| text.to_str().ok());
    let bytes = text.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    let told: Option<Value> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let told = told.ok_or_else(|| nonsense("a path of which nothing is told"))?;
    let mut stat = PathStat::new(text_or_empty(&told, "name"));
    stat.size = json::number(&told, "size");
    stat.mode = unix_mode(u32::try_from(json::number(&told, "mode")).unwrap_or(0));
    stat.modified = json::moment(&told, "mtime").unwrap_or(std::time::UNIX_EPOCH);
    stat.link_target = self::text(&told, "linkTarget");
    Ok(stat)
}

/// Source: Go, `io/fs`, `FileMode`.
fn unix_mode(go: u32) -> u32 {
    let bit = |number: u32| go & 1 << number != 0;
    let kind = match () {
        () if bit(31) => 0o040_000,
        () if bit(27) => 0o120_000,
        () if bit(21) => 0o020_000,
        () if bit(26) => 0o060_000,
        () if bit(25) => 0o010_000,
        () if bit(24) => 0o140_000,
        () => 0o100_000,
    };
    let special = u32::from(bit(23)) << 11 | u32::from(bit(22)) << 10 | u32::from(bit(20)) << 9;
    kind | special | go & 0o777
}

/// A line of `changes`. Source: moby, `api/types/container`, `FilesystemChange`.
fn change(told: &Value) -> Result<Change> {
    let kind = match told["Kind"].as_u64() {
        Some(0) => ChangeKind::Modified,
        Some(1) => ChangeKind::Added,
        Some(2) => ChangeKind::Deleted,
        _ => return Err(nonsense("a change of no known kind")),
    };
    let path = required::<String>(told, "Path")?.into();
    Ok(Change { path, kind })
}

/// The API tells a code alone: 137 may be a signal's or a program's own.
fn status(code: i64) -> ExitStatus {
    ExitStatus::exited(u8::try_from(code).unwrap_or(255))
}

impl Containers {
    async fn inspected(&self, name: &str) -> Result<Value> {
        self.0.json(Ask::get(of(name, "/json")?)).await
    }

    /// Whether output has no frames.
    async fn has_terminal(&self, name: &str) -> Result<bool> {
        Ok(flag(&self.inspected(name).await?["Config"], "Tty"))
    }

    /// Registers; the answer's head says that it is done. What follows is read on the client's thread, so that the connection
    /// goes as soon as the end is told, however late anybody looks.
    async fn register(&self, name: &str, condition: &str) -> Result<Exiting> {
        if !self.0.has_conditions() && condition != NOT_RUNNING {
            // It would not look at the condition, and tell of an end that never was.
            let needs = "an engine that speaks version 1.30 of the API or a newer one";
            return Err(Error::unsupported(format!("waiting for {condition}"), needs).with_step("wait"));
        }
        let ask = Ask::post(of(name, "/wait")?).with("condition", condition);
        let answer = self.0.send(ask).await?;
        let containers = Self(self.0.clone());
        let name = name.to_owned();
        Ok(Box::pin(self.0.spawner().call(async move {
            let ended = read_json(answer).await?;
            containers.ended(&name, &ended).await
        })))
    }

    /// How it ended, and if it is still there whether for want of memory.
    async fn ended(&self, name: &str, ended: &Value) -> Result<ContainerExit> {
        if let Some(message) = text(&ended["Error"], "Message") {
            let error = match self.inspected(name).await {
                // It went before there was such an end.
                Err(gone) if gone.is_not_found() => return Err(gone),
                _ => Error::new(ErrorKind::Unavailable, message),
            };
            return Err(error.with_object(ObjectKind::Container, name).with_step("wait"));
        }
        let code = ended["StatusCode"].as_i64();
        let code = code.ok_or_else(|| nonsense("an end without a status"))?;
        let oom_killed = match self.inspected(name).await {
            Ok(info) => info["State"]["OOMKilled"].as_bool(),
            Err(_) => None,
        };
        Ok(ContainerExit {
            status: status(code),
            oom_killed,
        })
    }

    /// Until it has run and ended, which the API has no word for: the next end, unless it has ended already. Registered
    /// before it is looked at, so that an end between the two is not missed.
    async fn register_exited(&self, name: &str) -> Result<Exiting> {
        let next = self.register(name, "next-exit").await?;
        match self.inspected(name).await {
            Ok(info) if state(&info) == ContainerState::Exited => self.register(name, NOT_RUNNING).await,
            Ok(_) => Ok(next),
            // It went with its end, which was waited for.
            Err(error) if error.is_not_found() => Ok(next),
            Err(error) => Err(error),
        }
    }

    async fn exec_inspected(&self, id: &str) -> Result<Value> {
        self.0.json(Ask::get(exec(id, "/json")?)).await
    }
}

#[async_trait]
impl ContainerManager for Containers {
    async fn create(&self, asked: ContainerSpec) -> Result<Created> {
        let ask = Ask::post("containers/create")
            .with_some("name", asked.name.as_ref())
            .with_some("platform", asked.platform.as_ref())
            .json(&spec::body(&asked)?);
        let client = self.0.clone();
        // A caller that goes away before the answer is there leaves a container that nobody knows of.
        let create = async move {
            let made = client.json(ask).await?;
            Ok(Created {
                id: required(&made, "Id")?,
                warnings: list(&made, "Warnings").unwrap_or_default(),
            })
        };
        let client = self.0.clone();
        let undo = |made: Created| async move {
            let ask = Ask::delete(format!("containers/{}", made.id)).flag("force", true);
            if let Err(error) = client.tell(ask).await {
                tracing::warn!(container = %made.id, error = error.report(), "a container that nobody waits for could not be removed");
            }
        };
        self.0.spawner().tail(|_| create, undo).await
    }

    async fn start(&self, name: &str) -> Result<Outcome> {
        Ok(outcome(self.0.tell(Ask::post(of(name, "/start")?)).await?))
    }

    async fn wait(&self, name: &str, condition: WaitCondition) -> Result<Exiting> {
        match condition {
            WaitCondition::Exited => self.register_exited(name).await,
            WaitCondition::NotRunning => self.register(name, NOT_RUNNING).await,
            WaitCondition::NextExit => self.register(name, "next-exit").await,
            WaitCondition::Removed => self.register(name, "removed").await,
        }
    }

    async fn kill(&self, name: &str, signal: Signal) -> Result<()> {
        let ask = Ask::post(of(name, "/kill")?).with("signal", signal);
        self.0.tell(ask).await.map(drop)
    }

    async fn stop(&self, name: &str, options: StopOptions) -> Result<Outcome> {
        let ask = stopping(Ask::post(of(name, "/stop")?), options);
        Ok(outcome(self.0.tell(ask).await?))
    }

    async fn restart(&self, name: &str, options: StopOptions) -> Result<()> {
        let ask = stopping(Ask::post(of(name, "/restart")?), options);
        self.0.tell(ask).await.map(drop)
    }

    async fn remove(&self, name: &str, options: RemoveOptions) -> Result<Outcome> {
        let ask = Ask::delete(of(name, "")?)
            .flag("force", options.force)
            .flag("v", options.volumes);
        Ok(outcome(self.0.tell(ask).await?))
    }

    async fn pause(&self, name: &str) -> Result<()> {
        self.0.tell(Ask::post(of(name, "/pause")?)).await.map(drop)
    }

    async fn unpause(&self, name: &str) -> Result<()> {
        self.0.tell(Ask::post(of(name, "/unpause")?)).await.map(drop)
    }

    async fn rename(&self, name: &str, new_name: &str) -> Result<()> {
        let ask = Ask::post(of(name, "/rename")?).with("name", new_name);
        self.0.tell(ask).await.map(drop)
    }

    async fn update(&self, name: &str, limits: Limits) -> Result<Vec<String>> {
        let ask = Ask::post(of(name, "/update")?).json(&spec::limits(&limits));
        Ok(list(&self.0.json(ask).await?, "Warnings").unwrap_or_default())
    }

    async fn set_restart(&self, name: &str, policy: RestartPolicy) -> Result<()> {
        let ask = Ask::post(of(name, "/update")?).json(&json!({"RestartPolicy": spec::restart(policy)}));
        self.0.tell(ask).await.map(drop)
    }

    async fn checkpoint(&self, name: &str, checkpoint: &str, options: CheckpointOptions) -> Result<()> {
        let ask = Ask::post(of(name, "/checkpoints")?).json(&json!({
            "CheckpointID": checkpoint,
            "CheckpointDir": options.directory.map(|path| path.display().to_string()).unwrap_or_default(),
            "Exit": !options.leave_running,
        }));
        self.0.tell(ask).await.map(drop)
    }

    async fn checkpoints(&self, name: &str, directory: Option<PathBuf>) -> Result<Vec<String>> {
        let ask = Ask::get(of(name, "/checkpoints")?).with_some("dir", shown(directory));
        let told = self.0.json(ask).await?;
        // An engine that has none may say so by null.
        let names = told.as_array().into_iter().flatten().map(|one| required(one, "Name"));
        names.collect()
    }

    async fn remove_checkpoint(&self, name: &str, checkpoint: &str, directory: Option<PathBuf>) -> Result<()> {
        let path = of(name, &format!("/checkpoints/{}", segment(checkpoint)))?;
        let ask = Ask::delete(path).with_some("dir", shown(directory));
        self.0.tell(ask).await.map(drop)
    }

    async fn restore(&self, name: &str, checkpoint: &str, directory: Option<PathBuf>) -> Result<Outcome> {
        let ask = Ask::post(of(name, "/start")?).with("checkpoint", checkpoint);
        Ok(outcome(
            self.0.tell(ask.with_some("checkpoint-dir", shown(directory))).await?,
        ))
    }

    async fn inspect(&self, name: &str) -> Result<ContainerInfo> {
        info(&self.inspected(name).await?)
    }

    async fn list(&self, options: ListOptions) -> Result<Vec<ContainerSummary>> {
        let ask = Ask::get("containers/json")
            .flag("all", options.all)
            .filter(&options.filter);
        let lines = self.0.json(ask).await?;
        let lines = lines.as_array().ok_or_else(|| nonsense("no list of containers"))?;
        lines.iter().map(summary).collect()
    }

    async fn top(&self, name: &str, arguments: &[String]) -> Result<Top> {
        let arguments = Some(arguments.join(" ")).filter(|words| !words.is_empty());
        let ask = Ask::get(of(name, "/top")?).with_some("ps_args", arguments);
        let top = self.0.json(ask).await?;
        let rows = json::objects(&top, "Processes").map(|row| {
            let cells = row.as_array().into_iter().flatten().filter_map(Value::as_str);
            cells.map(str::to_owned).collect()
        });
        Ok(Top {
            titles: list(&top, "Titles").unwrap_or_default(),
            processes: rows.collect(),
        })
    }

    async fn diff(&self, name: &str) -> Result<Vec<Change>> {
        let told = self.0.json(Ask::get(of(name, "/changes")?)).await?;
        let changes = told.as_array().into_iter().flatten().map(change);
        changes.collect()
    }

    async fn export(&self, name: &str) -> Result<ByteStream> {
        let answer = self.0.send(Ask::get(of(name, "/export")?)).await?;
        Ok(pieces::bytes(self.0.clone(), answer))
    }

    async fn stat_path(&self, name: &str, path: &str) -> Result<PathStat> {
        let answer = self.0.send(Ask::head(of(name, "/archive")?).with("path", path)).await?;
        path_stat(answer.headers())
    }

    async fn copy_out(&self, name: &str, path: &str) -> Result<CopiedOut> {
        let answer = self.0.send(Ask::get(of(name, "/archive")?).with("path", path)).await?;
        let stat = path_stat(answer.headers())?;
        Ok(CopiedOut {
            stat,
            archive: pieces::bytes(self.0.clone(), answer),
        })
    }

    async fn copy_in(&self, name: &str, path: &str, archive: ByteStream, options: CopyInOptions) -> Result<()> {
        let ask = Ask::put(of(name, "/archive")?)
            .with("path", path)
            .flag("noOverwriteDirNonDir", options.keep_kinds)
            .flag("copyUIDGID", options.own_by_user);
        self.0.tell(ask.stream(archive)).await.map(drop)
    }

    async fn commit(&self, name: &str, options: CommitOptions) -> Result<ImageId> {
        if name.is_empty() {
            return Err(Error::not_found(ObjectKind::Container, name));
        }
        let mut ask = Ask::post("commit").with("container", name).with("pause", options.pause);
        if let Some(reference) = &options.name {
            ask = super::images::named(ask, "repo", "tag", reference);
        }
        let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        ask = ask.with_some("author", said(&options.author));
        ask = ask.with_some("comment", said(&options.message));
        ask = options
            .changes
            .iter()
            .fold(ask, |ask, change| ask.with("changes", change));
        let config = serde_json::to_value(&options.config)
            .map_err(|error| Error::internal("a config that is no JSON").with_source(error))?;
        let client = self.0.clone();
        let made = client.json(ask.json(&config)).await?;
        required(&made, "Id")
    }

    async fn stats(&self, name: &str, options: StatsOptions) -> Result<BoxStream<Result<Stats>>> {
        let ask = Ask::get(of(name, "/stats")?)
            .with("stream", options.stream)
            .flag("one-shot", options.one_shot && !options.stream);
        let answer = self.0.send(ask).await?;
        let lines = Lines::new(pieces::bytes(self.0.clone(), answer));
        Ok(Box::pin(stream::try_unfold(lines, |mut lines| async move {
            let reading = lines.next().await?;
            Ok(reading.map(|reading| (stats::read(&reading), lines)))
        })))
    }

    async fn connect(&self, name: &str, network: &str, endpoint: EndpointSpec) -> Result<()> {
        let body = serde_json::json!({"Container": name, "EndpointConfig": places::asked_endpoint(&endpoint)});
        let ask = Ask::post(format!("networks/{}/connect", segment(network))).json(&body);
        self.0.tell(ask).await.map(drop)
    }

    async fn disconnect(&self, name: &str, network: &str) -> Result<Outcome> {
        let body = serde_json::json!({"Container": name, "Force": false});
        let ask = Ask::post(format!("networks/{}/disconnect", segment(network))).json(&body);
        self.0.tell(ask).await?;
        Ok(Outcome::Done)
    }

    async fn prune(&self, filter: Filter) -> Result<Pruned> {
        let pruned = self.0.json(Ask::post("containers/prune").filter(&filter)).await?;
        Ok(Pruned {
            removed: list(&pruned, "ContainersDeleted").unwrap_or_default(),
            reclaimed_bytes: json::number(&pruned, "SpaceReclaimed"),
        })
    }

    async fn logs(&self, name: &str, query: LogQuery) -> Result<LogEntries> {
        let tty = self.has_terminal(name).await?;
        let ask = Ask::get(of(name, "/logs")?)
            .flag("stdout", query.stdout)
            .flag("stderr", query.stderr)
            .flag("follow", query.follow)
            // Each entry has its time, whether or not it is to be shown.
            .flag("timestamps", true)
            .flag("details", query.details)
            .with_some("since", query.since_ns.map(stamp))
            .with_some("until", query.until_ns.map(stamp))
            .with_some("tail", query.tail);
        if !query.stdout && !query.stderr {
            return Ok(Box::pin(stream::empty()));
        }
        let answer = self.0.send(ask).await?;
        let bytes = pieces::bytes(self.0.clone(), answer);
        Ok(logs::entries(bytes, tty, query.timestamps))
    }

    async fn attach(&self, name: &str, options: AttachOptions) -> Result<Attached> {
        let info = self.inspected(name).await?;
        let stdin = flag(&info["Config"], "OpenStdin");
        let ask = Ask::post(of(name, "/attach")?)
            .flag("stream", true)
            .flag("stdout", true)
            .flag("stderr", true)
            .flag("stdin", stdin)
            .flag("logs", options.logs);
        let wanted = Wanted {
            tty: flag(&info["Config"], "Tty"),
            stdin,
            slow: options.slow,
        };
        hijack::take_over(&self.0, ask, wanted).await
    }

    async fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<()> {
        let ask = Ask::post(of(name, "/resize")?).with("h", rows).with("w", columns);
        self.0.tell(ask).await.map(drop)
    }

    async fn exec_create(&self, name: &str, asked: ExecSpec) -> Result<Exec> {
        let env = asked.env.iter().map(|(name, value)| format!("{name}={value}"));
        let mut body = json!({
            "Cmd": asked.command,
            "Env": env.collect::<Vec<_>>(),
            "User": asked.user.as_deref().unwrap_or_default(),
            "Tty": asked.tty,
            "AttachStdin": asked.stdin,
            "AttachStdout": true,
            "AttachStderr": true,
            "Privileged": asked.privileged,
        });
        if let Some(keys) = &asked.detach_keys {
            body["DetachKeys"] = json!(keys);
        }
        if let Some(dir) = &asked.working_dir {
            body["WorkingDir"] = json!(dir);
        }
        if let Some((rows, columns)) = asked.tty_size {
            body["ConsoleSize"] = json!([rows, columns]);
        }
        let made = self.0.json(Ask::post(of(name, "/exec")?).json(&body)).await?;
        let id = text(&made, "Id").ok_or_else(|| nonsense("an exec without an id"))?;
        let known = self.exec_inspected(&id).await?;
        Ok(Exec {
            id,
            container: required(&known, "ContainerID")?,
        })
    }

    async fn exec_start(&self, id: &str, options: AttachOptions) -> Result<Attached> {
        let known = self.exec_inspected(id).await?;
        let tty = flag(&known["ProcessConfig"], "tty");
        let ask = Ask::post(exec(id, "/start")?).json(&json!({"Detach": false, "Tty": tty}));
        let wanted = Wanted {
            tty,
            stdin: flag(&known, "OpenStdin"),
            slow: options.slow,
        };
        hijack::take_over(&self.0, ask, wanted).await
    }

    async fn exec_wait(&self, id: &str) -> Result<ExitStatus> {
        let containers = Self(self.0.clone());
        let id = id.to_owned();
        // The API has no word for it. Timers are the driver's.
        let looking = async move {
            let mut pause = LOOK;
            loop {
                let known = containers.exec_inspected(&id).await?;
                let code = known["ExitCode"].as_i64();
                match (flag(&known, "Running"), code) {
                    (false, Some(code)) => return Ok(status(code)),
                    (false, None) => {
                        let error = Error::new(ErrorKind::InvalidState, format!("exec {id} was never started"));
                        return Err(error.with_object(ObjectKind::Exec, id));
                    }
                    (true, _) => tokio::time::sleep(pause).await,
                }
                pause = (pause * 2).min(LOOK_AT_MOST);
            }
        };
        self.0.spawner().call(looking).await
    }

    async fn exec_inspect(&self, id: &str) -> Result<ExecInfo> {
        exec_info(&self.exec_inspected(id).await?)
    }

    async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let ask = Ask::post(exec(id, "/resize")?).with("h", rows).with("w", columns);
        self.0.tell(ask).await.map(drop)
    }
}

/// Docker has a word that is not ours: one that could not be removed is being removed.
fn state_of(word: &str) -> Option<ContainerState> {
    match word {
        "dead" => Some(ContainerState::Removing),
        word => ContainerState::parse(word),
    }
}

fn state(info: &Value) -> ContainerState {
    let word = info["State"]["Status"].as_str().unwrap_or_default();
    state_of(word).unwrap_or(ContainerState::Exited)
}

fn info(value: &Value) -> Result<ContainerInfo> {
    let of_state = &value["State"];
    let word = of_state["Status"].as_str().unwrap_or_default();
    let state = state_of(word).ok_or_else(|| nonsense(format_args!("the state {word:?}")))?;
    let asked = spec::asked(value);
    let finished = json::moment(of_state, "FinishedAt");
    let code = of_state["ExitCode"].as_i64().unwrap_or(0);
    let has_ended = !state.is_alive() && (finished.is_some() || code != 0);
    let exit = has_ended.then(|| ContainerExit {
        status: status(code),
        oom_killed: of_state["OOMKilled"].as_bool(),
    });
    let path = text(value, "Path").into_iter();
    Ok(ContainerInfo {
        id: required(value, "Id")?,
        name: text_or_empty(value, "Name").trim_start_matches('/').to_owned(),
        image_id: required(value, "Image")?,
        command: path.chain(list(value, "Args").unwrap_or_default()).collect(),
        labels: asked.labels.clone(),
        endpoints: places::endpoints(&value["NetworkSettings"]),
        ports: places::bound_ports(&value["NetworkSettings"]["Ports"]),
        exposed: places::exposed(&value["Config"]["ExposedPorts"]),
        mounts: spec::points(value),
        state,
        pid: json::positive(of_state, "Pid").and_then(|pid| u32::try_from(pid).ok()),
        created: json::moment(value, "Created").unwrap_or(std::time::UNIX_EPOCH),
        started: json::moment(of_state, "StartedAt"),
        finished,
        exit,
        error: text(of_state, "Error"),
        restart_count: u32::try_from(json::number(value, "RestartCount")).unwrap_or(u32::MAX),
        health: health(&of_state["Health"]),
        health_check: asked.health.clone(),
        log_path: text(value, "LogPath").map(Into::into),
        ownership: String::new(),
        uid_map: Vec::new(),
        gid_map: Vec::new(),
        warnings: Vec::new(),
        execs: list(value, "ExecIDs").unwrap_or_default(),
        spec: asked,
    })
}

/// A container's health, where it has a check that has run.
fn health(shown: &Value) -> Option<Health> {
    let status = match shown["Status"].as_str()? {
        "starting" => HealthStatus::Starting,
        "healthy" => HealthStatus::Healthy,
        "unhealthy" => HealthStatus::Unhealthy,
        _ => return None,
    };
    let probes = json::objects(shown, "Log").map(|probe| ProbeResult {
        start: json::moment(probe, "Start").unwrap_or(std::time::UNIX_EPOCH),
        end: json::moment(probe, "End").unwrap_or(std::time::UNIX_EPOCH),
        exit_code: probe["ExitCode"]
            .as_i64()
            .and_then(|code| i32::try_from(code).ok())
            .unwrap_or(-1),
        output: text_or_empty(probe, "Output"),
    });
    Some(Health {
        status,
        failing_streak: u32::try_from(json::number(shown, "FailingStreak")).unwrap_or(u32::MAX),
        log: probes.collect(),
    })
}

fn summary(line: &Value) -> Result<ContainerSummary> {
    let word = line["State"].as_str().unwrap_or_default();
    let names = list(line, "Names").unwrap_or_default();
    // Links have more than one slash.
    let own = names
        .iter()
        .map(|name| name.trim_start_matches('/'))
        .find(|name| !name.contains('/'));
    let mounts = json::objects(line, "Mounts").filter(|mount| mount["Type"] == "bind");
    let binds = mounts.filter_map(|mount| {
        Some(crate::containers::BindMount {
            source: text(mount, "Source")?.into(),
            target: text(mount, "Destination")?.into(),
            read_only: !flag(mount, "RW"),
        })
    });
    Ok(ContainerSummary {
        id: required(line, "Id")?,
        name: own.unwrap_or_default().to_owned(),
        image: text_or_empty(line, "Image"),
        image_id: required(line, "ImageID")?,
        command: words(&text_or_empty(line, "Command")),
        created: json::seconds(line, "Created"),
        state: state_of(word).ok_or_else(|| nonsense(format_args!("the state {word:?}")))?,
        status: text_or_empty(line, "Status"),
        labels: json::map(line, "Labels"),
        health: health(&line["Health"]),
        network: spec::mode(line["HostConfig"]["NetworkMode"].as_str().unwrap_or_default()),
        binds: binds.collect(),
        endpoints: places::endpoints(&line["NetworkSettings"]),
        ports: places::listed_ports(line),
        mounts: spec::points(line),
    })
}

/// The words of a command in one line, of which those with a space are in single quotes. Source: moby, `daemon/list.go`.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let quoted = rest.strip_prefix('\'').and_then(|inner| {
            let end = inner
                .find("' ")
                .or_else(|| inner.ends_with('\'').then(|| inner.len() - 1))?;
            Some((inner.get(..end)?, inner.get(end + 1..)?))
        });
        let (word, after) = quoted.unwrap_or_else(|| rest.split_at(rest.find(' ').unwrap_or(rest.len())));
        words.push(word.to_owned());
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    words
}

fn exec_info(known: &Value) -> Result<ExecInfo> {
    let process = &known["ProcessConfig"];
    let program = text(process, "entrypoint").into_iter();
    let mut asked = ExecSpec::new(program.chain(list(process, "arguments").unwrap_or_default()));
    asked.tty = flag(process, "tty");
    asked.user = text(process, "user");
    asked.privileged = flag(process, "privileged");
    asked.stdin = flag(known, "OpenStdin");
    let running = flag(known, "Running");
    let code = known["ExitCode"].as_i64().filter(|_| !running);
    Ok(ExecInfo {
        id: text(known, "ID").ok_or_else(|| nonsense("an exec without an id"))?,
        container: required(known, "ContainerID")?,
        spec: asked,
        running,
        pid: json::positive(known, "Pid").and_then(|pid| u32::try_from(pid).ok()),
        status: code.map(status),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_comes_apart() {
        assert_eq!(words("sh -c 'echo a b'"), ["sh", "-c", "echo a b"]);
        assert_eq!(words("sh -c 'a b' c"), ["sh", "-c", "a b", "c"]);
        assert_eq!(words("it's"), ["it's"]);
        assert_eq!(words("sh 'x"), ["sh", "'x"]);
        assert!(words("").is_empty());
    }

    #[test]
    fn what_dockerd_says_of_a_container() {
        let id = "a".repeat(64);
        let image = format!("sha256:{}", "b".repeat(64));
        let shown = json!({
            "Id": id, "Name": "/web", "Image": image, "Path": "sh", "Args": ["-c", "exit 3"],
            "Created": "2024-01-31T12:00:00.123456789Z",
            "State": {"Status": "exited", "Running": false, "OOMKilled": true, "ExitCode": 3, "Pid": 0, "Error": "",
                "StartedAt": "2024-01-31T12:00:01Z", "FinishedAt": "2024-01-31T12:00:02Z"},
            "Config": {"Image": "busybox", "Labels": {"a": "b"}}, "HostConfig": {"NetworkMode": "bridge"}, "ExecIDs": null,
        });
        let read = info(&shown).unwrap();
        assert_eq!(
            (read.name.as_str(), read.state, read.pid),
            ("web", ContainerState::Exited, None)
        );
        assert_eq!(read.command, ["sh", "-c", "exit 3"]);
        let exit = read.exit.unwrap();
        assert_eq!((exit.status.code(), exit.oom_killed), (3, Some(true)));
        assert_eq!((read.error, read.labels["a"].as_str()), (None, "b"));
        let odd = json!({"Id": id, "Image": image, "State": {"Status": "sleeping"}});
        assert_eq!(info(&odd).unwrap_err().kind(), &ErrorKind::Unavailable);
        assert!(info(&json!([])).is_err());
        assert!(of("", "/json").unwrap_err().is_not_found());
    }
}
