//! Progress of a pull or push, in Docker's lines.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::jsonl::Lines;
use crate::progress::{Progress, ProgressEvent};
use crate::types::Digest;

/// At most one line of bytes per layer in this time: lines wait in memory for a slow client.
const PAUSE: Duration = Duration::from_millis(100);
/// Length of the bar that clients before 1.5 drew from our words.
const BAR: usize = 50;

/// The words of a verb.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    pub(super) bytes: &'static str,
    pub(super) done: &'static str,
    pub(super) exists: &'static str,
}

/// Docker's words for a pull.
pub(super) const PULL: Words = Words {
    bytes: "Downloading",
    done: "Download complete",
    exists: "Already exists",
};

/// Docker's words for a push.
pub(super) const PUSH: Words = Words {
    bytes: "Pushing",
    done: "Pushed",
    exists: "Layer already exists",
};

#[derive(Debug, Default)]
struct Blob {
    bytes: u64,
    shown: Option<Instant>,
}

/// Turns progress into lines. `begin` is put before the first of them.
pub(super) fn into_lines(lines: Lines, words: Words, begin: Option<Value>) -> Progress {
    let state: Mutex<(Option<Value>, HashMap<Digest, Blob>)> = Mutex::new((begin, HashMap::new()));
    Progress::new(move |event| {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (begin, blobs) = &mut *state;
        // A failure without a beginning is answered by a code.
        if matches!(event, ProgressEvent::Failed { .. }) {
            return;
        }
        if let Some(begin) = begin.take() {
            lines.put(&begin);
        }
        for line in of(event, words, blobs, Instant::now()) {
            lines.put(&line);
        }
    })
}

fn of(event: ProgressEvent, words: Words, blobs: &mut HashMap<Digest, Blob>, now: Instant) -> Vec<Value> {
    match event {
        ProgressEvent::Exists { digest, .. } => vec![plain(words.exists, &digest)],
        ProgressEvent::Unpacked { digest } => vec![plain("Pull complete", &digest)],
        ProgressEvent::Downloaded { digest, bytes, size } => {
            let blob = blobs.entry(digest).or_default();
            blob.bytes = blob.bytes.saturating_add(bytes).min(size);
            if blob.bytes == size {
                return vec![plain(words.done, &digest)];
            }
            if blob.shown.is_some_and(|shown| now.duration_since(shown) < PAUSE) {
                return Vec::new();
            }
            blob.shown = Some(now);
            vec![json!({
                "status": words.bytes,
                "progressDetail": {"current": blob.bytes, "total": size},
                "progress": bar(blob.bytes, size),
                "id": short(&digest),
            })]
        }
        _ => Vec::new(),
    }
}

fn plain(status: &str, digest: &Digest) -> Value {
    json!({"status": status, "progressDetail": {}, "id": short(digest)})
}

/// The first twelve digits.
fn short(digest: &Digest) -> String {
    let text = digest.to_string();
    let digits = text.split_once(':').map_or(text.as_str(), |(_, digits)| digits);
    digits.chars().take(12).collect()
}

/// `[=====>     ]  1.5MB/3MB`. Source: moby, `pkg/jsonmessage`.
fn bar(current: u64, total: u64) -> String {
    let percent = if total == 0 {
        0
    } else {
        u128::from(current) * 100 / u128::from(total)
    };
    let filled = usize::try_from(percent / 2).unwrap_or(BAR).min(BAR);
    let head = if filled < BAR { ">" } else { "" };
    let empty = BAR.saturating_sub(filled + head.len());
    format!(
        "[{}{head}{}] {:>8}/{}",
        "=".repeat(filled),
        " ".repeat(empty),
        human(current),
        human(total)
    )
}

/// Four digits of a decimal unit.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let text = match value {
        v if v >= 100.0 || unit == 0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    };
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b7_lines_of_a_layer() {
        let digest = Digest::of(b"x");
        let mut blobs = HashMap::new();
        let now = Instant::now();
        let mut put = |bytes, at| {
            of(
                ProgressEvent::Downloaded {
                    digest,
                    bytes,
                    size: 3_000_000,
                },
                PULL,
                &mut blobs,
                at,
            )
        };
        let first = put(1_500_000, now);
        assert_eq!(
            first[0]["progressDetail"],
            json!({"current": 1_500_000, "total": 3_000_000})
        );
        assert_eq!(
            first[0]["progress"],
            format!("[{}>{}]    1.5MB/3MB", "=".repeat(25), " ".repeat(24))
        );
        assert_eq!(put(1, now), Vec::<Value>::new(), "too soon");
        assert_eq!(put(1_499_999, now)[0]["status"], "Download complete");
    }
}
