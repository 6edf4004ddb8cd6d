//! What bollard lets its user see: the same steps as cli.sh and sdk.py, for a comparison of two servers.
//!
//!     steps HOST IMAGE
//!
//! HOST is the server (unix:///…), or an engine in this very process (pipe:ROOT, see pipe.rs); IMAGE the name of a busybox image in a registry that it can pull from and push to.

mod pipe;

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, EndpointSettings, EventMessage, ExecConfig, HostConfig, Ipam, IpamConfig,
    NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest, PortBinding, RestartPolicy,
};
use bollard::query_parameters::*;
use futures_util::{Stream, StreamExt, TryStreamExt};
use tokio::io::AsyncWriteExt;

type Outcome<T = String> = Result<T, Box<dyn Error>>;

struct Steps {
    docker: Docker,
    image: String,
    repository: String,
    tag: String,
}

macro_rules! steps {
    ($steps:ident: $($name:literal => $body:ident),* $(,)?) => {
        $($steps.report($name, $steps.$body().await);)*
    };
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let (host, image) = (arguments.next().ok_or("no host")?, arguments.next().ok_or("no image")?);
    let docker = match (host.strip_prefix("unix://"), host.strip_prefix("pipe:")) {
        (Some(path), _) => Docker::connect_with_unix(path, 60, bollard::API_DEFAULT_VERSION)?,
        (_, Some(root)) => pipe::connect(root.into()).await?,
        _ => return Err("neither a unix socket nor a pipe".into()),
    };
    let docker = docker.negotiate_version().await?;
    let (repository, tag) = image.rsplit_once(':').ok_or("no tag")?;
    let steps = Steps {
        docker,
        repository: repository.to_owned(),
        tag: tag.to_owned(),
        image: image.clone(),
    };
    steps!(steps:
        "ping" => ping,
        "version" => version,
        "info" => info,
        "pull" => pull,
        "pull of nothing" => pull_of_nothing,
        "images" => images,
        "image" => image,
        "tag and untag" => tag,
        "history" => history,
        "run" => run,
        "exit code" => exit_code,
        "no such image" => no_such_image,
        "no such container" => no_such_container,
        "no such command" => no_such_command,
        "name twice" => name_twice,
        "restart policy" => restart_policy,
        "inspect" => inspect,
        "list" => list,
        "logs" => logs,
        "exec" => exec,
        "exec with input" => exec_with_input,
        "pause, rename, restart" => verbs,
        "update" => update,
        "stats and top" => stats_and_top,
        "start twice, stop twice" => twice,
        "attach with input" => attach_with_input,
        "wait until removed" => wait_removed,
        "events" => events,
        "save and load" => save_and_load,
        "push" => push,
        "prune" => prune,
        "networks" => networks,
        "no such network" => no_such_network,
        "disk usage" => disk_usage,
    );
    Ok(())
}

async fn all<T>(
    stream: impl Stream<Item = Result<T, bollard::errors::Error>>,
) -> Result<Vec<T>, bollard::errors::Error> {
    stream.try_collect().await
}

fn words(list: &[&str]) -> Option<Vec<String>> {
    Some(list.iter().map(ToString::to_string).collect())
}

fn filter(key: &str, value: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([(key.to_owned(), vec![value.to_owned()])])
}

fn shown(value: impl Debug) -> Outcome {
    Ok(format!("{value:?}"))
}

fn text(chunks: &[LogOutput]) -> (String, String) {
    let mut both = (String::new(), String::new());
    for chunk in chunks {
        match chunk {
            LogOutput::StdErr { message } => both.1.push_str(&String::from_utf8_lossy(message)),
            other => both.0.push_str(&String::from_utf8_lossy(other.as_ref())),
        }
    }
    both
}

impl Steps {
    fn report(&self, name: &str, outcome: Outcome) {
        let line = match outcome {
            Ok(line) => format!("gives: {line}"),
            Err(error) => format!("fails: {error}"),
        };
        println!("## {name}\n{}", self.alike(&line));
    }

