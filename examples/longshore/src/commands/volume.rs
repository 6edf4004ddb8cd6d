//! `volume`: what containers keep when they go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use longshore::volumes::{CreateVolume, RemoveVolumeOptions, VolumeInfo};
use longshore::{Bytes, Filter};
use serde_json::{Value, json};

use super::export::{no_terminal, write};
use super::{each, filter, say};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::options::{self, Pair};
use crate::table::Table;
use crate::transfer;

/// Options of `volume create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Who keeps it
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// What the driver is told: type=nfs, o=addr=…, device=…
    #[arg(short, long = "opt", value_name = "KEY=VALUE", value_parser = options::pair)]
    opt: Vec<Pair>,
    /// Label
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = options::pair)]
    label: Vec<Pair>,
    /// Its name; without one it is anonymous
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Options of `volume ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Only those that match: dangling, driver, label, name
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = options::pair)]
    filter: Vec<Pair>,
    /// Print names alone
    #[arg(short, long)]
    quiet: bool,
}

/// Options of `volume inspect`.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// Names
    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
}

/// Options of `volume rm`.
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// Find nothing wrong with one that is not there
    #[arg(short, long)]
    force: bool,
    /// Names
    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
}

/// Options of `volume prune`.
#[derive(Debug, clap::Args)]
pub struct Prune {
    /// Also those with a name
    #[arg(short, long)]
    all: bool,
    /// Only those that match: label, label!
    #[arg(long, value_name = "KEY=VALUE", value_parser = options::pair)]
    filter: Vec<Pair>,
    /// As Docker's, which asks first; this client never does
    #[arg(short, long)]
    force: bool,
}

/// Options of `volume snapshot`.
#[derive(Debug, clap::Args)]
pub struct Snapshot {
    /// The volume to copy
    #[arg(value_name = "VOLUME")]
    from: String,
    /// Name of the copy
    #[arg(value_name = "NAME")]
    into: String,
}

/// Options of `volume export`.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// Write to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Its name
    #[arg(value_name = "VOLUME")]
    volume: String,
}

/// Options of `volume import`.
#[derive(Debug, clap::Args)]
pub struct Import {
    /// Name of the new volume
    #[arg(value_name = "VOLUME")]
    volume: String,
    /// A tar, plain or compressed; - for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

fn map(pairs: &[Pair]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| (key.clone(), value.clone().unwrap_or_default()))
        .collect()
}

/// Makes a volume, and prints its name.
pub async fn create(context: &Context, args: Create) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let mut request = CreateVolume::default().driver(args.driver);
    request.name = args.name;
    request.options = map(&args.opt);
    request.labels = map(&args.label);
    say(engine.create_volume(request).await?.name())?;
    Ok(0)
}

/// Lists volumes.
pub async fn ls(context: &Context, args: Ls) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let found = engine.volumes().list(filter(&args.filter)).await?;
    if args.quiet {
        for volume in &found {
            say(&volume.name)?;
        }
        return Ok(0);
    }
    let mut table = Table::new(["DRIVER", "VOLUME NAME"]);
    for volume in found {
        table.row([volume.driver, volume.name]);
    }
    table.print()?;
    Ok(0)
}

/// Prints everything about volumes, in Docker's field names.
pub async fn inspect(context: &Context, args: Inspect) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let (mut code, mut found) = (0, Vec::new());
    for name in &args.volumes {
        match engine.volumes().inspect(name).await {
            Ok(volume) => found.push(shown(&volume)),
            Err(error) => {
                code = 1;
                eprintln!("longshore: {}", error.report());
            }
        }
    }
    say(&format!("{:#}", Value::Array(found)))?;
    Ok(code)
}

fn shown(volume: &VolumeInfo) -> Value {
    json!({
        "Name": volume.name,
        "Driver": volume.driver,
        "Mountpoint": volume.mountpoint,
        "CreatedAt": human::timestamp(volume.created),
        "Labels": volume.labels,
        "Options": volume.options,
        "Scope": "local",
        "Users": volume.users,
    })
}

/// Removes volumes.
pub async fn rm(context: &Context, args: Rm) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let options = match args.force {
        true => RemoveVolumeOptions::force(),
        false => RemoveVolumeOptions::default(),
    };
    each(&args.volumes, async |name| {
        engine.volumes().remove(name, options).await.map(drop)
    })
    .await
}

/// Removes volumes that no container uses.
pub async fn prune(context: &Context, args: Prune) -> Result<u8, Failure> {
    let _ = args.force;
    let engine = context.engine().await?;
    let mut wanted: Filter = filter(&args.filter);
    if args.all {
        wanted = wanted.with("all", "true");
    }
    let pruned = engine.volumes().prune(wanted).await?;
    if !pruned.removed.is_empty() {
        say("Deleted Volumes:")?;
    }
    for name in &pruned.removed {
        say(name)?;
    }
    say(&format!(
        "Total reclaimed space: {}",
        Bytes::new(pruned.reclaimed_bytes)
    ))?;
    Ok(0)
}

/// Copies a volume as it is at this moment.
pub async fn snapshot(context: &Context, args: Snapshot) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let volume = engine.volume(&args.from).await?;
    say(volume.snapshot(CreateVolume::named(args.into)).await?.name())?;
    Ok(0)
}

/// Writes what a volume holds into an archive.
pub async fn export(context: &Context, args: Export) -> Result<u8, Failure> {
    no_terminal(args.output.as_deref())?;
    let engine = context.engine().await?;
    let archive = engine.volume(&args.volume).await?.export().await?;
    write(archive, args.output.as_deref()).await
}

/// Makes a volume of what an archive holds, and prints its name.
pub async fn import(context: &Context, args: Import) -> Result<u8, Failure> {
    let file = (args.file != Path::new("-")).then_some(args.file.as_path());
    let archive = transfer::read(file).map_err(|error| Failure::ours(error.to_string()))?;
    let engine = context.engine().await?;
    let volume = engine.import_volume(CreateVolume::named(args.volume), archive).await?;
    say(volume.name())?;
    Ok(0)
}
