//! `port`: where a container's ports are published.

use longshore::types::{Port, PublishedPort};
use longshore::{Error, ErrorKind};

use super::say;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `port`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name or id
    container: String,
    /// Only this one: PORT[/PROTOCOL]
    port: Option<Port>,
}

/// Prints a line for each place of the host; of one port, those of that port alone.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let mut ports = engine.containers().inspect(&args.container).await?.ports;
    ports.sort();
    let Some(wanted) = args.port else {
        ports
            .iter()
            .try_for_each(|one| say(&format!("{} -> {}", one.port, place(one))))?;
        return Ok(0);
    };
    ports.retain(|one| one.port == wanted);
    if ports.is_empty() {
        // Docker's words.
        let message = format!("no public port '{wanted}' published for {}", args.container);
        return Err(Error::new(ErrorKind::NotFound, message).into());
    }
    ports.iter().try_for_each(|one| say(&place(one)))?;
    Ok(0)
}

fn place(one: &PublishedPort) -> String {
    std::net::SocketAddr::new(one.host_ip, one.host_port).to_string()
}
