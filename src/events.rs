//! Events: what happened to which object, live and replayed, without a gap and without a duplicate.
//!
//! The ring of the last [`RING`] events in `run.db` is the one source: an event is written in the same commit as what it
//! tells of, and every subscriber, in whichever process, follows the ring with a cursor of its own. A write in this process
//! wakes subscribers at once; those of other processes are seen within [`POLL`]. A subscriber that falls behind the ring is
//! told how many events it missed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::{Error, ObjectKind, Result};
use crate::types::Filter;

/// How many events are kept.
pub const RING: usize = 1024;

/// How often a subscriber looks for events of other processes.
pub const POLL: Duration = Duration::from_millis(100);

/// Events fetched at once.
const BATCH: usize = 128;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EventKind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// A build.
    Builder,
    /// The engine itself.
    Engine,
}

impl EventKind {
    /// The word in filters and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Builder => "builder",
            Self::Engine => "engine",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        let all = [
            Self::Container,
            Self::Image,
            Self::Network,
            Self::Volume,
            Self::Builder,
            Self::Engine,
        ];
        all.into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| Error::invalid(format!("unknown event type {word:?}")))
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in nanoseconds since the epoch.
    pub time_ns: i64,
    /// To what sort of object.
    pub kind: EventKind,
    /// What: Docker's words (`create`, `start`, `die`, `destroy`, …).
    pub action: String,
    /// The object's id or name.
    pub id: String,
    /// More about it: `name`, `image`, `exitCode`, labels.
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// An event of this moment.
    pub fn now(kind: EventKind, action: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            time_ns: now_ns(),
            kind,
            action: action.into(),
            id: id.into(),
            attributes: BTreeMap::new(),
        }
    }

    /// The same event, at another time: whoever tells it saw it later.
    #[must_use]
    pub fn at(mut self, time_ns: i64) -> Self {
        self.time_ns = time_ns;
        self
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(key.into(), value.into());
        self
    }

    /// Whether Docker's event filters let it pass: `type`, `event`, `label`, and `container`, `image`, `network`, `volume`
    /// by id (or the first digits of it) or name. Unknown keys match nothing.
    pub fn matches(&self, filter: &Filter) -> bool {
        filter
            .keys()
            .all(|key| filter.values(key).iter().any(|value| self.matches_term(key, value)))
    }

    fn matches_term(&self, key: &str, value: &str) -> bool {
        match key {
            "type" => self.kind.as_str() == value,
            // `health_status: healthy` matches `health_status` too.
            "event" => self.action == value || self.action.split_once(':').is_some_and(|(verb, _)| verb == value),
            "label" => match value.split_once('=') {
                Some((name, value)) => self.attributes.get(name).is_some_and(|found| found == value),
                None => self.attributes.contains_key(value),
            },
            "image" if self.kind == EventKind::Container => {
                self.attributes.get("image").is_some_and(|image| image == value)
            }
            _ => self.kind.as_str() == key && self.is_about(value),
        }
    }

    fn is_about(&self, value: &str) -> bool {
        let id = self.id.strip_prefix("sha256:").unwrap_or(&self.id);
        self.id == value
            || (value.len() >= 4 && id.starts_with(value))
            || self.attributes.get("name").is_some_and(|name| name == value)
    }
}

/// Now, in nanoseconds since the epoch.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventItem {
    /// An event.
    Event(Event),
    /// The subscriber was slower than the ring is long: so many events, of which some might have passed its filter, are
    /// gone.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// Events as they come. Ends with the first error, or when the moment has come that was asked for.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<EventItem>> + Send + 'static>>;

/// Where events are kept, numbered from 1 without gaps.
pub trait History: fmt::Debug + Send + Sync + 'static {
    /// Number of the newest event, 0 without any. Blocking.
    ///
    /// # Errors
    /// Those of the records.
    fn newest(&self) -> Result<u64>;

    /// Events with greater numbers, in order. Blocking.
    ///
    /// # Errors
    /// Those of the records.
    fn after(&self, seq: u64, limit: usize) -> Result<Vec<(u64, Event)>>;

    /// Changes when this process wrote an event.
    fn wakes(&self) -> watch::Receiver<u64>;
}

