//! What `list` has read before: most rows say what they said the last time, and to compare one costs a tenth of reading it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::record::Record;
use crate::error::Result;
use crate::store::ContainerRow;
use crate::types::ContainerId;

/// How many are kept from one list to the next. Each is a few kilobytes.
const KEPT: usize = 1024;

/// Records with the rows that they were read from.
#[derive(Debug, Default)]
pub(super) struct Listed(Mutex<HashMap<ContainerId, Known>>);

#[derive(Debug)]
struct Known {
    row: ContainerRow,
    record: Arc<Record>,
}

impl Listed {
    /// The records of rows, in their order. What is not among them is forgotten.
    pub(super) fn read(&self, rows: Vec<ContainerRow>) -> Result<Vec<Arc<Record>>> {
        let mut before = self.replace(HashMap::new());
        let mut now = HashMap::with_capacity(rows.len().min(KEPT));
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            let known = match before.remove(&row.id) {
                Some(known) if known.row == row => known,
                _ => Known {
                    record: Arc::new(Record::from_row(row.clone())?),
                    row,
                },
            };
            records.push(Arc::clone(&known.record));
            if now.len() < KEPT {
                now.insert(known.row.id.clone(), known);
            }
        }
        self.replace(now);
        Ok(records)
    }

    /// Whoever lists meanwhile finds nothing, and reads for himself.
    fn replace(&self, new: HashMap<ContainerId, Known>) -> HashMap<ContainerId, Known> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::ContainerSpec;
    use crate::containers::plan::ImageDefaults;
    use crate::containers::record::Body;
    use crate::types::Digest;

    fn row() -> ContainerRow {
        let spec = ContainerSpec::image("busybox").command(["true"]);
        let body = Body::new(spec, Digest::of(b"image"), None, ImageDefaults::default());
        ContainerRow {
            id: ContainerId::random(),
            name: "name".parse().unwrap(),
            owner: None,
            state: "created".into(),
            created_ns: 0,
            body: body.to_json().unwrap(),
        }
    }

    #[test]
    fn g7_only_what_changed_is_read_again() {
        let listed = Listed::default();
        let rows: Vec<ContainerRow> = (0..3).map(|_| row()).collect();
        let first = listed.read(rows.clone()).unwrap();
        let mut changed = rows.clone();
        changed[1].state = "exited".into();
        changed.remove(2);
        let second = listed.read(changed.clone()).unwrap();
        assert!(Arc::ptr_eq(&first[0], &second[0]));
        assert_eq!(second[1].to_row().unwrap(), changed[1]);
        assert!(!Arc::ptr_eq(&first[1], &second[1]));
        // What was gone is read anew, and so is everything after an error.
        let third = listed.read(rows.clone()).unwrap();
        assert!(!Arc::ptr_eq(&first[2], &third[2]));
        let mut damaged = rows.clone();
        damaged[0].body = "{".into();
        assert!(listed.read(damaged).is_err());
        assert_eq!(listed.read(rows.clone()).unwrap()[0].to_row().unwrap(), rows[0]);
    }

    #[test]
    fn g7_no_more_are_kept_than_there_is_room_for() {
        let listed = Listed::default();
        let rows: Vec<ContainerRow> = (0..KEPT + 10).map(|_| row()).collect();
        for _ in 0..2 {
            assert_eq!(listed.read(rows.clone()).unwrap().len(), rows.len());
        }
        assert_eq!(listed.replace(HashMap::new()).len(), KEPT);
    }
}
