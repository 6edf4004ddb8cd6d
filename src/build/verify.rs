//! Whether a build makes the same image in another store: the first step, and the first file of it, that differ.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};

use super::local::LocalBuilder;
use super::output::BuildResult;
use crate::error::{Error, Result};
use crate::storage::layer::decompress::Uncompressed;
use crate::sys::blocking::blocking;
use crate::types::{Digest, Hasher, LayerRef, Platform};

/// What became of two builds of the same.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The first build.
    pub result: BuildResult,
    /// The first difference; none where both made the same.
    pub difference: Option<Difference>,
}

/// Where two builds of the same differ first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The stage, by name or number; empty where no step differs, but the config.
    pub stage: String,
    /// The instruction; empty where no step differs, but the config.
    pub step: String,
    /// The first file that differs, by its path in the layer of the step.
    pub file: Option<String>,
    /// What is different.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.step.is_empty() {
            write!(f, "[{}] {}: ", self.stage, self.step)?;
        }
        if let Some(file) = &self.file {
            write!(f, "{file}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// A step as it was done, or found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TracedStep {
    pub(crate) platform: Platform,
    pub(crate) stage: String,
    pub(crate) text: String,
    /// None: it changed nothing.
    pub(crate) layer: Option<LayerRef>,
}

impl LocalBuilder {
    /// Compares what two builds of the same made, in this store and in another.
    ///
    /// # Errors
    /// Those of the stores.
    pub(crate) async fn compare(
        &self,
        one: &BuildResult,
        other: &LocalBuilder,
        two: &BuildResult,
    ) -> Result<Option<Difference>> {
        if one.images == two.images {
            return Ok(None);
        }
        let theirs = numbered(&two.trace);
        for (place, mine) in numbered_in_order(&one.trace) {
            let differs = |file: Option<String>, what: String| Difference {
                stage: mine.stage.clone(),
                step: mine.text.clone(),
                file,
                what,
            };
            let Some(their) = theirs.get(&place) else {
                return Ok(Some(differs(None, "only the first build has this step".to_owned())));
            };
            let (mine_layer, their_layer) = match (&mine.layer, &their.layer) {
                (Some(one), Some(two)) if one.diff_id == two.diff_id => continue,
                (None, None) => continue,
                (Some(one), Some(two)) => (one, two),
                (one, _) => {
                    let which = if one.is_some() { "first" } else { "second" };
                    return Ok(Some(differs(
                        None,
                        format!("it changed files in the {which} build alone"),
                    )));
                }
            };
            let (first, second) = (self.blob(mine_layer).await, other.blob(their_layer).await);
            let (Ok(first), Ok(second)) = (first, second) else {
                let what = "its layers differ, and are not kept: their files changed while they were read";
                return Ok(Some(differs(None, what.to_owned())));
            };
            let found = blocking(move || first_difference(first, second)).await?;
            let (file, what) = match found {
                Some((file, what)) => (Some(file), what),
                None => (None, "the order of its files".to_owned()),
            };
            return Ok(Some(differs(file, what)));
        }
        Ok(Some(Difference {
            stage: String::new(),
            step: String::new(),
            file: None,
            what: "the configs of the images differ, and no layer does".to_owned(),
        }))
    }

    async fn blob(&self, layer: &LayerRef) -> Result<File> {
        self.images().blob(&layer.descriptor.digest).await
    }
}

/// A step by its platform, its stage, and its number in it.
type Place<'a> = (String, &'a str, usize);

fn numbered_in_order(trace: &[TracedStep]) -> Vec<(Place<'_>, &TracedStep)> {
    let mut seen: HashMap<(String, &str), usize> = HashMap::new();
    let mut all = Vec::with_capacity(trace.len());
    for step in trace {
        let (platform, stage) = (step.platform.to_string(), step.stage.as_str());
        let number = seen.entry((platform.clone(), stage)).or_default();
        *number += 1;
        all.push(((platform, stage, *number), step));
    }
    all
}

fn numbered(trace: &[TracedStep]) -> HashMap<Place<'_>, &TracedStep> {
    numbered_in_order(trace).into_iter().collect()
}

/// What a layer says of a file.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    kind: u8,
    mode: u32,
    owner: (u64, u64),
    modified: u64,
    link: Option<Vec<u8>>,
    notes: BTreeMap<String, Vec<u8>>,
    content: Digest,
}

