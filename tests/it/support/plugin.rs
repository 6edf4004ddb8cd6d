//! A volume plugin of Docker's, in this process: it keeps directories, and misbehaves as it is told. HTTP by hand, so that
//! anything can be answered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::http::read_headers;
use super::scratch;

/// How a call is answered, but well.
#[derive(Debug, Clone)]
pub enum Mischief {
    /// Nothing comes, until the caller goes away. What was asked for is done nevertheless.
    Hangs,
    /// The connection is closed at once.
    Dies,
    /// It says no.
    Refuses(&'static str),
    /// These bytes, and then the end.
    Says(Vec<u8>),
    /// A body in JSON, with what HTTP asks for.
    Body(Value),
    /// More than anybody can want, until the caller goes away.
    Floods,
}

/// Calls that were made, volumes, and who mounted them.
#[derive(Debug, Default)]
struct State {
    calls: Vec<String>,
    volumes: BTreeMap<String, Value>,
    mounts: BTreeSet<(String, String)>,
    mischief: BTreeMap<String, Mischief>,
}

/// The plugin. It ends when it is dropped.
pub struct Plugin {
    pub socket: PathBuf,
    state: Arc<Mutex<State>>,
    over: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
    dir: tempfile::TempDir,
}

impl Plugin {
    /// One that keeps volumes.
    pub fn serve() -> io::Result<Self> {
        let dir = scratch::fresh("plugin");
        fs::create_dir(dir.path().join("data"))?;
        let socket = dir.path().join("keeper.sock");
        let listener = UnixListener::bind(&socket)?;
        let (state, over) = (Arc::<Mutex<State>>::default(), Arc::<AtomicBool>::default());
        let (shared, end, data) = (state.clone(), over.clone(), dir.path().join("data"));
        let server = std::thread::spawn(move || {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if end.load(Ordering::SeqCst) {
                    break;
                }
                let (shared, data) = (shared.clone(), data.clone());
                connections.push(std::thread::spawn(move || drop(talk(stream, &shared, &data))));
            }
            for connection in connections {
                let _ = connection.join();
            }
        });
        Ok(Self {
            socket,
            state,
            over,
            server: Some(server),
            dir,
        })
    }

    /// The directory that the socket is in, as `keeper.sock`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Misbehaves from now on, when it is asked for this.
    pub fn misbehave(&self, method: &str, mischief: Mischief) {
        self.state().mischief.insert(method.to_owned(), mischief);
    }

    /// Behaves again.
    pub fn behave(&self) {
        self.state().mischief.clear();
    }

    /// What was called since the last time, without ids.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }

    /// Names of volumes that it has.
    pub fn volumes(&self) -> Vec<String> {
        self.state().volumes.keys().cloned().collect()
    }

    /// What a volume was made with.
    pub fn options(&self, name: &str) -> Value {
        self.state().volumes.get(name).cloned().unwrap_or_default()
    }

    /// How many mounts it has that nobody took back.
    pub fn mounts(&self) -> usize {
        self.state().mounts.len()
    }

    /// Where a volume's files are.
    pub fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    /// Has a volume that nobody asked this process for.
    pub fn plant(&self, name: &str) -> io::Result<()> {
        self.state().volumes.insert(name.to_owned(), json!({}));
        fs::create_dir(self.place(name))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.socket);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn talk(stream: UnixStream, state: &Mutex<State>, data: &Path) -> io::Result<()> {
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let method = line
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .trim_start_matches('/')
        .to_owned();
    let headers = read_headers(&mut reader)?;
    let length = headers
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    reader.by_ref().take(length).read_to_end(&mut body)?;
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let name = asked["Name"].as_str().unwrap_or_default();
    let mischief = {
        let mut state = state.lock().expect("not poisoned");
        state.calls.push(format!("{method} {name}").trim_end().to_owned());
        state.mischief.get(&method).cloned()
    };
    match mischief {
        None => respond(&stream, &do_well(&method, &asked, state, data)?),
        Some(Mischief::Dies) => Ok(()),
        Some(Mischief::Refuses(words)) => respond(&stream, &json!({"Err": words})),
        Some(Mischief::Body(body)) => respond(&stream, &body),
        Some(Mischief::Says(bytes)) => (&stream).write_all(&bytes),
        Some(Mischief::Hangs) => {
            do_well(&method, &asked, state, data)?;
            // The end of what comes is that the caller went away.
            reader.read_to_end(&mut Vec::new()).map(drop)
        }
        Some(Mischief::Floods) => {
            (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"Err\": \"")?;
            loop {
                (&stream).write_all(&[b'x'; 65536])?;
            }
        }
    }
}

fn respond(mut stream: &UnixStream, body: &Value) -> io::Result<()> {
    let refused = body["Err"].as_str().is_some_and(|words| !words.is_empty());
    let (code, body) = (if refused { 500 } else { 200 }, body.to_string());
    let head = format!(
        "HTTP/1.1 {code} Said\r\nContent-Type: application/vnd.docker.plugins.v1.2+json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

fn do_well(method: &str, asked: &Value, state: &Mutex<State>, data: &Path) -> io::Result<Value> {
    let mut state = state.lock().expect("not poisoned");
    let name = asked["Name"].as_str().unwrap_or_default().to_owned();
    let id = asked["ID"].as_str().unwrap_or_default().to_owned();
    let place = data.join(&name);
    let known = state.volumes.contains_key(&name);
    Ok(match method {
        "Plugin.Activate" => json!({"Implements": ["VolumeDriver"]}),
        "VolumeDriver.Capabilities" => json!({"Capabilities": {"Scope": "global"}}),
        "VolumeDriver.List" => {
            let all: Vec<Value> = state.volumes.keys().map(|name| json!({"Name": name})).collect();
            json!({"Volumes": all, "Err": ""})
        }
        "VolumeDriver.Create" => {
            fs::create_dir_all(&place)?;
            state.volumes.insert(name, asked["Opts"].clone());
            json!({"Err": ""})
        }
        _ if !known => json!({"Err": format!("no volume {name}")}),
        "VolumeDriver.Get" => json!({"Volume": {"Name": name, "Mountpoint": place}, "Err": ""}),
        "VolumeDriver.Path" => json!({"Mountpoint": place, "Err": ""}),
        "VolumeDriver.Mount" => {
            if !state.mounts.insert((name, id)) {
                return Ok(json!({"Err": "mounted by this id already"}));
            }
            json!({"Mountpoint": place, "Err": ""})
        }
        "VolumeDriver.Unmount" => match state.mounts.remove(&(name, id)) {
            true => json!({"Err": ""}),
            false => json!({"Err": "not mounted by this id"}),
        },
        "VolumeDriver.Remove" if state.mounts.iter().any(|(mounted, _)| *mounted == name) => {
            json!({"Err": "it is mounted"})
        }
        "VolumeDriver.Remove" => {
            fs::remove_dir_all(&place)?;
            state.volumes.remove(&name);
            json!({"Err": ""})
        }
        _ => json!({"Err": "no such call"}),
    })
}
