//! Where plugins are found by name. Source: moby, `docs/extend/plugin_api.md`, "Plugin discovery".

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::VolumePlugin;
use crate::error::{Error, ErrorKind, ObjectKind, Result};

/// More than a file that names an address has to say.
const MAX_FILE: u64 = 64 << 10;

/// Directories in which plugins are looked for: sockets first, `NAME.sock` or `NAME/NAME.sock`, then files that name one,
/// `NAME.spec` and `NAME.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginPlaces {
    sockets: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl PluginPlaces {
    /// Docker's: `/run/docker/plugins`, `/etc/docker/plugins` and `/usr/lib/docker/plugins`.
    pub fn docker() -> Self {
        Self::default()
            .sockets("/run/docker/plugins")
            .files("/etc/docker/plugins")
            .files("/usr/lib/docker/plugins")
    }

    /// Adds a directory of sockets.
    #[must_use]
    pub fn sockets(mut self, dir: impl Into<PathBuf>) -> Self {
        self.sockets.push(dir.into());
        self
    }

    /// Adds a directory of files that name an address.
    #[must_use]
    pub fn files(mut self, dir: impl Into<PathBuf>) -> Self {
        self.files.push(dir.into());
        self
    }

    /// Looks for a plugin. Whether it runs is not looked at. Blocking, and short.
    ///
    /// # Errors
    /// `InvalidArgument` for a file that names no address, `Unsupported` for an address that is no unix socket, `Denied`, `Os`.
    pub fn find(&self, name: &str) -> Result<Option<VolumePlugin>> {
        if !is_a_name(name) {
            return Ok(None);
        }
        for dir in &self.sockets {
            let socket = format!("{name}.sock");
            for socket in [dir.join(&socket), dir.join(name).join(&socket)] {
                if is_socket(&socket) {
                    return Ok(Some(VolumePlugin::at(name, socket)));
                }
            }
        }
        for dir in &self.files {
            for (ending, address) in [("spec", plain as fn(&str) -> Option<String>), ("json", of_json)] {
                let path = dir.join(format!("{name}.{ending}"));
                if let Some(text) = read(&path)? {
                    let address = address(&text).ok_or_else(|| bad(&path))?;
                    return Ok(Some(VolumePlugin::at(name, socket_of(&path, &address)?)));
                }
            }
        }
        Ok(None)
    }
}

/// A name is a part of a path here, and comes from whoever asks for a volume.
fn is_a_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        && name.len() <= 128
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn plain(text: &str) -> Option<String> {
    let line = text.trim();
    (!line.is_empty() && !line.contains(char::is_whitespace)).then(|| line.to_owned())
}

fn of_json(text: &str) -> Option<String> {
    let value: Value = serde_json::from_slice(text.as_bytes()).ok()?;
    value["Addr"].as_str().and_then(plain)
}

fn socket_of(file: &Path, address: &str) -> Result<PathBuf> {
    let Some(path) = address.strip_prefix("unix://") else {
        let what = format!("the plugin's address {address:?} in {}", file.display());
        return Err(Error::unsupported(what, "a unix socket: unix:///run/plugin.sock"));
    };
    let path = PathBuf::from(path);
    if path.is_absolute() { Ok(path) } else { Err(bad(file)) }
}

fn bad(file: &Path) -> Error {
    let message = format!(
        "{} names no plugin: an address is needed, as unix:///run/plugin.sock",
        file.display()
    );
    Error::invalid(message).with_object(ObjectKind::Backend, file.display().to_string())
}

/// What is in a file; nothing, if there is none. Whatever is no file is not waited for.
fn read(path: &Path) -> Result<Option<String>> {
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let failed = |e| Error::os(format!("read {}", path.display()), e);
    let file = match opened {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(bad(path));
    }
    let mut text = String::new();
    let read = file.take(MAX_FILE).read_to_string(&mut text);
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(bad(path)),
        Err(error) => Err(failed(error)),
        Ok(_) => Ok(Some(text)),
    }
}

/// Nobody made known a driver of this name, and there is no plugin of it either.
pub(crate) fn finder(places: PluginPlaces) -> crate::volumes::Finder {
    std::sync::Arc::new(move |name| match places.find(name) {
        Ok(found) => Ok(found.map(|plugin| std::sync::Arc::new(plugin) as _)),
        Err(error) if error.kind() == &ErrorKind::InvalidArgument => Err(error.with_kind(ErrorKind::InvalidState)),
        Err(error) => Err(error),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn j5_plugins_are_found_where_docker_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let (sockets, files) = (dir.path().join("sockets"), dir.path().join("files"));
        for made in [&sockets, &files, &sockets.join("deep")] {
            std::fs::create_dir(made).unwrap();
        }
        let listening = ["one.sock", "deep/deep.sock"].map(|name| UnixListener::bind(sockets.join(name)).unwrap());
        std::fs::write(sockets.join("file.sock"), "").unwrap();
        std::fs::write(files.join("spec.spec"), "unix:///run/x.sock\n").unwrap();
        std::fs::write(
            files.join("json.json"),
            r#"{"Name": "json", "Addr": "unix:///run/y.sock"}"#,
        )
        .unwrap();
        let places = PluginPlaces::default().sockets(&sockets).files(&files);
        let socket = |name: &str| places.find(name).unwrap().map(|plugin| plugin.wire.socket().to_owned());
        assert_eq!(socket("one"), Some(sockets.join("one.sock")));
        assert_eq!(socket("deep"), Some(sockets.join("deep/deep.sock")));
        assert_eq!(socket("spec"), Some("/run/x.sock".into()));
        assert_eq!(socket("json"), Some("/run/y.sock".into()));
        for none in ["two", "file", "../one", "", "deep/deep", ".", "one.sock/..", "a\0b"] {
            assert_eq!(socket(none), None, "{none:?}");
        }
        drop(listening);
    }

    #[test]
    fn j5_files_that_name_no_plugin() {
        let dir = tempfile::tempdir().unwrap();
        let places = PluginPlaces::default().files(dir.path());
        let kind = |name: &str, text: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            let error = places.find(path.file_stem().unwrap().to_str().unwrap()).unwrap_err();
            error.kind().as_str()
        };
        for text in [&b""[..], b"two words", b"\xff\xfe", b"unix://relative"] {
            assert_eq!(kind("a.spec", text), "invalid_argument", "{text:?}");
        }
        assert_eq!(kind("b.spec", b"tcp://box:1"), "unsupported");
        for text in [&b"{"[..], b"{}", b"[1]", br#"{"Addr": 1}"#] {
            assert_eq!(kind("c.json", text), "invalid_argument", "{text:?}");
        }
        nix::unistd::mkfifo(&dir.path().join("d.spec"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(
            places.find("d").unwrap_err().kind().as_str(),
            "invalid_argument",
            "a FIFO is not waited for"
        );
    }
}
