//! How much fuel a slice gets. Learned from the time of the previous slice.

/// Bounds of the fuel.
const FUEL_MIN: u64 = 1_000;
const FUEL_MAX: u64 = 10_000_000;

/// The fuel of the next slice, for a shell or one of its threads. It adapts to each processor, clock and function.
#[derive(Clone, Debug)]
pub struct Pace {
    slice_us: u64,
    fuel: u64,
    fuel_min: u64,
}

impl Pace {
    /// Slices of about `slice_us` microseconds. The first ones get `fuel` (about one unit for each Wasm instruction).
    #[must_use]
    pub const fn new(slice_us: u64, fuel: u64) -> Pace {
        Pace { slice_us, fuel, fuel_min: FUEL_MIN }
    }

    /// Sets the least fuel of a slice.
    #[must_use]
    pub const fn at_least(self, fuel_min: u64) -> Pace {
        Pace { fuel_min, ..self }
    }

    /// Fuel of the next slice.
    pub(crate) fn fuel(&self) -> u64 {
        self.fuel
    }

    /// Learns from a slice that used this much fuel. A slice that used less than half of its fuel is ignored, and the
    /// clock is not read for it: most of its time may be other work. (A run that is out of fuel has rarely used the
    /// last unit.)
    pub(crate) fn learn(&mut self, used: u64, took_us: impl FnOnce() -> u64) {
        if used < self.fuel / 2 {
            return;
        }
        let fitting = used.saturating_mul(self.slice_us) / took_us().max(1);
        let fitting = fitting.clamp(self.fuel / 2, self.fuel.saturating_mul(2));
        self.fuel = fitting.clamp(self.fuel_min, FUEL_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_comes_to_its_time_in_steps_of_at_most_two() {
        let mut pace = Pace::new(5_000, 10_000);
        // A processor that executes 1,000 units in a microsecond, then one that executes 1.
        for _ in 0..10 {
            let fuel = pace.fuel();
            pace.learn(fuel, || fuel / 1_000);
        }
        assert_eq!(pace.fuel(), 5_000_000);
        let fuel = pace.fuel();
        pace.learn(fuel, || fuel);
        assert_eq!(pace.fuel(), 2_500_000);
        for _ in 0..20 {
            let fuel = pace.fuel();
            pace.learn(fuel, || fuel);
        }
        assert_eq!(pace.fuel(), 5_000);
    }

    #[test]
    fn it_stays_within_its_bounds_and_learns_nothing_from_a_slice_that_ends_early() {
        let mut pace = Pace::new(50, 10_000).at_least(2_500);
        pace.learn(4_999, || panic!("the clock is not read"));
        for _ in 0..20 {
            pace.learn(pace.fuel(), || 1_000_000);
        }
        assert_eq!(pace.fuel(), 2_500);
        for _ in 0..20 {
            pace.learn(pace.fuel(), || 0);
        }
        assert_eq!(pace.fuel(), FUEL_MAX);
    }
}
