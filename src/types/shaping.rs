//! How a container's link to a network is slowed down or harmed on purpose.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ObjectKind, Result};

/// The longest delay, which the kernel keeps in whole packets: a minute.
const LONGEST: Duration = Duration::from_secs(60);
/// The slowest link: below that a single packet takes seconds.
const SLOWEST: u64 = 8_000;
const WHOLE: u32 = 1_000_000;

/// What is done to a container's packets in one network, for tests of what a bad network does. Nothing by default.
///
/// ```
/// use std::time::Duration;
/// use longshore::types::{LinkShape, Shaping};
///
/// let slow = Shaping::default().outgoing(LinkShape::default().delay(Duration::from_millis(50)));
/// let thin = Shaping::both(LinkShape::default().rate_bits(1_000_000));
/// # assert!(!slow.is_none() && thin.incoming == thin.outgoing);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shaping {
    /// Packets that the container sends.
    pub outgoing: LinkShape,
    /// Packets that it receives.
    pub incoming: LinkShape,
}

/// What is done to packets in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkShape {
    /// How much gets through, in bits per second; as much as there is without. At least 8,000.
    pub rate_bits: Option<u64>,
    /// How much later each packet comes. At most a minute. Needs `netem` in the kernel.
    pub delay: Duration,
    /// How much the delay varies, in both directions. At most the delay itself.
    pub jitter: Duration,
    /// How many of a million packets are lost. Needs `netem` in the kernel.
    pub loss_per_million: u32,
}

impl Shaping {
    /// How names of our options of an endpoint begin.
    pub(crate) const PREFIX: &str = "longshore.";

    /// The same in both directions.
    pub fn both(shape: LinkShape) -> Self {
        Self {
            outgoing: shape,
            incoming: shape,
        }
    }

    /// Sets what is done to packets that the container sends.
    #[must_use]
    pub fn outgoing(mut self, shape: LinkShape) -> Self {
        self.outgoing = shape;
        self
    }

    /// Sets what is done to packets that it receives.
    #[must_use]
    pub fn incoming(mut self, shape: LinkShape) -> Self {
        self.incoming = shape;
        self
    }

    /// Whether nothing is done to any packet.
    pub fn is_none(&self) -> bool {
        self.outgoing.is_none() && self.incoming.is_none()
    }

    /// Refuses what no kernel can do.
    pub(crate) fn check(&self) -> Result<()> {
        self.outgoing.check("outgoing")?;
        self.incoming.check("incoming")
    }

    /// As options of an endpoint, by which it travels over the Engine API (`DriverOpts`): `longshore.outgoing.` or
    /// `longshore.incoming.`, and `rate-bits` per second, `delay-us`, `jitter-us` (microseconds) or `loss-ppm`. What is not done
    /// is not said.
    pub fn to_options(self) -> BTreeMap<String, String> {
        let mut options = BTreeMap::new();
        for (direction, shape) in [("outgoing", &self.outgoing), ("incoming", &self.incoming)] {
            for (name, value) in shape.numbers() {
                if value != 0 {
                    options.insert(format!("{}{direction}.{name}", Self::PREFIX), value.to_string());
                }
            }
        }
        options
    }

    /// What options of an endpoint say, as [`Shaping::to_options`] writes them; `None` where one of them is none of those.
    ///
    /// # Errors
    /// `InvalidArgument` for one that is no number, and for what no kernel can do.
    pub fn from_options(options: &BTreeMap<String, String>) -> Result<Option<Self>> {
        let mut shaping = Self::default();
        for (name, value) in options {
            let known = match name.strip_prefix(Self::PREFIX).and_then(|rest| rest.split_once('.')) {
                Some(("outgoing", key)) => shaping.outgoing.set(key, value),
                Some(("incoming", key)) => shaping.incoming.set(key, value),
                _ => Ok(false),
            };
            let bad = |error| {
                Error::invalid(format!(
                    "invalid value {value:?} of the endpoint's option {name}: {error}"
                ))
                .with_object(ObjectKind::Option, name.as_str())
            };
            if !known.map_err(bad)? {
                return Ok(None);
            }
        }
        shaping.check()?;
        Ok(Some(shaping))
    }
}

