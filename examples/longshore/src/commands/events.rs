//! `events`: what happens, a line each.

use std::time::SystemTime;

use futures_util::StreamExt as _;
use longshore::EventQuery;
use longshore::events::{Event, EventItem};

use super::{filter, say};
use crate::context::Context;
use crate::failure::Failure;
use crate::human;
use crate::options::{self, Pair};

/// Options of `events`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also what happened since then and is still kept
    #[arg(long, value_name = "TIME", value_parser = human::parse_time)]
    since: Option<SystemTime>,
    /// End at that moment
    #[arg(long, value_name = "TIME", value_parser = human::parse_time)]
    until: Option<SystemTime>,
    /// Only those that match: type, event, label, container, image, network, volume
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = options::pair)]
    filter: Vec<Pair>,
}

/// Prints events until the moment given, or for ever.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let mut query = EventQuery::default();
    query.filter = filter(&args.filter);
    query.since_ns = args.since.map(human::nanoseconds);
    query.until_ns = args.until.map(human::nanoseconds);
    // A moment that has passed asks for what was before it, as with Docker.
    if query.since_ns.is_none() && args.until.is_some_and(|until| until <= SystemTime::now()) {
        query.since_ns = Some(0);
    }
    let mut events = engine.events(query).await?;
    while let Some(item) = events.next().await {
        match item? {
            EventItem::Event(event) => say(&line(&event))?,
            EventItem::Lagged { missed } => eprintln!("longshore: {missed} events came too fast and are lost"),
            _ => {}
        }
    }
    Ok(0)
}

/// Docker's form: when, what, to whom, and more about it in parentheses.
fn line(event: &Event) -> String {
    let when = human::precise(event.time_ns);
    let more: Vec<String> = event
        .attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let Event { kind, action, id, .. } = event;
    let line = format!("{when} {kind} {action} {id} ({})", more.join(", "));
    // Labels are the image's and the caller's: nothing in them may act on the terminal.
    line.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore::events::EventKind;

    #[test]
    fn docker_s_lines() {
        let mut event = Event::now(EventKind::Container, "start", "0123abc")
            .with("name", "web")
            .with("image", "busybox\x1b[2J");
        event.time_ns = 1_500_000_001;
        assert_eq!(
            line(&event),
            "1970-01-01T00:00:01.500000001Z container start 0123abc (image=busybox\u{fffd}[2J, name=web)"
        );
    }
}
