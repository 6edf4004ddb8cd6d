//! `COPY` and `ADD`.

use super::{Parsed, Resolver};
use crate::build::dockerfile::{Add, Copy, FileSource, Word};
use crate::build::plan::{Action, AddAction, CopyAction, FileContent, paths};

impl Resolver<'_> {
    pub(super) fn copy(&mut self, copy: &Copy) -> Parsed<Action> {
        let from = copy.from.as_ref();
        Ok(Action::Copy(CopyAction {
            from: from
                .map(|word| self.names.origin(&word.text, word.span, true))
                .transpose()?,
            owner: self.given(copy.chown.as_ref())?,
            permissions: self.given(copy.chmod.as_ref())?,
            link: copy.link,
            parents: copy.parents,
            excludes: texts(&copy.excludes),
            sources: self.sources(&copy.sources)?,
            destination: self.destination(&copy.destination)?,
        }))
    }

    pub(super) fn add(&mut self, add: &Add) -> Parsed<Action> {
        Ok(Action::Add(AddAction {
            owner: self.given(add.chown.as_ref())?,
            permissions: self.given(add.chmod.as_ref())?,
            link: add.link,
            keep_git_dir: add.keep_git_dir,
            checksum: self.given(add.checksum.as_ref())?,
            unpack: add.unpack,
            excludes: texts(&add.excludes),
            sources: self.sources(&add.sources)?,
            destination: self.destination(&add.destination)?,
        }))
    }

    fn sources(&mut self, sources: &[FileSource]) -> Parsed<Vec<FileContent>> {
        sources.iter().map(|source| self.source(source)).collect()
    }

    fn source(&mut self, source: &FileSource) -> Parsed<FileContent> {
        let heredoc = match source {
            FileSource::Path(word) => return Ok(FileContent::Path(self.word(word)?)),
            FileSource::Inline(heredoc) => heredoc,
        };
        let content = heredoc.content();
        Ok(FileContent::Inline {
            name: heredoc.name.clone(),
            content: if heredoc.expand {
                self.heredoc(&content, heredoc.span)?
            } else {
                content
            },
        })
    }

    fn destination(&mut self, word: &Word) -> Parsed<String> {
        let path = self.word(word)?;
        Ok(paths::destination(&self.state.working_dir, &path))
    }
}

fn texts(words: &[Word]) -> Vec<String> {
    words.iter().map(|word| word.text.clone()).collect()
}
