//! Numbers that are not the same in each run, from a seed that is told when a test fails.

/// A xorshift generator.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        // 0 would stay 0, and small seeds begin alike.
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// One of `0..sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    /// One of `from`.
    pub fn pick(&mut self, from: &[u64]) -> u64 {
        from[self.roll(from.len() as u64) as usize]
    }
}
