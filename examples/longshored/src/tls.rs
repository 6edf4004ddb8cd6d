//! TLS for TCP sockets, with or without certificates of clients: the files that the options name.

use std::path::{Path, PathBuf};

use longshore::api::Tls;

use crate::failure::Failure;
use crate::options::Options;

/// What TCP sockets speak; `None` without TLS.
pub fn config(options: &Options) -> Result<Option<Tls>, Failure> {
    if !options.tls() {
        return Ok(None);
    }
    let chain = read(options.tlscert.as_ref(), "--tlscert")?;
    let key = read(options.tlskey.as_ref(), "--tlskey")?;
    let authority = match options.tlsverify {
        true => Some(read(options.tlscacert.as_ref(), "--tlscacert")?),
        false => None,
    };
    Ok(Some(Tls::from_pem(&chain, &key, authority.as_deref())?))
}

fn read(path: Option<&PathBuf>, option: &str) -> Result<Vec<u8>, Failure> {
    let path: &Path = path.ok_or_else(|| Failure::new(format!("TLS needs {option} too")))?;
    std::fs::read(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}