/// Hands out events. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventBus {
    history: Arc<dyn History>,
}

impl EventBus {
    /// A bus over the events of a store.
    pub fn new(history: impl History) -> Self {
        Self {
            history: Arc::new(history),
        }
    }

    /// Subscribes. Everything that is committed after this call returned is seen; with `since` (nanoseconds since the
    /// epoch), so is what the ring still holds from then on.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter, or those of the records.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn subscribe(&self, filter: Filter, since_ns: Option<i64>) -> Result<EventStream> {
        self.subscribe_until(filter, since_ns, None).await
    }

    /// As [`EventBus::subscribe`]; the stream ends once `until_ns` (nanoseconds since the epoch) has come, after the last
    /// event of before.
    ///
    /// # Errors
    /// As [`EventBus::subscribe`].
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn subscribe_until(
        &self,
        filter: Filter,
        since_ns: Option<i64>,
        until_ns: Option<i64>,
    ) -> Result<EventStream> {
        check_filter(&filter)?;
        let wakes = self.history.wakes();
        let start = match since_ns {
            Some(_) => None,
            None => Some(blocking(&self.history, |history| history.newest()).await?),
        };
        let follower = Follower {
            history: self.history.clone(),
            wakes,
            filter,
            since_ns: since_ns.unwrap_or(i64::MIN),
            until_ns: until_ns.unwrap_or(i64::MAX),
            cursor: start,
            ready: VecDeque::new(),
        };
        Ok(Box::pin(stream::try_unfold(follower, |mut follower| async move {
            let item = follower.next().await?;
            Ok(item.map(|item| (item, follower)))
        })))
    }
}

fn check_filter(filter: &Filter) -> Result<()> {
    const KEYS: [&str; 9] = [
        "type",
        "event",
        "label",
        "container",
        "image",
        "network",
        "volume",
        "builder",
        "engine",
    ];
    match filter.keys().find(|key| !KEYS.contains(key)) {
        None => Ok(()),
        Some(key) => Err(Error::invalid(format!("invalid event filter {key:?}")).with_object(ObjectKind::Option, key)),
    }
}

async fn blocking<T: Send + 'static>(
    history: &Arc<dyn History>,
    work: impl FnOnce(&dyn History) -> Result<T> + Send + 'static,
) -> Result<T> {
    let history = history.clone();
    crate::sys::blocking::blocking(move || work(&*history)).await
}

struct Follower {
    history: Arc<dyn History>,
    wakes: watch::Receiver<u64>,
    filter: Filter,
    since_ns: i64,
    until_ns: i64,
    /// Number of the last event seen. `None`: the replay has not begun, and whatever the ring lost before is no lag.
    cursor: Option<u64>,
    ready: VecDeque<EventItem>,
}

