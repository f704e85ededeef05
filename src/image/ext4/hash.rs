//! The hash by which ext4 finds names in large folders: half of MD4's rounds over the name, seeded
//! (Documentation/filesystems/ext4/directory.rst, "Hash Tree Directories"; RFC 1320 for the rounds).

/// Words that a filesystem starts its hashes with.
pub(super) type Seed = [u32; 4];

/// End of a folder, which no name's hash may be.
const END: u32 = 0xffff_fffe;

/// Constants of MD4's second and third round: the square roots of 2 and 3.
const SECOND: u32 = 0x5a82_7999;
const THIRD: u32 = 0x6ed9_eba1;

/// The hash of `name`, its lowest bit clear; bytes count as unsigned.
pub(super) fn of_name(name: &[u8], seed: &Seed) -> u32 {
    let mut state = *seed;
    let mut rest = name;
    while !rest.is_empty() {
        mix(&mut state, &words(rest));
        rest = &rest[rest.len().min(32)..];
    }
    match state[1] & !1 {
        END => END - 2,
        hash => hash,
    }
}

/// The first 32 bytes of `rest` as eight words, filled up with its length.
fn words(rest: &[u8]) -> [u32; 8] {
    let length = rest.len() as u32 & 0xff;
    let filling = length * 0x0101_0101;
    let mut words = [filling; 8];
    for (word, bytes) in words.iter_mut().zip(rest[..rest.len().min(32)].chunks(4)) {
        *word = bytes.iter().fold(filling, |value, byte| (value << 8).wrapping_add(u32::from(*byte)));
    }
    words
}

fn mix(state: &mut Seed, input: &[u32; 8]) {
    type Function = fn(u32, u32, u32) -> u32;
    const ROUNDS: [(Function, u32, [u32; 4], [usize; 8]); 3] = [
        (|x, y, z| z ^ (x & (y ^ z)), 0, [3, 7, 11, 19], [0, 1, 2, 3, 4, 5, 6, 7]),
        (|x, y, z| (x & y).wrapping_add((x ^ y) & z), SECOND, [3, 5, 9, 13], [1, 3, 5, 7, 0, 2, 4, 6]),
        (|x, y, z| x ^ y ^ z, THIRD, [3, 9, 11, 15], [3, 7, 2, 6, 1, 5, 0, 4]),
    ];
    let mut now = *state;
    for (function, constant, shifts, order) in ROUNDS {
        for (step, word) in order.into_iter().enumerate() {
            // The registers take turns: a, d, c, b.
            let at = (4 - step % 4) % 4;
            let [b, c, d] = [1, 2, 3].map(|offset| now[(at + offset) % 4]);
            let sum = now[at].wrapping_add(function(b, c, d)).wrapping_add(input[word]).wrapping_add(constant);
            now[at] = sum.rotate_left(shifts[step % 4]);
        }
    }
    for (state, now) in state.iter_mut().zip(now) {
        *state = state.wrapping_add(now);
    }
}
