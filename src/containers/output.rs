//! What a container writes, for its readers.

use futures_util::stream;

use super::options::SlowReader;
use super::views::BoxStream;
use crate::logs::{Tee, TeeItem, TeeReader};

/// Bytes that may wait for a reader that nobody waits for.
const SKIP_LIMIT: usize = 64 << 20;
/// Bytes that may wait for a reader before the container does. Docker's: a megabyte.
const WAIT_LIMIT: usize = 1 << 20;

/// A reader of a tee.
pub(crate) fn reader(tee: &Tee, slow: SlowReader) -> TeeReader {
    match slow {
        SlowReader::Skip => tee.subscribe(SKIP_LIMIT),
        SlowReader::Keep => tee.collect(),
        SlowReader::Wait => tee.subscribe_waiting(WAIT_LIMIT),
    }
}

/// A reader as a stream.
pub(crate) fn chunks(reader: TeeReader) -> BoxStream<TeeItem> {
    Box::pin(stream::unfold(reader, |mut reader| async move {
        let item = reader.next().await?;
        Some((item, reader))
    }))
}