    /// Leaves out what differs from run to run and means nothing.
    fn alike(&self, line: &str) -> String {
        let mut out = String::new();
        let line = line.replace(&self.repository, "REPO");
        let mut digits = String::new();
        for letter in line.chars().chain(['\0']) {
            if letter.is_ascii_digit() || ('a'..='f').contains(&letter) {
                digits.push(letter);
                continue;
            }
            out.push_str(match digits.len() {
                64 => "ID",
                12 => "SHORT",
                _ => &digits,
            });
            digits.clear();
            if letter != '\0' {
                out.push(letter);
            }
        }
        out
    }

    async fn create(&self, name: &str, command: &[&str]) -> Outcome {
        self.create_with(name, command, |_| {}).await
    }

    async fn create_with(
        &self,
        name: &str,
        command: &[&str],
        change: impl FnOnce(&mut ContainerCreateBody),
    ) -> Outcome {
        let mut body = ContainerCreateBody {
            image: Some(self.image.clone()),
            cmd: words(command),
            labels: Some(HashMap::from([("made".to_owned(), "here".to_owned())])),
            host_config: Some(HostConfig {
                network_mode: Some("none".into()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        change(&mut body);
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        Ok(self.docker.create_container(Some(options), body).await?.id)
    }

    async fn started(&self, name: &str, command: &[&str]) -> Outcome {
        let id = self.create(name, command).await?;
        self.start(&id).await?;
        Ok(id)
    }

    async fn start(&self, id: &str) -> Outcome<()> {
        Ok(self.docker.start_container(id, None::<StartContainerOptions>).await?)
    }

    async fn remove(&self, id: &str) -> Outcome<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        Ok(self.docker.remove_container(id, Some(options)).await?)
    }

    async fn wait(&self, id: &str, condition: &str) -> Outcome<i64> {
        let options = WaitContainerOptionsBuilder::new().condition(condition).build();
        match all(self.docker.wait_container(id, Some(options))).await {
            Ok(answers) => Ok(answers.first().ok_or("no answer")?.status_code),
            Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => Ok(code),
            Err(error) => Err(error.into()),
        }
    }

    async fn ping(&self) -> Outcome {
        Ok(self.docker.ping().await?)
    }

    async fn version(&self) -> Outcome {
        let version = self.docker.version().await?;
        shown((
            version.os,
            version.arch,
            version.min_api_version.is_some(),
            version.components.is_some(),
        ))
    }

    async fn info(&self) -> Outcome {
        let info = self.docker.info().await?;
        shown((
            info.os_type,
            info.images.is_some(),
            info.ncpu.is_some_and(|n| n > 0),
            info.mem_total.is_some_and(|n| n > 0),
        ))
    }

    async fn pull(&self) -> Outcome {
        let options = CreateImageOptionsBuilder::new()
            .from_image(&self.repository)
            .tag(&self.tag)
            .build();
        let lines = all(self.docker.create_image(Some(options), None, None)).await?;
        let last = lines.last().and_then(|line| line.status.clone());
        shown((lines.len() > 2, last.map(|status| status.contains(&self.image))))
    }

    async fn pull_of_nothing(&self) -> Outcome {
        let options = CreateImageOptionsBuilder::new()
            .from_image(&self.repository)
            .tag("nothere")
            .build();
        shown(all(self.docker.create_image(Some(options), None, None)).await?.len())
    }

    async fn images(&self) -> Outcome {
        let options = ListImagesOptionsBuilder::new()
            .filters(&filter("reference", &self.image))
            .build();
        let images = self.docker.list_images(Some(options)).await?;
        shown(
            images
                .iter()
                .map(|image| (&image.repo_tags, image.size > 0, image.containers))
                .collect::<Vec<_>>(),
        )
    }

    async fn image(&self) -> Outcome {
        let image = self.docker.inspect_image(&self.image).await?;
        let config = image.config.unwrap_or_default();
        shown((
            image.os,
            image.architecture,
            config.cmd,
            config.env,
            image.repo_tags,
            image.root_fs.map(|fs| fs.typ),
        ))
    }

    async fn tag(&self) -> Outcome {
        let options = TagImageOptionsBuilder::new().repo(&self.repository).tag("bol").build();
        self.docker.tag_image(&self.image, Some(options)).await?;
        let removed = self
            .docker
            .remove_image(&format!("{}:bol", self.repository), None::<RemoveImageOptions>, None)
            .await?;
        shown(
            removed
                .iter()
                .map(|item| (&item.untagged, &item.deleted))
                .collect::<Vec<_>>(),
        )
    }

    async fn history(&self) -> Outcome {
        let history = self.docker.image_history(&self.image).await?;
        shown(
            history
                .iter()
                .map(|line| (&line.tags, line.size > 0))
                .collect::<Vec<_>>(),
        )
    }

    async fn run(&self) -> Outcome {
        let id = self.create("ran", &["sh", "-c", "echo out; echo err >&2"]).await?;
        let options = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdout(true)
            .stderr(true)
            .build();
        let attached = self.docker.attach_container(&id, Some(options)).await?;
        self.start(&id).await?;
        let output = all(attached.output).await?;
        let code = self.wait(&id, "not-running").await?;
        self.remove(&id).await?;
        shown((text(&output), code))
    }

    async fn exit_code(&self) -> Outcome {
        let id = self.started("coded", &["sh", "-c", "exit 42"]).await?;
        let code = self.wait(&id, "not-running").await?;
        let state = self
            .docker
            .inspect_container(&id, None::<InspectContainerOptions>)
            .await?
            .state
            .unwrap_or_default();
        self.remove(&id).await?;
        shown((code, state.status, state.exit_code, state.oom_killed, state.running))
    }

    async fn no_such_image(&self) -> Outcome {
        self.create_with("never", &["true"], |body| body.image = Some("nothere:1".into()))
            .await
    }

    async fn no_such_container(&self) -> Outcome {
        shown(
            self.docker
                .inspect_container("nothere", None::<InspectContainerOptions>)
                .await?
                .id,
        )
    }

    async fn no_such_command(&self) -> Outcome {
        let id = self.create("wrong", &["/no/such/thing"]).await?;
        let started = self.start(&id).await;
        let state = self
            .docker
            .inspect_container(&id, None::<InspectContainerOptions>)
            .await?
            .state
            .unwrap_or_default();
        self.remove(&id).await?;
        let status = match started {
            Err(error) => error.to_string().split(':').next().unwrap_or_default().to_owned(),
            Ok(()) => "it started".to_owned(),
        };
        shown((status, state.status, state.exit_code))
    }

    async fn name_twice(&self) -> Outcome {
        let id = self.create("twice", &["true"]).await?;
        let second = self.create("twice", &["true"]).await;
        self.remove(&id).await?;
        second
    }

    async fn restart_policy(&self) -> Outcome {
        let id = self
            .create_with("policy", &["true"], |body| {
                if let Some(host) = &mut body.host_config {
                    host.restart_policy = Some(RestartPolicy::default());
                }
            })
            .await?;
        self.remove(&id).await?;
        shown(())
    }

    async fn inspect(&self) -> Outcome {
        let id = self
            .create_with("looked-at", &["sleep", "60"], |body| {
                body.env = words(&["A=b"]);
                body.working_dir = Some("/tmp".into());
                body.user = Some("5:6".into());
                body.hostname = Some("box".into());
                if let Some(host) = &mut body.host_config {
                    host.memory = Some(64 << 20);
                    host.memory_swap = Some(64 << 20);
                    host.cap_drop = words(&["CHOWN"]);
                    host.readonly_rootfs = Some(true);
                }
            })
            .await?;
        self.start(&id).await?;
        let all = self
            .docker
            .inspect_container(&id, None::<InspectContainerOptions>)
            .await?;
        self.remove(&id).await?;
        let (config, host) = (all.config.unwrap_or_default(), all.host_config.unwrap_or_default());
        shown((
            (all.name, all.path, all.args, all.state.and_then(|state| state.status)),
            (
                config.env,
                config.working_dir,
                config.user,
                config.hostname,
                config.labels,
                config.image,
            ),
            (
                host.memory,
                host.cap_drop,
                host.readonly_rootfs,
                host.network_mode,
                host.restart_policy.map(|p| p.name),
            ),
        ))
    }

    async fn list(&self) -> Outcome {
        let id = self.started("listed", &["sleep", "60"]).await?;
        let options = ListContainersOptionsBuilder::new()
            .filters(&filter("label", "made=here"))
            .build();
        let listed = self.docker.list_containers(Some(options)).await?;
        self.remove(&id).await?;
        let view =
            |c: &bollard::models::ContainerSummary| (c.names.clone(), c.command.clone(), c.state, c.labels.clone());
        shown(listed.iter().map(view).collect::<Vec<_>>())
    }

    async fn logs(&self) -> Outcome {
        let id = self
            .started("logged", &["sh", "-c", "echo one; echo two >&2; sleep 0.2; echo three"])
            .await?;
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).follow(true).build();
        let followed = all(self.docker.logs(&id, Some(options))).await?;
        let options = LogsOptionsBuilder::new().stdout(true).tail("1").build();
        let last = all(self.docker.logs(&id, Some(options))).await?;
        self.remove(&id).await?;
        shown((text(&followed), text(&last)))
    }

    async fn exec_in(
        &self,
        id: &str,
        command: &[&str],
        input: Option<&[u8]>,
    ) -> Outcome<((String, String), Option<i64>)> {
        let config = ExecConfig {
            attach_stdin: Some(input.is_some()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: words(command),
            ..ExecConfig::default()
        };
        let exec = self.docker.create_exec(id, config).await?.id;
        let StartExecResults::Attached {
            output,
            input: mut stdin,
        } = self.docker.start_exec(&exec, None::<StartExecOptions>).await?
        else {
            return Err("not attached".into());
        };
        if let Some(input) = input {
            stdin.write_all(input).await?;
        }
        stdin.shutdown().await?;
        let output = all(output).await?;
        Ok((text(&output), self.docker.inspect_exec(&exec).await?.exit_code))
    }

    async fn exec(&self) -> Outcome {
        let id = self.started("executed", &["sleep", "60"]).await?;
        let outcome = self
            .exec_in(&id, &["sh", "-c", "echo out; echo err >&2; exit 9"], None)
            .await;
        let missing = self.exec_in(&id, &["nosuchthing"], None).await.map(|(_, code)| code);
        self.remove(&id).await?;
        shown((outcome?, missing?))
    }

    async fn exec_with_input(&self) -> Outcome {
        let id = self.started("fed", &["sleep", "60"]).await?;
        let outcome = self.exec_in(&id, &["wc", "-c"], Some(&vec![b'x'; 1 << 20])).await;
        self.remove(&id).await?;
        shown(outcome?)
    }

    async fn verbs(&self) -> Outcome {
        let id = self.started("first-name", &["sleep", "60"]).await?;
        let mut seen = Vec::new();
        self.docker.pause_container(&id).await?;
        seen.push(self.state(&id).await?);
        self.docker.unpause_container(&id).await?;
        let options = RenameContainerOptionsBuilder::new().name("second-name").build();
        self.docker.rename_container(&id, options).await?;
        let options = RestartContainerOptionsBuilder::new().t(0).build();
        self.docker.restart_container("second-name", Some(options)).await?;
        seen.push(self.state("second-name").await?);
        self.remove(&id).await?;
        shown(seen)
    }

    async fn update(&self) -> Outcome {
        let id = self.started("changed", &["sleep", "60"]).await?;
        let limits = ContainerUpdateBody {
            memory: Some(128 << 20),
            memory_swap: Some(-1),
            ..ContainerUpdateBody::default()
        };
        let updated = self.docker.update_container(&id, limits).await;
        let info = self
            .docker
            .inspect_container(&id, None::<InspectContainerOptions>)
            .await?;
        self.remove(&id).await?;
        updated?;
        shown(info.host_config.and_then(|host| host.memory))
    }

    async fn state(&self, id: &str) -> Outcome {
        let state = self
            .docker
            .inspect_container(id, None::<InspectContainerOptions>)
            .await?
            .state
            .unwrap_or_default();
        shown((
            state.status,
            state.paused,
            state.running,
            state.pid.is_some_and(|pid| pid > 0),
        ))
    }

    async fn stats_and_top(&self) -> Outcome {
        let id = self.started("watched", &["sleep", "60"]).await?;
        let options = StatsOptionsBuilder::new().stream(false).build();
        let stats = all(self.docker.stats(&id, Some(options))).await?;
        let options = TopOptionsBuilder::new().ps_args("-o pid,comm").build();
        let top = self.docker.top_processes(&id, Some(options)).await?;
        self.remove(&id).await?;
        shown((
            stats.len(),
            stats[0].cpu_stats.is_some(),
            stats[0].memory_stats.is_some(),
            top.titles,
            top.processes.map(|p| p.len()),
        ))
    }

    async fn twice(&self) -> Outcome {
        let id = self.started("again", &["sleep", "60"]).await?;
        let options = || Some(StopContainerOptionsBuilder::new().t(0).build());
        let started = self.start(&id).await.map_err(|error| error.to_string());
        let stopped = self
            .docker
            .stop_container(&id, options())
            .await
            .map_err(|error| error.to_string());
        let again = self
            .docker
            .stop_container(&id, options())
            .await
            .map_err(|error| error.to_string());
        self.remove(&id).await?;
        shown((started, stopped, again))
    }

    async fn attach_with_input(&self) -> Outcome {
        let id = self.create_with("cat", &["cat"], |body| {
            body.open_stdin = Some(true);
            body.stdin_once = Some(true);
            body.attach_stdin = Some(true);
        });
        let id = id.await?;
        let options = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .build();
        let mut attached = self.docker.attach_container(&id, Some(options)).await?;
        self.start(&id).await?;
        let writer = tokio::spawn(async move {
            attached.input.write_all(&vec![b'y'; 1 << 20]).await?;
            attached.input.shutdown().await
        });
        let output = all(attached.output).await?;
        writer.await??;
        let code = self.wait(&id, "not-running").await?;
        self.remove(&id).await?;
        shown((text(&output).0.len(), code))
    }

    async fn wait_removed(&self) -> Outcome {
        let id = self
            .create_with("gone", &["sh", "-c", "exit 4"], |body| {
                if let Some(host) = &mut body.host_config {
                    host.auto_remove = Some(true);
                }
            })
            .await?;
        let waiting = self.wait(&id, "removed");
        let starting = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            self.start(&id).await
        };
        let (code, started) = tokio::join!(waiting, starting);
        started?;
        let gone = self
            .docker
            .inspect_container(&id, None::<InspectContainerOptions>)
            .await
            .is_err();
        shown((code?, gone))
    }

    async fn events(&self) -> Outcome {
        let options = EventsOptionsBuilder::new()
            .filters(&filter("container", "eventful"))
            .build();
        let mut events = Box::pin(self.docker.events(Some(options)));
        let work = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let id = self.started("eventful", &["sh", "-c", "exit 3"]).await?;
            self.wait(&id, "not-running").await?;
            self.remove(&id).await
        };
        let collect = async {
            let mut seen = Vec::new();
            while let Some(Ok(event)) = events.next().await {
                let last = event.action.as_deref() == Some("destroy");
                seen.push(view(event));
                if last {
                    break;
                }
            }
            seen
        };
        let (seen, done) = tokio::join!(tokio::time::timeout(Duration::from_secs(20), collect), work);
        done?;
        shown(seen?)
    }

    async fn save_and_load(&self) -> Outcome {
        let chunks = all(self.docker.export_image(&self.image)).await?;
        self.docker
            .remove_image(&self.image, None::<RemoveImageOptions>, None)
            .await?;
        let body = futures_util::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>));
        let lines = all(self
            .docker
            .import_image_stream(ImportImageOptionsBuilder::new().build(), body, None))
        .await?;
        let lines: Vec<_> = lines
            .into_iter()
            .filter_map(|line| line.stream)
            .filter(|text| text.contains("Loaded"))
            .collect();
        shown((lines, self.docker.inspect_image(&self.image).await?.repo_tags))
    }

    async fn push(&self) -> Outcome {
        let options = TagImageOptionsBuilder::new()
            .repo(&self.repository)
            .tag("bolpushed")
            .build();
        self.docker.tag_image(&self.image, Some(options)).await?;
        let options = PushImageOptionsBuilder::new().tag("bolpushed").build();
        let lines = all(self.docker.push_image(&self.repository, Some(options), None)).await?;
        let failed = lines.iter().any(|line| line.error_detail.is_some());
        self.docker
            .remove_image(
                &format!("{}:bolpushed", self.repository),
                None::<RemoveImageOptions>,
                None,
            )
            .await?;
        shown((lines.len() > 1, failed))
    }

    async fn prune(&self) -> Outcome {
        let id = self.started("old", &["true"]).await?;
        self.wait(&id, "not-running").await?;
        let options = PruneContainersOptionsBuilder::new()
            .filters(&filter("label", "made=here"))
            .build();
        let pruned = self.docker.prune_containers(Some(options)).await?;
        shown((
            pruned.containers_deleted.map(|ids| ids.len()),
            pruned.space_reclaimed.is_some(),
        ))
    }

    async fn networks(&self) -> Outcome {
        let request = NetworkCreateRequest {
            name: "bol".into(),
            internal: Some(true),
            labels: Some(HashMap::from([("a".to_owned(), "b".to_owned())])),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig {
                    subnet: Some("10.213.63.0/24".into()),
                    gateway: Some("10.213.63.9".into()),
                    ..IpamConfig::default()
                }]),
                ..Ipam::default()
            }),
            ..NetworkCreateRequest::default()
        };
        let made = self.docker.create_network(request).await?;
        let id = self
            .create_with("on-bol", &["sleep", "60"], |body| {
                body.exposed_ports = words(&["80/tcp"]);
                if let Some(host) = &mut body.host_config {
                    host.network_mode = Some("bol".into());
                    host.port_bindings = Some(HashMap::from([(
                        "80/tcp".to_owned(),
                        Some(vec![PortBinding::default()]),
                    )]));
                }
            })
            .await?;
        self.start(&id).await?;
        let network = self
            .docker
            .inspect_network("bol", None::<InspectNetworkOptions>)
            .await?;
        let listed = ListNetworksOptionsBuilder::new()
            .filters(&filter("label", "a=b"))
            .build();
        let listed = self.docker.list_networks(Some(listed)).await?;
        let container = self
            .docker
            .inspect_container(&id, None::<InspectContainerOptions>)
            .await?;
        let places = container.network_settings.unwrap_or_default();
        let ports = places.ports.unwrap_or_default();
        let port = ports.get("80/tcp").cloned().flatten().unwrap_or_default();
        let addresses: Vec<_> = places
            .networks
            .unwrap_or_default()
            .into_values()
            .map(|place| place.gateway)
            .collect();
        let again = NetworkConnectRequest {
            container: id.clone(),
            endpoint_config: Some(EndpointSettings::default()),
        };
        let twice = self
            .docker
            .connect_network("bol", again)
            .await
            .err()
            .map(|error| error.to_string());
        let leave = NetworkDisconnectRequest {
            container: id.clone(),
            force: Some(false),
        };
        self.docker.disconnect_network("bol", leave).await?;
        self.remove(&id).await?;
        let pruned = self.docker.prune_networks(None::<PruneNetworksOptions>).await?;
        shown((
            (
                made.id.len(),
                network.internal,
                network.ipam.and_then(|ipam| ipam.config),
            ),
            network
                .containers
                .map(|all| all.into_values().map(|member| member.name).collect::<Vec<_>>()),
            listed.iter().map(|line| &line.name).collect::<Vec<_>>(),
            (
                port.iter()
                    .all(|one| one.host_port.as_ref().is_some_and(|port| port != "0")),
                addresses,
            ),
            twice,
            pruned.networks_deleted,
        ))
    }

    async fn no_such_network(&self) -> Outcome {
        let found = self
            .docker
            .inspect_network("nothere", None::<InspectNetworkOptions>)
            .await?;
        shown(found.name)
    }

    async fn disk_usage(&self) -> Outcome {
        self.docker.df(None::<DataUsageOptions>).await?;
        shown(())
    }
}

fn view(event: EventMessage) -> (Option<String>, Option<String>) {
    let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
    (event.action, attributes.get("exitCode").cloned())
}
