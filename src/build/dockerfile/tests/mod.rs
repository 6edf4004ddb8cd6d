//! The corpus: small Dockerfiles of every instruction, flag and oddity, and what they are parsed to.
//!
//! Each file of `tests/dockerfiles` holds cases: a line `==== NAME`, the Dockerfile, a line `----`, and what it is parsed to,
//! or the error. `\r`, `\0`, `\u{FEFF}` and a `\` before the end of a case stand for what cannot be seen in a file. With
//! `LONGSHORE_BLESS=1` the expectations are written anew, to be read before they are believed.

mod hostile;
mod show;

use std::fmt::Write;

use super::*;
use crate::error::ErrorKind;

macro_rules! corpus {
    ($file:literal) => {
        compare(
            concat!("tests/dockerfiles/", $file),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dockerfiles/", $file)),
        )
    };
}

#[test]
fn f1_from() {
    corpus!("from.txt");
}

#[test]
fn f2_f14_commands() {
    corpus!("commands.txt");
}

#[test]
fn f3_f4_files() {
    corpus!("files.txt");
}

#[test]
fn f5_variables() {
    corpus!("variables.txt");
}

#[test]
fn f6_config() {
    corpus!("config.txt");
}

#[test]
fn f7_layout() {
    corpus!("layout.txt");
}

#[test]
fn f7_heredocs() {
    corpus!("heredocs.txt");
}

#[test]
fn f11_f12_f13_mounts() {
    corpus!("mounts.txt");
}

#[test]
fn f8_whole_files() {
    corpus!("whole.txt");
}

fn compare(name: &str, text: &str) {
    let mut told = String::new();
    for case in text.split("==== ").skip(1) {
        let (title, rest) = case.split_once('\n').expect("a title");
        let (dockerfile, _) = rest.split_once("\n----\n").unwrap_or((rest.trim_end_matches('\n'), ""));
        writeln!(
            told,
            "==== {title}\n{dockerfile}\n----\n{}",
            shown(&unescaped(dockerfile))
        )
        .expect("a string");
    }
    if std::env::var_os("LONGSHORE_BLESS").is_some() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        std::fs::write(path, told).expect("the corpus is written");
        return;
    }
    for (told, expected) in told.split("==== ").zip(text.split("==== ")) {
        assert_eq!(told, expected, "{name}");
    }
    assert_eq!(told.len(), text.len(), "{name}");
}

fn unescaped(text: &str) -> String {
    let text = text
        .replace("\\r", "\r")
        .replace("\\0", "\0")
        .replace("\\u{FEFF}", "\u{FEFF}");
    text.replace("\\$END", "")
}

fn shown(text: &str) -> String {
    match Dockerfile::parse(text) {
        Ok(file) => show::file(&file),
        Err(error) => {
            assert_eq!(error.kind(), &ErrorKind::InvalidArgument);
            let expected = SyntaxError::of(&error).expect("a syntax error").expected.clone();
            format!("error {error}; expected {expected}\n")
        }
    }
}
