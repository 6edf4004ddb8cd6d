//! The time at which a stage's files are made. Pure, but for the clock.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::build::copy::Times;
use crate::build::spec::{BuildTimes, Wish};
use crate::error::{Error, Result};

/// What build arguments call it. Source: <https://reproducible-builds.org/specs/source-date-epoch/>.
const ARGUMENT: &str = "SOURCE_DATE_EPOCH";

/// The time of a stage upon an image that was made then, as its config says.
pub(super) fn upon(spec: &Wish, created: Option<&str>) -> Result<Times> {
    let given = spec.plan.arguments.get(ARGUMENT).filter(|text| !text.is_empty());
    match (spec.times, given) {
        (BuildTimes::At(seconds), _) => Ok(Times::Fixed(seconds)),
        (BuildTimes::Real, _) => Ok(Times::Real),
        (BuildTimes::Fixed, Some(text)) => text.parse().map(Times::Fixed).map_err(|error| {
            let message = format!("{ARGUMENT} is {text:?}: give seconds since 1970, as `date +%s` prints them");
            Error::invalid(message).with_source(error)
        }),
        (BuildTimes::Fixed, None) => Ok(Times::Fixed(created.and_then(seconds).unwrap_or(0).max(0))),
    }
}

fn seconds(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .map(OffsetDateTime::unix_timestamp)
}

/// As configs have it.
pub(super) fn text(times: Times) -> Result<String> {
    let bad = |error| Error::invalid("a time that no config can hold").with_source(error);
    let time = match times {
        Times::Fixed(seconds) => OffsetDateTime::from_unix_timestamp(seconds).map_err(bad)?,
        Times::Real => OffsetDateTime::from(SystemTime::now()),
    };
    time.format(&Rfc3339)
        .map_err(|error| Error::invalid("a time that no config can hold").with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::BuildSpec;

    #[test]
    fn f19_the_time_is_the_bases_or_what_is_asked_for() {
        let spec = || BuildSpec::new("/nowhere");
        let at = |spec: BuildSpec, created: Option<&str>| text(upon(&spec.wish, created).unwrap()).unwrap();
        assert_eq!(at(spec(), None), "1970-01-01T00:00:00Z");
        assert_eq!(at(spec(), Some("2024-05-06T07:08:09.123Z")), "2024-05-06T07:08:09Z");
        assert_eq!(at(spec(), Some("0001-01-01T00:00:00Z")), "1970-01-01T00:00:00Z");
        assert_eq!(at(spec(), Some("soon")), "1970-01-01T00:00:00Z");
        let asked = spec().argument("SOURCE_DATE_EPOCH", "1000000000");
        assert_eq!(at(asked, Some("2024-05-06T07:08:09Z")), "2001-09-09T01:46:40Z");
        assert_eq!(at(spec().times(BuildTimes::At(1)), None), "1970-01-01T00:00:01Z");
        let bad = spec().argument("SOURCE_DATE_EPOCH", "today");
        assert!(upon(&bad.wish, None).unwrap_err().to_string().contains("date +%s"));
        assert!(text(Times::Fixed(i64::MAX)).is_err());
    }
}
