//! A registry that says what a test tells it to: a bearer flow, damaged answers, other media types.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;

use super::http::read_headers;
use super::image::{Layout, MANIFEST};

/// What was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub query: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// How much of the body is sent; then nothing more comes, until the client goes away.
    pub stalls_after: Option<usize>,
    /// How much of the answer is sent, its head counted; then the connection is reset.
    pub resets_after: Option<usize>,
}

impl Reply {
    pub fn new(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".into(), kind.into())],
            body: body.into(),
            stalls_after: None,
            resets_after: None,
        }
    }

    pub fn resets_after(mut self, bytes: usize) -> Self {
        self.resets_after = Some(bytes);
        self
    }

    /// What comes before the body.
    pub fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Said\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        head
    }

    pub fn stalls_after(mut self, bytes: usize) -> Self {
        self.stalls_after = Some(bytes);
        self
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

type Answer = dyn Fn(&Asked) -> Reply + Send + Sync;

/// A server on loopback, one connection for each request. It ends when it is dropped.
pub struct Mock {
    pub addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Mock {
    pub fn serve(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let (asked, over) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicBool>::default());
        let (seen, end, answer): (_, _, Arc<Answer>) = (asked.clone(), over.clone(), Arc::new(answer));
        let server = std::thread::spawn(move || {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if end.load(Ordering::SeqCst) {
                    break;
                }
                let (seen, answer) = (seen.clone(), answer.clone());
                // A client that goes away is no concern of ours.
                connections.push(std::thread::spawn(move || drop(talk(stream, &seen, &*answer))));
            }
            for connection in connections {
                let _ = connection.join();
            }
        });
        Ok(Self {
            addr,
            asked,
            over,
            server: Some(server),
        })
    }

    /// Everything that was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("not poisoned").clone()
    }

    /// `127.0.0.1:PORT/repository:tag`.
    pub fn reference(&self, rest: &str) -> String {
        format!("{}/{rest}", self.addr)
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn talk(stream: TcpStream, seen: &Mutex<Vec<Asked>>, answer: &Answer) -> io::Result<()> {
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (verb, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers = read_headers(&mut reader)?;
    let header = |name: &str| {
        let found = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone())
    };
    let length = header("content-length").and_then(|length| length.parse().ok());
    reader.take(length.unwrap_or(0)).read_to_end(&mut Vec::new())?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let asked = Asked {
        path: path.to_owned(),
        query: query.to_owned(),
        authorization: header("authorization"),
        range: header("range"),
    };
    let reply = answer(&asked);
    seen.lock().expect("not poisoned").push(asked);
    send(stream, verb, &reply)
}

fn send(mut stream: TcpStream, verb: &str, reply: &Reply) -> io::Result<()> {
    let head = reply.head();
    if let Some(count) = reply.resets_after {
        return reset_after(&stream, head.as_bytes(), &reply.body, count);
    }
    stream.write_all(head.as_bytes())?;
    if verb == "HEAD" {
        return Ok(());
    }
    let Some(stop) = reply.stalls_after else {
        return stream.write_all(&reply.body);
    };
    stream.write_all(&reply.body[..stop])?;
    // Ends with the client, or with its patience.
    let _ = stream.read(&mut [0]);
    Ok(())
}

/// Sends so much, lets it arrive, and resets the connection: what the client has not read by then is lost with it.
fn reset_after(mut stream: &TcpStream, head: &[u8], body: &[u8], count: usize) -> io::Result<()> {
    let all = [head, body].concat();
    stream.write_all(&all[..count.min(all.len())])?;
    std::thread::sleep(std::time::Duration::from_millis(5));
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    Ok(setsockopt(stream, Linger, &at_once)?)
}

/// What a plain registry with one image answers, whatever the repository and the tag.
pub fn image_reply(layout: &Layout, asked: &Asked) -> Reply {
    let last = asked.path.rsplit('/').next().unwrap_or_default();
    let blob = |digest: &str| layout.blob(digest).unwrap_or_default();
    if asked.path == "/v2/" {
        return Reply::new(200, "application/json", "{}");
    }
    if asked.path.contains("/manifests/") {
        return Reply::new(200, MANIFEST, blob(&layout.manifest));
    }
    if asked.path.contains("/blobs/") && layout.blob(last).is_ok() {
        return Reply::new(200, "application/octet-stream", blob(last));
    }
    Reply::new(
        404,
        "application/json",
        r#"{"errors":[{"code":"NOT_FOUND","message":"no"}]}"#,
    )
}
