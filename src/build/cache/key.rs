//! What a step depends on, as one digest: the same digest means the same files. Pure.

use crate::build::plan::{AddAction, CopyAction, FileContent, RunAction, Script};
use crate::types::{ChainId, Digest};

/// Changes when steps come to mean something else.
const VERSION: &str = "longshore-build-1";

/// Collects what a step depends on. Each part is written with its length, so that no two lists of parts look alike.
#[derive(Debug)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// Begins with the kind of step and the layers that it is done upon.
    pub(crate) fn new(kind: &str, below: Option<&ChainId>) -> Self {
        let mut key = Self(Vec::new());
        key.text(VERSION).text(kind);
        key.maybe(below.map(ToString::to_string).as_deref());
        key
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn maybe(&mut self, text: Option<&str>) -> &mut Self {
        self.flag(text.is_some());
        self.text(text.unwrap_or_default())
    }

    pub(crate) fn flag(&mut self, flag: bool) -> &mut Self {
        self.0.push(u8::from(flag));
        self
    }

    pub(crate) fn number(&mut self, number: i64) -> &mut Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub(crate) fn list<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) -> &mut Self {
        let texts: Vec<&str> = texts.into_iter().collect();
        self.number(i64::try_from(texts.len()).unwrap_or(i64::MAX));
        for text in texts {
            self.text(text);
        }
        self
    }

    /// What a command itself says. Where its mounts come from is added by whoever knows.
    pub(crate) fn run(&mut self, run: &RunAction) -> &mut Self {
        self.list(run.args.iter().map(String::as_str));
        let Script { path, content } = run.script.clone().unwrap_or(Script {
            path: String::new(),
            content: String::new(),
        });
        self.text(&path).text(&content);
        self.text(&format!("{:?}", run.network));
        self.text(&format!("{:?}", run.security));
        self.list(run.devices.iter().map(|device| device.name.as_str()))
    }

    /// What a copy says beside its sources, whose digest is another part.
    pub(crate) fn copy(&mut self, copy: &CopyAction) -> &mut Self {
        self.maybe(copy.owner.as_deref());
        self.maybe(copy.permissions.as_deref());
        self.flag(copy.link).flag(copy.parents);
        self.list(copy.excludes.iter().map(String::as_str));
        self.sources(&copy.sources);
        self.text(&copy.destination)
    }

    /// The same of `ADD`.
    pub(crate) fn add(&mut self, add: &AddAction) -> &mut Self {
        self.maybe(add.owner.as_deref());
        self.maybe(add.permissions.as_deref());
        self.flag(add.link);
        self.text(&format!("{:?} {:?}", add.keep_git_dir, add.unpack));
        self.maybe(add.checksum.as_deref());
        self.list(add.excludes.iter().map(String::as_str));
        self.sources(&add.sources);
        self.text(&add.destination)
    }

    fn sources(&mut self, sources: &[FileContent]) {
        self.number(i64::try_from(sources.len()).unwrap_or(i64::MAX));
        for source in sources {
            match source {
                FileContent::Path(path) => self.flag(false).text(path),
                FileContent::Inline { name, content } => self.flag(true).text(name).text(content),
            };
        }
    }

    pub(crate) fn finish(&self) -> Digest {
        Digest::of(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f10_no_two_lists_of_parts_look_alike() {
        let key = |parts: &[&[&str]]| {
            let mut key = Key::new("run", None);
            for part in parts {
                key.list(part.iter().copied());
            }
            key.finish()
        };
        let all = [
            key(&[&["a", "b"]]),
            key(&[&["ab"]]),
            key(&[&["a"], &["b"]]),
            key(&[&[], &["a", "b"]]),
            key(&[&["a", "b"], &[]]),
            key(&[&["a", "", "b"]]),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(!all[n + 1..].contains(one), "{n}");
        }
        assert_eq!(all[0], key(&[&["a", "b"]]));
    }

    #[test]
    fn f10_a_key_has_all_that_a_command_says() {
        let below = Digest::of(b"below");
        let key = |below: Option<&Digest>, run: &RunAction| Key::new("run", below).run(run).finish();
        let plain = RunAction::new(["make"]);
        let with = |change: fn(&mut RunAction)| {
            let mut run = RunAction::new(["make"]);
            change(&mut run);
            run
        };
        let others = [
            key(Some(&below), &plain),
            key(None, &RunAction::new(["make", ""])),
            key(
                None,
                &with(|run| run.network = crate::build::dockerfile::NetworkFlag::None),
            ),
            key(
                None,
                &with(|run| run.security = crate::build::dockerfile::SecurityFlag::Insecure),
            ),
            key(
                None,
                &with(|run| {
                    run.script = Some(Script {
                        path: "/dev/pipes/EOF".into(),
                        content: "#!/bin/sh".into(),
                    })
                }),
            ),
        ];
        for (n, other) in others.iter().enumerate() {
            assert_ne!(*other, key(None, &plain), "{n}");
        }
    }
}
