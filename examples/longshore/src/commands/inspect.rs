//! `inspect`: everything about containers and images, as a JSON array in Docker's field names.

use longshore::{Engine, Platform};
use serde_json::Value;

use super::say;
use crate::context::Context;
use crate::failure::Failure;
use crate::inspection;

/// Options of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the names are names of [default: containers first, then images]
    #[arg(long = "type", value_name = "KIND", value_parser = ["container", "image"])]
    kind: Option<String>,
    /// Of an image's platforms this one
    #[arg(long)]
    platform: Option<Platform>,
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// Options of `container inspect`.
#[derive(Debug, clap::Args)]
pub struct Names {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

/// Prints containers alone.
pub async fn containers(context: &Context, args: Names) -> Result<u8, Failure> {
    let all = Args {
        kind: Some("container".into()),
        platform: None,
        names: args.names,
    };
    run(context, all).await
}

/// Prints what is found; a name that is not is told on stderr.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let mut code = 0;
    let mut found = Vec::new();
    for name in &args.names {
        match look_up(&engine, name, args.kind.as_deref(), args.platform.as_ref()).await {
            Ok(value) => found.push(value),
            Err(error) => {
                code = 1;
                eprintln!("longshore: {}", error.report());
            }
        }
    }
    say(&format!("{:#}", Value::Array(found)))?;
    Ok(code)
}

async fn look_up(
    engine: &Engine,
    name: &str,
    kind: Option<&str>,
    platform: Option<&Platform>,
) -> longshore::Result<Value> {
    if let Some(platform) = platform {
        let mut all = engine.images().variants(name).await?;
        all.retain(|image| platform.accepts(&image.platform));
        let none = || {
            longshore::Error::new(
                longshore::ErrorKind::NotFound,
                format!("{name} is not here for {platform}"),
            )
        };
        return Ok(inspection::image(all.first().ok_or_else(none)?));
    }
    if kind != Some("image") {
        match engine.containers().inspect(name).await {
            Ok(info) => return Ok(inspection::container(&info)),
            Err(error) if error.is_not_found() && kind.is_none() => {}
            Err(error) => return Err(error),
        }
    }
    match engine.images().inspect(name).await {
        Ok(info) => Ok(inspection::image(&info)),
        Err(error) if error.is_not_found() && kind.is_none() => Err(longshore::Error::new(
            longshore::ErrorKind::NotFound,
            format!("no such object: {name}"),
        )),
        Err(error) => Err(error),
    }
}
