//! A short sum of bytes.

/// FNV-1a with 64 bits: finds damage and tells texts apart; it is no match for malice.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of <http://www.isthe.com/chongo/tech/comp/fnv/>.
    #[test]
    fn it_is_the_published_sum() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
