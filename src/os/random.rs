//! Random numbers from the kernel (getrandom(2)).

/// 64 random bits.
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Fills `bytes`.
pub fn fill(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            // getrandom(2): with valid arguments and no flags only EINTR is possible; going on
            // without randomness would be worse than ending.
            Err(e) => panic!("getrandom failed: {e}"),
        }
    }
}