impl LinkShape {
    /// Sets how much gets through, in bits per second.
    #[must_use]
    pub fn rate_bits(mut self, rate: u64) -> Self {
        self.rate_bits = Some(rate);
        self
    }

    /// Sets how much later each packet comes.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sets how much the delay varies.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// Sets how many of a million packets are lost.
    #[must_use]
    pub fn loss_per_million(mut self, packets: u32) -> Self {
        self.loss_per_million = packets;
        self
    }

    /// Whether nothing is done.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn check(&self, direction: &str) -> Result<()> {
        let bad = |what: String| {
            Err(Error::invalid(format!("invalid shape of {direction} packets: {what}"))
                .with_object(ObjectKind::Option, "shaping"))
        };
        match self.rate_bits {
            Some(rate) if rate < SLOWEST => return bad(format!("{rate} bits per second; at least {SLOWEST}")),
            _ => {}
        }
        if self.delay > LONGEST {
            return bad(format!("a delay of {:?}; at most {LONGEST:?}", self.delay));
        }
        if self.jitter > self.delay {
            return bad(format!(
                "a delay of {:?} that varies by {:?}; at most by itself",
                self.delay, self.jitter
            ));
        }
        if self.loss_per_million > WHOLE {
            return bad(format!("{} of a million packets are lost", self.loss_per_million));
        }
        Ok(())
    }

    fn numbers(&self) -> [(&'static str, u64); 4] {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        [
            ("rate-bits", self.rate_bits.unwrap_or(0)),
            ("delay-us", us(self.delay)),
            ("jitter-us", us(self.jitter)),
            ("loss-ppm", self.loss_per_million.into()),
        ]
    }

    /// Whether there is such a number.
    fn set(&mut self, name: &str, value: &str) -> std::result::Result<bool, std::num::ParseIntError> {
        match name {
            "rate-bits" => self.rate_bits = Some(value.parse()?),
            "delay-us" => self.delay = Duration::from_micros(value.parse()?),
            "jitter-us" => self.jitter = Duration::from_micros(value.parse()?),
            "loss-ppm" => self.loss_per_million = value.parse()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i15_what_no_kernel_can_do_is_refused() {
        let shape = LinkShape::default;
        let second = Duration::from_secs(1);
        for good in [
            shape(),
            shape().rate_bits(SLOWEST),
            shape().delay(LONGEST).jitter(LONGEST),
            shape().loss_per_million(WHOLE),
        ] {
            Shaping::both(good).check().unwrap();
        }
        for bad in [
            shape().rate_bits(0),
            shape().rate_bits(SLOWEST - 1),
            shape().delay(LONGEST + second),
            shape().jitter(second),
            shape().loss_per_million(WHOLE + 1),
        ] {
            let error = Shaping::default().incoming(bad).check().unwrap_err();
            assert_eq!(error.kind(), &crate::error::ErrorKind::InvalidArgument, "{bad:?}");
            assert!(Shaping::default().outgoing(bad).check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn i15_it_travels_as_options() {
        let shaping = Shaping {
            outgoing: LinkShape::default()
                .delay(Duration::from_millis(50))
                .jitter(Duration::from_millis(5)),
            incoming: LinkShape::default().rate_bits(1_000_000).loss_per_million(1),
        };
        let options = shaping.to_options();
        assert_eq!(options.get("longshore.outgoing.delay-us").unwrap(), "50000");
        assert_eq!(Shaping::from_options(&options).unwrap(), Some(shaping));
        assert_eq!(Shaping::default().to_options(), BTreeMap::new());
        let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        for foreign in [
            "com.docker.network.x",
            "longshore.outgoing.colour",
            "longshore.delay-us",
            "longshore.",
        ] {
            assert_eq!(Shaping::from_options(&one(foreign, "1")).unwrap(), None, "{foreign}");
        }
        for bad in ["", "x", "-1", "99999999999999999999"] {
            let error = Shaping::from_options(&one("longshore.incoming.rate-bits", bad)).unwrap_err();
            assert_eq!(error.kind(), &crate::error::ErrorKind::InvalidArgument, "{bad}");
        }
    }
}
