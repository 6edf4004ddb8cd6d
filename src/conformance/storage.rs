//! Suites for [`ContentStore`] and [`Snapshotter`](crate::storage::snapshot::Snapshotter). They panic with what is wrong.

use std::io::Read;

use crate::error::ErrorKind;
use crate::storage::content::ContentStore;
use crate::types::{Digest, Outcome};

/// What every content store does. The store is empty before and after.
///
/// # Panics
/// Where the store does not behave.
#[allow(clippy::missing_panics_doc)]
pub async fn content(store: &dyn ContentStore) {
    let bytes = b"a blob".repeat(1000);
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    assert_eq!(
        store.info(&digest).await.expect("info"),
        None,
        "an empty store has no blob"
    );
    assert!(
        store
            .open(&digest)
            .await
            .expect_err("open an absent blob")
            .is_not_found()
    );

    let mut ingest = store.ingest(Some(&digest), Some(size)).await.expect("ingest");
    for piece in bytes.chunks(999) {
        ingest.write(piece).expect("write");
    }
    assert_eq!(
        store.info(&digest).await.expect("info"),
        None,
        "a blob is invisible before its commit"
    );
    let info = ingest.commit().expect("commit");
    assert_eq!((info.digest, info.size), (digest, size));
    assert_eq!(store.info(&digest).await.expect("info"), Some(info));
    assert_eq!(store.list().await.expect("list"), [info]);
    let mut read = Vec::new();
    store
        .open(&digest)
        .await
        .expect("open")
        .read_to_end(&mut read)
        .expect("read");
    assert!(read == bytes, "a blob comes back as it was written");

    let mut again = store.ingest(None, None).await.expect("ingest");
    again.write(&bytes).expect("write");
    assert_eq!(again.commit().expect("commit of what is there"), info);

    refuses_wrong_bytes(store, &digest).await;
    store.sync(&[digest, Digest::of(b"not here")]).await.expect("sync");
    assert_eq!(store.remove(&digest).await.expect("remove"), Outcome::Done);
    assert_eq!(store.remove(&digest).await.expect("remove"), Outcome::Already);
    assert_eq!(store.list().await.expect("list"), []);
}

async fn refuses_wrong_bytes(store: &dyn ContentStore, other: &Digest) {
    let mut long = store.ingest(None, Some(3)).await.expect("ingest");
    let error = long
        .write(b"four")
        .expect_err("more bytes than announced are refused at once");
    assert_eq!(error.kind(), &ErrorKind::DigestMismatch);
    drop(long);
    let mut short = store.ingest(None, Some(3)).await.expect("ingest");
    short.write(b"12").expect("write");
    assert_eq!(
        short.commit().expect_err("too short").kind(),
        &ErrorKind::DigestMismatch
    );
    let mut wrong = store.ingest(Some(other), None).await.expect("ingest");
    wrong.write(b"wrong").expect("write");
    assert_eq!(
        wrong.commit().expect_err("wrong digest").kind(),
        &ErrorKind::DigestMismatch
    );
    assert_eq!(
        store.list().await.expect("list").len(),
        1,
        "nothing of the refused blobs is there"
    );
}
