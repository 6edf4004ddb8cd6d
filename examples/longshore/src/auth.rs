//! Docker's file of credentials: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use longshore::registry::http::AuthFile;
use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// Docker's name for Docker Hub in this file.
const HUB: &str = "https://index.docker.io/v1/";

/// Where the file is.
pub fn path() -> Result<PathBuf, Failure> {
    let dir = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let dir = dir.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
    let dir = dir.ok_or_else(|| Failure::ours("neither DOCKER_CONFIG nor HOME says where credentials are"))?;
    Ok(dir.join("config.json"))
}

/// What it says; nothing where there is none. Helpers it names are looked for in `PATH`.
pub fn load() -> Result<Option<AuthFile>, Failure> {
    let Ok(path) = path() else { return Ok(None) };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::ours(format!("cannot read {}: {error}", path.display()))),
    };
    let file = AuthFile::parse(&bytes).map_err(|error| Failure::ours(format!("{}: {error}", path.display())))?;
    Ok(Some(match helpers() {
        Some(dir) => file.helpers_in(dir),
        None => file,
    }))
}

/// The first directory of `PATH` that has a credential helper.
fn helpers() -> Option<PathBuf> {
    let is_helper = |entry: io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("docker-credential-"))
    };
    let all = std::env::var_os("PATH")?;
    std::env::split_paths(&all).find(|dir| std::fs::read_dir(dir).is_ok_and(|mut entries| entries.any(is_helper)))
}

/// The key of a host in the file.
fn key(host: &str) -> &str {
    if host == "docker.io" { HUB } else { host }
}

/// Writes credentials down, and leaves everything else in the file as it is.
pub fn remember(path: &Path, host: &str, user: &str, password: &str) -> Result<(), Failure> {
    let auth = STANDARD.encode(format!("{user}:{password}"));
    change(path, |auths| {
        auths.insert(key(host).to_owned(), json!({ "auth": auth }));
        true
    })
    .map(drop)
}

/// Takes credentials out. Whether there were any.
pub fn forget(path: &Path, host: &str) -> Result<bool, Failure> {
    change(path, |auths| auths.remove(key(host)).is_some())
}

fn change(path: &Path, work: impl FnOnce(&mut Map<String, Value>) -> bool) -> Result<bool, Failure> {
    let mut file: Value = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| unusable(path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => json!({}),
        Err(error) => return Err(error.into()),
    };
    let top = file.as_object_mut().ok_or_else(|| unusable(path))?;
    let auths = top.entry("auths").or_insert_with(|| json!({}));
    let changed = work(auths.as_object_mut().ok_or_else(|| unusable(path))?);
    if changed {
        write(path, &file)?;
    }
    Ok(changed)
}

fn unusable(path: &Path) -> Failure {
    Failure::ours(format!(
        "{} is not a file of Docker's: repair or remove it",
        path.display()
    ))
}

/// For nobody else to read, and whole at any moment.
fn write(path: &Path, file: &Value) -> Result<(), Failure> {
    use std::io::Write as _;
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let text = serde_json::to_vec_pretty(file).map_err(|error| Failure::ours(error.to_string()))?;
    let mut options = std::fs::OpenOptions::new();
    let written = options.write(true).create(true).truncate(true).mode(0o600).open(&part);
    let written = written
        .and_then(|mut out| out.write_all(&text))
        .and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    Ok(written?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_login_is_written_beside_what_is_there() {
        let dir = std::env::temp_dir().join(format!("longshore-auth-{}", std::process::id()));
        let path = dir.join("deep/config.json");
        remember(&path, "host:5000", "u", "p").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, r#"{"auths":{"a":{}},"psFormat":"x"}"#).unwrap();
        remember(&path, "docker.io", "u", "p").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("psFormat") && text.contains(HUB) && text.contains("dTpw"),
            "{text}"
        );
        assert!(forget(&path, "docker.io").unwrap() && !forget(&path, "docker.io").unwrap());
        std::fs::write(&path, "[]").unwrap();
        assert!(remember(&path, "x", "u", "p").is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
