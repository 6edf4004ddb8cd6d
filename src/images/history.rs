//! `history`: the steps an image was made in.

use super::local::LocalImages;
use super::{HistoryEntry, HistoryLine};
use crate::error::Result;
use crate::types::ImageId;

impl LocalImages {
    pub(super) async fn history_of(&self, image: &str) -> Result<Vec<HistoryLine>> {
        let record = self.find(image).await?.record;
        let config = self.read_config(&record.config).await?;
        let id = record.id;
        let names = self.parts.store.call(move |store| store.image_names(&id)).await?;
        let mut sizes = Vec::new();
        for chain in record.chain_ids() {
            sizes.push(self.parts.snapshotter.layer_usage(&chain).await?.bytes);
        }
        let mut lines = lines(&config.history, &sizes);
        if let Some(first) = lines.first_mut() {
            first.id = Some(record.id);
            first.tags = names.into_iter().filter(|name| name.digest().is_none()).collect();
        }
        Ok(lines)
    }
}

/// Joins steps with the sizes of their layers, the newest first. Pure. A config that tells of fewer steps with a layer than
/// there are layers (it is only shown, so it may) leaves lines without words for the rest.
fn lines(history: &[HistoryEntry], sizes: &[u64]) -> Vec<HistoryLine> {
    let mut sizes = sizes.iter().copied();
    let mut lines: Vec<HistoryLine> = history
        .iter()
        .map(|step| {
            let size_bytes = if step.empty_layer { None } else { sizes.next() };
            line(step, size_bytes.unwrap_or(0))
        })
        .collect();
    lines.extend(sizes.map(|size| line(&HistoryEntry::default(), size)));
    lines.reverse();
    lines
}

fn line(step: &HistoryEntry, size_bytes: u64) -> HistoryLine {
    HistoryLine {
        id: None::<ImageId>,
        created: step.created.clone(),
        created_by: step.created_by.clone().unwrap_or_default(),
        tags: Vec::new(),
        size_bytes,
        comment: step.comment.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(by: &str, empty_layer: bool) -> HistoryEntry {
        HistoryEntry {
            created_by: Some(by.to_owned()),
            empty_layer,
            ..HistoryEntry::default()
        }
    }

    fn shown(history: &[HistoryEntry], sizes: &[u64]) -> Vec<(String, u64)> {
        let lines = lines(history, sizes).into_iter();
        lines.map(|line| (line.created_by, line.size_bytes)).collect()
    }

    #[test]
    fn steps_meet_their_layers() {
        let history = [step("ADD", false), step("ENV", true), step("RUN", false)];
        let line = |by: &str, size| (by.to_owned(), size);
        assert_eq!(
            shown(&history, &[5, 7]),
            [line("RUN", 7), line("ENV", 0), line("ADD", 5)]
        );
        assert_eq!(shown(&history, &[5]), [line("RUN", 0), line("ENV", 0), line("ADD", 5)]);
        assert_eq!(shown(&[], &[5, 7]), [line("", 7), line("", 5)]);
        assert_eq!(shown(&[], &[]), []);
    }
}
