//! SHA-256 of what comes in pieces, as hexadecimal digits.

/// What was taken in so far.
#[derive(Clone)]
pub struct Sha256(ring::digest::Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }
}

impl Sha256 {
    /// Takes in more.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// 64 digits in small letters, of all so far; it can go on.
    pub fn hex(&self) -> String {
        self.0.clone().finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The digits of `bytes`.
pub fn hex_of(bytes: &[u8]) -> String {
    let mut sum = Sha256::default();
    sum.update(bytes);
    sum.hex()
}

/// Whether `text` is 64 digits in small letters.
pub fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_sha256sum_says_in_one_piece_or_in_several() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex_of(b"abc"), abc);
        let mut sum = Sha256::default();
        sum.update(b"a");
        assert_ne!(sum.hex(), abc);
        sum.update(b"bc");
        assert_eq!(sum.hex(), abc);
        assert!(is_hex(abc));
        for bad in ["", &abc[1..], &format!("{abc}0"), &abc.to_uppercase(), &abc.replace('b', "g")] {
            assert!(!is_hex(bad), "{bad}");
        }
    }
}
