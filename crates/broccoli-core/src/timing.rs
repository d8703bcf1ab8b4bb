//! The times of the protocol, stretched for slow links.
//!
//! The times of the protocol are constants at the top of the files that use them, for a fast link: one that carries the
//! longest packet and its answer in some tens of milliseconds. On a slower link all of them are multiplied by the same
//! factor, so that their order stays the same: a lease is confirmed before it is sent again, and renewed before it
//! expires.
//!
//! Times that people set (delays, time limits, expiry), and times that do not depend on other nodes, are not stretched.

use core::ops::Mul;
use core::time::Duration;

/// The speed of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSpeed {
    /// The longest packet that it carries, in bytes.
    pub packet_bytes_max: u32,
    /// Bytes per second that it carries, including its own overhead. On a shared medium: of all nodes together.
    pub bytes_per_s: u32,
}

/// Time in which a fast link carries the longest packet and the answer.
const FAST: Duration = Duration::from_millis(50);
/// Largest factor. With a larger one, a lease would be waited for longer than one hour.
const STRETCH_MAX: u32 = 1_000;

/// The times of the protocol on one link.
///
/// ```
/// use broccoli_core::{LinkSpeed, Timing};
///
/// let serial = LinkSpeed { packet_bytes_max: 2_048, bytes_per_s: 960 };
/// assert_eq!(Timing::of(serial).stretch(), 43);
/// let network = LinkSpeed { packet_bytes_max: 1 << 20, bytes_per_s: 100_000_000 };
/// assert_eq!(Timing::of(network), Timing::FAST);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    stretch: u32,
}

impl Timing {
    /// The times on a fast link, such as MQTT over a network.
    pub const FAST: Timing = Timing { stretch: 1 };

    /// The times on this link.
    #[must_use]
    pub fn of(link: LinkSpeed) -> Timing {
        let packet_us = u64::from(link.packet_bytes_max) * 1_000_000 / u64::from(link.bytes_per_s.max(1));
        let stretch = packet_us.div_ceil(FAST.as_micros() as u64);
        Timing { stretch: u32::try_from(stretch).unwrap_or(u32::MAX).clamp(1, STRETCH_MAX) }
    }

    /// The factor by which all times are longer than on a fast link.
    #[must_use]
    pub fn stretch(self) -> u32 {
        self.stretch
    }

    /// A time of the protocol on this link.
    pub(crate) fn time(self, time: LinkTime) -> Duration {
        time.0.saturating_mul(self.stretch)
    }
}

impl Default for Timing {
    fn default() -> Timing {
        Timing::FAST
    }
}

/// A time of the protocol on a fast link. Only [`Timing::time`] converts it to a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkTime(Duration);

/// Milliseconds on a fast link.
pub(crate) const fn link_ms(ms: u64) -> LinkTime {
    LinkTime(Duration::from_millis(ms))
}

impl Mul<u32> for LinkTime {
    type Output = LinkTime;

    fn mul(self, by: u32) -> LinkTime {
        LinkTime(self.0.saturating_mul(by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_link_stretches_and_a_fast_one_does_not() {
        let stretch = |packet_bytes_max, bytes_per_s| Timing::of(LinkSpeed { packet_bytes_max, bytes_per_s }).stretch();
        assert_eq!(stretch(2_048, 960), 43);
        assert_eq!(stretch(4_096, 1_000_000), 1);
        assert_eq!(stretch(u32::MAX, 0), STRETCH_MAX);
        assert_eq!(
            Timing::of(LinkSpeed { packet_bytes_max: 2_048, bytes_per_s: 960 }).time(link_ms(20)).as_millis(),
            860
        );
    }
}
