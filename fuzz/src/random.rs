//! Seeded random numbers, so that a run can be repeated.

use broccoli_proto::SplitMix64;

/// The random numbers of a run.
#[derive(Clone, Debug)]
pub struct Random(SplitMix64);

impl Random {
    /// Starts from the seed of the fuzzer.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        Self(SplitMix64(seed.into()))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % (end.max(1) as u64)) as usize
    }

    /// True with probability 1/n.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
