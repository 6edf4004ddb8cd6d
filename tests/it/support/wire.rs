//! HTTP/1.1 spoken by hand over any stream: bytes as clients send them, and no client library whose mistakes could hide ours.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::frame::{Stop, fail};

/// Nothing here takes so long; who waits longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub code: u16,
    /// The head in lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Reads a whole answer of a connection that was to be closed.
    pub fn parse(bytes: &[u8]) -> Result<Self, Stop> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return fail(format!("no answer: {:?}", String::from_utf8_lossy(bytes)));
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let Some(code) = code else { return fail(head) };
        let body = &bytes[end + 4..];
        let body = if head.contains("transfer-encoding: chunked") {
            unchunk(body)
        } else {
            body.to_vec()
        };
        Ok(Self {
            code,
            head,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// The body in JSON.
    pub fn json(&self) -> Result<Value, Stop> {
        match serde_json::from_str(&self.body) {
            Ok(value) => Ok(value),
            Err(error) => fail(format!("{error} in {self:?}")),
        }
    }

    /// The `message` of an error.
    pub fn message(&self) -> Result<String, Stop> {
        match self.json()?["message"].as_str() {
            Some(message) if !message.is_empty() => Ok(message.to_owned()),
            _ => fail(format!("no message in {self:?}")),
        }
    }

    /// It has this code.
    pub fn expect(self, code: u16) -> Result<Self, Stop> {
        if self.code == code {
            return Ok(self);
        }
        fail(format!("{code} was expected: {self:?}"))
    }
}

/// What was sent in chunks, as far as it came.
fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(line) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..line])
            .ok()
            .and_then(|text| usize::from_str_radix(text, 16).ok());
        let Some(size @ 1..) = size else { break };
        let rest = &bytes[line + 2..];
        out.extend_from_slice(&rest[..size.min(rest.len())]);
        bytes = rest.get(size + 2..).unwrap_or_default();
    }
    out
}

/// A request with a body in JSON, on a connection that is then closed.
pub fn request(method: &str, target: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: \
         {length}\r\n\r\n{body}"
    )
}

/// A connection to a unix socket that does not wait forever.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends bytes and reads until the end. A server that closes while we still send has said what it had to say.
pub fn exchange(mut stream: impl Read + Write, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let sent = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => return Err(error),
        _ => {}
    }
    if answer.is_empty() {
        sent?;
    }
    Ok(answer)
}

/// The whole answer to a request over a unix socket.
pub fn ask(path: &Path, method: &str, target: &str, body: &str) -> Result<Answer, Stop> {
    Answer::parse(&exchange(connect(path)?, request(method, target, body).as_bytes())?)
}

/// The same over TCP.
pub fn ask_tcp(to: std::net::SocketAddr, target: &str) -> Result<Answer, Stop> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Answer::parse(&exchange(stream, request("GET", target, "").as_bytes())?)
}
