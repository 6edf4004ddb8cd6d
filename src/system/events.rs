//! `events`: the ring in `run.db`, from a moment on and up to a moment.

use super::EventQuery;
use super::local::Parts;
use crate::error::Result;
use crate::events::{EventBus, EventStream};

impl Parts {
    pub(super) async fn events(&self, query: EventQuery) -> Result<EventStream> {
        let EventQuery {
            since_ns,
            until_ns,
            filter,
        } = query;
        EventBus::new(self.store.clone())
            .subscribe_until(filter, since_ns, until_ns)
            .await
    }
}