impl Follower {
    /// `None`: the end has come.
    async fn next(&mut self) -> Result<Option<EventItem>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            // Told before the look: what is written later bears a later time.
            let over = now_ns() > self.until_ns;
            // Marked before the look, so that what is written during the look wakes us again.
            self.wakes.mark_unchanged();
            let after = self.cursor.unwrap_or(0);
            let batch = blocking(&self.history, move |history| history.after(after, BATCH)).await?;
            if batch.is_empty() && over {
                return Ok(None);
            }
            if batch.is_empty() {
                self.cursor.get_or_insert(0);
                self.rest().await;
                continue;
            }
            self.take(batch);
        }
    }

    /// Until this process wrote an event, or it is time to look for others', or the end has come.
    async fn rest(&mut self) {
        let left = u64::try_from(self.until_ns.saturating_sub(now_ns())).unwrap_or(0);
        let pause = POLL.min(Duration::from_nanos(left.saturating_add(1)));
        let woken = tokio::time::timeout(pause, self.wakes.changed()).await;
        if matches!(woken, Ok(Err(_))) {
            // The writer's side is gone; other processes may still write.
            tokio::time::sleep(pause).await;
        }
    }

    fn take(&mut self, batch: Vec<(u64, Event)>) {
        for (seq, event) in batch {
            let missed = self.cursor.map_or(0, |cursor| seq.saturating_sub(cursor + 1));
            self.cursor = Some(seq);
            if missed > 0 {
                self.ready.push_back(EventItem::Lagged { missed });
            }
            let asked_for = (self.since_ns..=self.until_ns).contains(&event.time_ns);
            if asked_for && event.matches(&self.filter) {
                self.ready.push_back(EventItem::Event(event));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;
    use crate::store::{Root, Store};

    fn bus() -> (tempfile::TempDir, Store, EventBus) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&Root::open(&dir.path().join("root")).unwrap()).unwrap();
        (dir, store.clone(), EventBus::new(store))
    }

    fn write(store: &Store, from: usize, to: usize) {
        for n in from..to {
            store
                .record_event(&Event::now(EventKind::Container, "start", format!("c{n}")).with("name", "web"))
                .unwrap();
        }
    }

    async fn ids(stream: &mut EventStream, count: usize) -> Vec<String> {
        let items: Vec<_> = stream.take(count).collect().await;
        items
            .into_iter()
            .map(|item| match item.unwrap() {
                EventItem::Event(event) => event.id,
                EventItem::Lagged { missed } => format!("lagged {missed}"),
            })
            .collect()
    }

    #[tokio::test]
    async fn replay_then_live_without_gap_or_duplicate() {
        let (_dir, store, bus) = bus();
        write(&store, 0, 300);
        let mut all = bus.subscribe(Filter::new(), Some(0)).await.unwrap();
        let mut live = bus.subscribe(Filter::new(), None).await.unwrap();
        let writer = std::thread::spawn(move || write(&store, 300, 600));
        let expected: Vec<String> = (0..600).map(|n| format!("c{n}")).collect();
        assert_eq!(ids(&mut all, 600).await, expected);
        assert_eq!(ids(&mut live, 300).await, expected[300..]);
        writer.join().unwrap();
        assert!(live.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn other_handles_of_the_root_are_heard_and_a_slow_reader_is_told() {
        let (dir, _store, bus) = bus();
        let mut slow = bus.subscribe(Filter::new(), None).await.unwrap();
        let other = Store::open(&Root::open(&dir.path().join("root")).unwrap()).unwrap();
        write(&other, 0, RING + 76);
        assert_eq!(ids(&mut slow, 2).await, ["lagged 76", "c76"]);
        assert_eq!(other.after(0, 10_000).unwrap().len(), RING);
    }

    #[tokio::test]
    async fn a_stream_ends_at_its_moment_with_everything_of_before() {
        let (_dir, store, bus) = bus();
        write(&store, 0, 3);
        let past = bus
            .subscribe_until(Filter::new(), Some(0), Some(now_ns()))
            .await
            .unwrap();
        write(&store, 3, 6);
        assert_eq!(past.count().await, 3);
        let soon = now_ns() + 150_000_000;
        let until = bus.subscribe_until(Filter::new(), None, Some(soon)).await.unwrap();
        write(&store, 6, 8);
        assert_eq!(until.count().await, 2);
        assert!(now_ns() > soon);
    }

    #[test]
    fn filters_are_docker_s() {
        let event = Event::now(EventKind::Container, "health_status: healthy", "0123456789ab")
            .with("name", "web")
            .with("image", "busybox");
        for (key, value) in [
            ("type", "container"),
            ("event", "health_status"),
            ("container", "0123"),
            ("container", "web"),
            ("image", "busybox"),
            ("label", "name=web"),
            ("label", "image"),
        ] {
            assert!(event.matches(&Filter::new().with(key, value)), "{key}={value}");
        }
        for (key, value) in [
            ("type", "image"),
            ("event", "health"),
            ("container", "01"),
            ("network", "web"),
            ("label", "name=db"),
        ] {
            assert!(!event.matches(&Filter::new().with(key, value)), "{key}={value}");
        }
        assert!(check_filter(&Filter::new().with("colour", "red")).is_err());
    }
}
