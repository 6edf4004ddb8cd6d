//! Queueing disciplines as messages of rtnetlink(7): what a link does to the packets that go out of it. Pure. Sources: tc(8),
//! tc-tbf(8), tc-netem(8), and the kernel's `include/uapi/linux/pkt_sched.h`.

use std::time::Duration;

use crate::sys::netlink::{CREATE, Message, REPLACE};
use crate::types::LinkShape;

const NEWQDISC: u16 = 36;
const DELQDISC: u16 = 37;
const ROOT: u32 = 0xffff_ffff;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
/// The largest packet of an Ethernet, with its header: what a bucket must hold at least.
const PACKET: u64 = 1514;
/// How many packets are under way on a link with a delay.
const UNDER_WAY: u32 = 4096;

/// The discipline that a shape needs; `None` for a link on which nothing is done.
pub(super) fn kind(shape: &LinkShape) -> Option<&'static str> {
    match shape {
        shape if shape.is_none() => None,
        LinkShape {
            delay: Duration::ZERO,
            loss_per_million: 0,
            ..
        } => Some("tbf"),
        _ => Some("netem"),
    }
}

/// Has a link do this to what goes out of it, whatever it did before.
pub(super) fn set(index: u32, shape: &LinkShape) -> Message {
    match kind(shape) {
        None => Message::new(DELQDISC, 0).raw(&head(index)),
        Some(kind) => {
            let message = Message::new(NEWQDISC, CREATE | REPLACE).raw(&head(index));
            let message = message.text(TCA_KIND, kind);
            match kind {
                "tbf" => bucket(message, shape.rate_bits.unwrap_or(u64::MAX) / 8),
                _ => emulator(message, shape),
            }
        }
    }
}

/// `struct tcmsg`: the link, and its root.
fn head(index: u32) -> [u8; 20] {
    let mut head = [0u8; 20];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[12..16].copy_from_slice(&ROOT.to_ne_bytes());
    head
}

/// A bucket of tokens that holds 20 ms of the rate, before which packets of another 100 ms wait. The rate is in bytes per second.
fn bucket(message: Message, rate: u64) -> Message {
    const PARAMETERS: u16 = 1;
    const RATE64: u16 = 4;
    const BURST: u16 = 6;
    const ETHERNET: u8 = 1;
    let burst = small((rate / 50).max(2 * PACKET));
    let waiting = small((rate / 10).max(16 * PACKET));
    // `struct tc_tbf_qopt`: two of `struct tc_ratespec` (a table of times is needed without a kind of link), and a limit.
    let mut parameters = [0u8; 36];
    parameters[1] = ETHERNET;
    parameters[8..12].copy_from_slice(&small(rate).to_ne_bytes());
    parameters[24..28].copy_from_slice(&burst.saturating_add(waiting).to_ne_bytes());
    message.nest(TCA_OPTIONS, |options| {
        options
            .attr(PARAMETERS, &parameters)
            .attr(RATE64, &rate.to_ne_bytes())
            .attr(BURST, &burst.to_ne_bytes())
    })
}

/// Delays and losses, and a rate too. All of it is always said: what is not said stays as it was.
fn emulator(message: Message, shape: &LinkShape) -> Message {
    const RATE: u16 = 6;
    const RATE64: u16 = 8;
    const LATENCY64: u16 = 10;
    const JITTER64: u16 = 11;
    let loss = u64::from(shape.loss_per_million) * u64::from(u32::MAX) / 1_000_000;
    // `struct tc_netem_qopt`: latency (said below), limit, loss, gap, duplicate, jitter.
    let mut parameters = [0u8; 24];
    parameters[4..8].copy_from_slice(&UNDER_WAY.to_ne_bytes());
    parameters[8..12].copy_from_slice(&small(loss).to_ne_bytes());
    let rate = shape.rate_bits.unwrap_or(0) / 8;
    // `struct tc_netem_rate`.
    let mut spec = [0u8; 16];
    spec[0..4].copy_from_slice(&small(rate).to_ne_bytes());
    let ns = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX).to_ne_bytes();
    message.nest(TCA_OPTIONS, |options| {
        options
            .raw(&parameters)
            .attr(RATE, &spec)
            .attr(RATE64, &rate.to_ne_bytes())
            .attr(LATENCY64, &ns(shape.delay))
            .attr(JITTER64, &ns(shape.jitter))
    })
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i15_a_rate_alone_needs_no_emulator() {
        let shape = LinkShape::default;
        let ms = Duration::from_millis;
        assert_eq!(kind(&shape()), None);
        assert_eq!(kind(&shape().rate_bits(8000)), Some("tbf"));
        assert_eq!(kind(&shape().rate_bits(8000).delay(ms(1))), Some("netem"));
        assert_eq!(kind(&shape().loss_per_million(1)), Some("netem"));
    }
}