/// The first file that differs, and how. Blocking.
fn first_difference(one: File, two: File) -> Result<Option<(String, String)>> {
    let (mine, theirs) = (facts(one)?, facts(two)?);
    let by_path: HashMap<&[u8], &Facts> = theirs.iter().map(|(path, facts)| (&path[..], facts)).collect();
    let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    for (path, first) in &mine {
        match by_path.get(&path[..]) {
            None => return Ok(Some((shown(path), "only in the first build".to_owned()))),
            Some(second) if *second != first => return Ok(Some((shown(path), first.unlike(second)))),
            Some(_) => {}
        }
    }
    let known: HashMap<&[u8], ()> = mine.iter().map(|(path, _)| (&path[..], ())).collect();
    let new = theirs.iter().find(|(path, _)| !known.contains_key(&path[..]));
    Ok(new.map(|(path, _)| (shown(path), "only in the second build".to_owned())))
}

impl Facts {
    fn unlike(&self, other: &Self) -> String {
        let parts = [
            (self.kind != other.kind, "its type"),
            (self.content != other.content, "its content"),
            (self.link != other.link, "what it links to"),
            (self.mode != other.mode, "its permissions"),
            (self.owner != other.owner, "its owner"),
            (self.modified != other.modified, "its time"),
            (self.notes != other.notes, "its attributes"),
        ];
        let words: Vec<&str> = parts
            .iter()
            .filter(|(differs, _)| *differs)
            .map(|(_, word)| *word)
            .collect();
        format!("{} differs", words.join(", "))
    }
}

/// All files of a layer, in its order.
fn facts(layer: File) -> Result<Vec<(Vec<u8>, Facts)>> {
    let failed = |error: io::Error| Error::os("read a layer", error);
    let bytes = Uncompressed::unhashed(BufReader::with_capacity(1 << 18, layer))?;
    let mut archive = tar::Archive::new(bytes);
    let mut found = Vec::new();
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let mut hasher = Hashing::default();
        io::copy(&mut entry, &mut hasher).map_err(failed)?;
        let path = entry.path_bytes().into_owned();
        let link = entry.link_name_bytes().map(|link| link.into_owned());
        let notes = notes(&mut entry).map_err(failed)?;
        let header = entry.header();
        let facts = Facts {
            kind: header.entry_type().as_byte(),
            mode: header.mode().map_err(failed)?,
            owner: (header.uid().map_err(failed)?, header.gid().map_err(failed)?),
            modified: header.mtime().map_err(failed)?,
            link,
            notes,
            content: hasher.0.finish(),
        };
        found.push((path, facts));
    }
    Ok(found)
}

fn notes<R: io::Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut notes = BTreeMap::new();
    for note in entry.pax_extensions()?.into_iter().flatten() {
        let note = note?;
        let name = String::from_utf8_lossy(note.key_bytes()).into_owned();
        notes.insert(name, note.value_bytes().to_vec());
    }
    Ok(notes)
}

#[derive(Default)]
struct Hashing(Hasher);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    fn layer(files: &[(&str, &str, u32, u64)]) -> File {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, text, mode, modified) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(*mode);
            header.set_mtime(*modified);
            header.set_uid(0);
            header.set_gid(0);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&builder.into_inner().unwrap()).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn f19_the_first_file_that_differs_is_named() {
        let plain = [("a", "1", 0o644, 5), ("b", "2", 0o644, 5)];
        let of = |two: &[(&str, &str, u32, u64)]| first_difference(layer(&plain), layer(two)).unwrap();
        let said = |path: &str, what: &str| Some((path.to_owned(), what.to_owned()));
        assert_eq!(of(&plain), None);
        assert_eq!(of(&[plain[1], plain[0]]), None, "whatever the order");
        assert_eq!(of(&[plain[0], ("b", "3", 0o644, 5)]), said("b", "its content differs"));
        assert_eq!(
            of(&[("a", "1", 0o600, 6), plain[1]]),
            said("a", "its permissions, its time differs")
        );
        assert_eq!(of(&[plain[1]]), said("a", "only in the first build"));
        assert_eq!(
            of(&[plain[0], plain[1], ("c", "", 0, 0)]),
            said("c", "only in the second build")
        );
    }

    #[test]
    fn f19_steps_are_numbered_by_stage_and_platform() {
        let step = |stage: &str, text: &str| TracedStep {
            platform: Platform::host(),
            stage: stage.into(),
            text: text.into(),
            layer: None,
        };
        let mine = [step("a", "1"), step("b", "1"), step("a", "2")];
        let turned = [step("b", "1"), step("a", "1"), step("a", "2")];
        let found = numbered(&turned);
        for (place, step) in numbered_in_order(&mine) {
            assert_eq!(found[&place].text, step.text);
        }
    }
}
