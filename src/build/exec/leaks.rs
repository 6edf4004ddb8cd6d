//! Secrets that a command itself wrote to a file: whoever builds is told that the layer has them.

use std::io::{self, Read};

use super::Work;
use crate::build::dockerfile::MountKind;
use crate::build::plan::RunAction;
use crate::error::{Error, Result};
use crate::sys::blocking::elsewhere;
use crate::types::LayerRef;

/// Shorter ones are found by chance.
const SHORTEST: usize = 8;
/// How much is looked at together.
const PIECE: usize = 1 << 20;

impl Work<'_> {
    /// Looks for the secrets of a build in the layer of a command that had one.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn look_for_secrets(&self, run: &RunAction, layer: &LayerRef, text: &str) -> Result<()> {
        let has_one = run.mounts.iter().any(|mount| mount.mount.kind == MountKind::Secret);
        let secrets = self.spec.secrets.iter();
        let secrets = secrets.map(|(id, secret)| (id.clone(), secret.0.trim_ascii_end().to_vec()));
        let long: Vec<(String, Vec<u8>)> = secrets.filter(|(_, secret)| secret.len() >= SHORTEST).collect();
        if !has_one || long.is_empty() {
            return Ok(());
        }
        let file = self.shared.parts.images.blob(&layer.descriptor.digest).await?;
        let found = elsewhere(move || {
            let failed = |error| Error::os("look for secrets in a layer", error);
            let needles: Vec<&[u8]> = long.iter().map(|(_, secret)| &secret[..]).collect();
            let found = holds(file, &needles).map_err(failed)?;
            let ids = long.iter().zip(found).filter(|(_, found)| *found);
            Ok(ids.map(|((id, _), _)| id.clone()).collect::<Vec<_>>())
        });
        for id in found.await? {
            self.note(format!(
                "the secret {id} is in the layer of {text}: the command itself wrote it to a file"
            ));
        }
        Ok(())
    }
}

/// Which of these are in what can be read. Blocking.
fn holds(mut from: impl Read, needles: &[&[u8]]) -> io::Result<Vec<bool>> {
    let longest = needles.iter().map(|needle| needle.len()).max().unwrap_or(0);
    let mut found = vec![false; needles.len()];
    let mut bytes = Vec::with_capacity(PIECE + longest);
    loop {
        let length = (&mut from).take(PIECE as u64).read_to_end(&mut bytes)?;
        for (needle, found) in needles.iter().zip(&mut found).filter(|(_, found)| !**found) {
            *found = contains(&bytes, needle);
        }
        if length == 0 || found.iter().all(|found| *found) {
            return Ok(found);
        }
        // One may begin here and end in the next piece.
        let kept = bytes.len().saturating_sub(longest.saturating_sub(1));
        bytes.drain(..kept);
    }
}

fn contains(mut bytes: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return false };
    while let Some(at) = bytes.iter().position(|byte| byte == first) {
        bytes = &bytes[at..];
        if bytes.starts_with(needle) {
            return true;
        }
        bytes = &bytes[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f12_secrets_in_a_layer_are_found_wherever_they_are() {
        let (one, other): (&[u8], &[u8]) = (b"hunter2-of-the-tide", b"another-one");
        for at in [0, 1, PIECE - 20, PIECE - 19, PIECE - 1, PIECE, PIECE + 5, 3 * PIECE] {
            let mut bytes = vec![b'h'; at];
            bytes.extend_from_slice(one);
            bytes.extend_from_slice(b"hunter2-of-the-tid another-on");
            assert_eq!(holds(&bytes[..], &[one, other]).unwrap(), [true, false], "{at}");
        }
        assert_eq!(
            holds(&b"hunter2-of-the-tid"[..], &[one, other]).unwrap(),
            [false, false]
        );
        assert_eq!(holds(&[][..], &[one]).unwrap(), [false]);
    }
}
