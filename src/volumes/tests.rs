//! Our drivers, looked at by the suite that others' pass too.

use std::collections::BTreeMap;

use super::drivers::{local::LocalDriver, tmpfs::TmpfsDriver};
use crate::conformance::volumes::{FakeVolumes, volumes};

#[tokio::test]
async fn j5_our_drivers_pass_the_suite() {
    let dir = tempfile::tempdir().unwrap();
    volumes(&LocalDriver, dir.path(), &BTreeMap::new()).await;
    let size = BTreeMap::from([("size".to_owned(), "64m".to_owned())]);
    volumes(&TmpfsDriver, dir.path(), &size).await;
    let fake = FakeVolumes::new(dir.path().join("fake"));
    volumes(&fake, dir.path(), &BTreeMap::new()).await;
    assert!(fake.calls().contains(&"create keeps".to_owned()));
}
