//! Names for VMs that nobody named: an adjective, a noun, three letters or digits. Always DNS labels.

use crate::model::VmName;

const ADJECTIVES: [&str; 32] = [
    "amber", "bold", "brisk", "calm", "clear", "crisp", "dry", "early", "fair", "fleet", "fresh", "gentle", "grand",
    "green", "keen", "kind", "light", "lucid", "merry", "mild", "neat", "noble", "plain", "proud", "quick", "quiet",
    "rapid", "sharp", "solid", "sunny", "swift", "warm",
];

const NOUNS: [&str; 32] = [
    "alder", "badger", "beacon", "birch", "brook", "cedar", "cliff", "comet", "crane", "delta", "ember", "falcon",
    "fern", "fjord", "glade", "harbor", "heron", "lantern", "lynx", "maple", "meadow", "otter", "pebble", "pine",
    "raven", "reef", "ridge", "robin", "spruce", "summit", "tern", "willow",
];

const TAIL: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A name made of `random`: 2^25 are possible, so that two at once hardly meet.
pub fn generate(mut random: u64) -> Option<VmName> {
    let mut below_32 = || {
        let index = (random % 32) as usize;
        random /= 32;
        index
    };
    let (adjective, noun) = (ADJECTIVES[below_32()], NOUNS[below_32()]);
    let tail: String = (0..3).map(|_| char::from(TAIL[below_32()])).collect();
    format!("{adjective}-{noun}-{tail}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_makes_a_valid_name() {
        for i in 0..32 {
            for random in [i, i * 32, i * 32 * 32, i * 32 * 33 + (i << 20)] {
                assert!(generate(random).is_some(), "{random}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn every_number_makes_a_valid_name(random: u64) {
            let name = generate(random).expect("a name");
            proptest::prop_assert!(name.as_str().len() <= 63);
        }
    }
}
