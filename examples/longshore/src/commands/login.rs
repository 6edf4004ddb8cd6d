//! `login` and `logout`: who one is to a registry.

use std::io::{self, Read as _};

use longshore::registry::http::HttpRegistries;
use longshore::registry::{Credentials, RegistryProvider as _};

use super::say;
use crate::auth;
use crate::failure::Failure;

const HUB: &str = "docker.io";

/// Options of `login`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// User name
    #[arg(short, long)]
    username: String,
    /// Password; other users of this machine see it in the list of processes, so prefer --password-stdin
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Take the password from stdin
    #[arg(long)]
    password_stdin: bool,
    /// The registry's host [default: docker.io]
    #[arg(default_value = HUB)]
    server: String,
}

/// Options of `logout`.
#[derive(Debug, clap::Args)]
pub struct Logout {
    /// The registry's host [default: docker.io]
    #[arg(default_value = HUB)]
    server: String,
}

/// Asks the registry whether it takes the credentials, and writes them down.
pub async fn run(args: Args) -> Result<u8, Failure> {
    let password = match (args.password, args.password_stdin) {
        (Some(password), _) => password,
        (None, true) => from_stdin()?,
        (None, false) => return Err(Failure::ours("a password is needed: give it with --password-stdin")),
    };
    let server = host(&args.server);
    let credentials = Credentials::password(&args.username, &password);
    let registry = HttpRegistries::default().open(server, &credentials).await?;
    registry.check_login().await?;
    auth::remember(&auth::path()?, server, &args.username, &password)?;
    say("Login Succeeded")?;
    Ok(0)
}

/// Forgets the credentials.
pub async fn logout(args: Logout) -> Result<u8, Failure> {
    let server = host(&args.server);
    if auth::forget(&auth::path()?, server)? {
        say(&format!("Removing login credentials for {server}"))?;
    } else {
        say(&format!("Not logged in to {server}"))?;
    }
    Ok(0)
}

/// The host of what may be an address.
fn host(server: &str) -> &str {
    let bare = server.split_once("://").map_or(server, |(_, rest)| rest);
    match bare.split('/').next().unwrap_or(bare) {
        "index.docker.io" | "registry-1.docker.io" => HUB,
        host => host,
    }
}

fn from_stdin() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().lock().take(64 << 10).read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn servers_are_hosts() {
        assert_eq!(
            (host("https://index.docker.io/v1/"), host("host:5000")),
            ("docker.io", "host:5000")
        );
    }
}
