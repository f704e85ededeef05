//! Random numbers that follow from a seed, so that what went wrong can be played again.

/// By xorshift64; the seed must not be 0.
pub struct Noise(pub u64);

impl Noise {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`; 0 where that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        // The upper bits are the better ones.
        (self.number() >> 16) as usize % limit.max(1)
    }

    /// True once in `count` times.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// Fewer than `most` random bytes.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.number() as usize % most;
        (0..length).map(|_| self.number() as u8).collect()
    }
}
