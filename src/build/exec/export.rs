//! Outputs that are files: the tree of the last stage, in a directory or in a tar.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};

use super::Work;
use super::stage::Stage;
use crate::build::context::Tree;
use crate::build::output::BuildOutput;
use crate::error::{Error, Result};
use crate::storage::files::random_name;
use crate::storage::layer::{LayerReader, Limits, Plain, apply_plain};
use crate::storage::ownership::Ownership;
use crate::sys::blocking::elsewhere;

impl Work<'_> {
    /// Writes the files of a stage to where they were asked for.
    pub(super) async fn export(&self, stage: &Stage, output: &BuildOutput) -> Result<()> {
        let tree = self.tree(stage.chain().as_ref()).await?;
        let output = match (output, self.among) {
            (BuildOutput::Directory(dir), Some(platform)) => {
                BuildOutput::Directory(dir.join(platform.to_string().replace('/', "_")))
            }
            (output, _) => output.clone(),
        };
        elsewhere(move || match &output {
            BuildOutput::Directory(dir) => into_directory(tree.as_ref(), dir),
            BuildOutput::Tar(file) => into_tar(tree.as_ref(), file),
            _ => Ok(()),
        })
        .await
    }
}

fn reader(tree: &Tree) -> Result<LayerReader> {
    let root = tree
        .root
        .try_clone()
        .map_err(|e| Error::os("duplicate a descriptor", e))?;
    Ok(LayerReader::of_tree(root, &tree.ownership, tree.sight.clone()))
}

/// All files are the caller's own, whoever they belong to in the stage.
fn into_directory(tree: Option<&Tree>, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::os(format!("make {}", dir.display()), e))?;
    let Some(tree) = tree else { return Ok(()) };
    let reader = reader(tree)?;
    let plain = Plain {
        owner: Some((geteuid().as_raw(), getegid().as_raw())),
        ..Plain::default()
    };
    let (read, write) = io::pipe().map_err(|e| Error::os("make a pipe", e))?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || reader.write_tree(BufWriter::with_capacity(1 << 18, write)));
        let read = BufReader::with_capacity(1 << 18, read);
        let applied = apply_plain(read, dir, plain, &Ownership::Direct, &Limits::default());
        let written = writing
            .join()
            .unwrap_or_else(|_| Err(Error::internal("reading files panicked")));
        // A reader that gives up makes the writer fail: its own reason counts.
        applied?;
        written
    })
}

/// The file is there when it is whole.
fn into_tar(tree: Option<&Tree>, file: &Path) -> Result<()> {
    let fresh = beside(file)?;
    let failed = |e: io::Error| Error::os(format!("write {}", file.display()), e);
    let written = File::create_new(&fresh).map_err(failed).and_then(|out| {
        match tree {
            Some(tree) => reader(tree)?.write_tree(BufWriter::with_capacity(1 << 18, &out))?,
            None => io::Write::write_all(&mut &out, &[0; 1024]).map_err(failed)?,
        }
        fs::rename(&fresh, file).map_err(failed)
    });
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

fn beside(file: &Path) -> Result<PathBuf> {
    let name = file
        .file_name()
        .ok_or_else(|| Error::invalid(format!("{} is no name for a file", file.display())))?;
    let mut fresh = name.to_owned();
    fresh.push(format!(".{}", random_name(8)?));
    Ok(file.with_file_name(fresh))
}
