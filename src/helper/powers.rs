//! What `/proc/PID/status` (proc(5)) shows of what a process may: looked at, not believed.

/// Sets of capabilities that can be used or passed on.
const USABLE: [&str; 4] = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"];

/// What no program that is run later can have either.
const BOUNDING: &str = "CapBnd:";

/// Whether a process is `uid` in all four ways, in no other group, without a capability that it could use,
/// and with no way back.
pub fn are_given_up(status: &str, uid: u32) -> bool {
    let four = |ids: &str| {
        let ids: Vec<&str> = ids.split_ascii_whitespace().collect();
        ids.len() == 4 && ids.iter().all(|id| id.parse() == Ok(uid))
    };
    field(status, "Uid:").is_some_and(four)
        && field(status, "Gid:").is_some_and(four)
        && field(status, "Groups:").is_some_and(str::is_empty)
        && field(status, "NoNewPrivs:") == Some("1")
        && USABLE.iter().all(|set| is_empty(status, set))
}

/// The same, and whatever it runs has none either.
pub fn are_gone(status: &str, uid: u32) -> bool {
    are_given_up(status, uid) && is_empty(status, BOUNDING)
}

/// The effective user and group.
pub fn effective_ids(status: &str) -> Option<(u32, u32)> {
    let effective = |name| field(status, name)?.split_ascii_whitespace().nth(1)?.parse().ok();
    Some((effective("Uid:")?, effective("Gid:")?))
}

fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn is_empty(status: &str, set: &str) -> bool {
    field(status, set).is_some_and(|bits| !bits.is_empty() && bits.bytes().all(|b| b == b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tqemu\nUid:\t7\t7\t7\t7\nGid:\t7\t7\t7\t7\nGroups:\t \nCapInh:\t0000000000000000\n\
        CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t0\n";

    #[test]
    fn whoever_kept_anything_has_not_given_up() {
        assert!(are_gone(STATUS, 7) && are_given_up(STATUS, 7));
        assert!(!are_gone(STATUS, 8) && !are_given_up(STATUS, 8));
        for (was, is) in [
            ("Uid:\t7\t7\t7\t7", "Uid:\t7\t7\t0\t7"),
            ("Uid:\t7\t7\t7\t7", "Uid:"),
            ("Gid:\t7", "Gid:\t0"),
            ("Groups:\t ", "Groups:\t0 "),
            ("CapEff:\t0", "CapEff:\tf"),
            ("CapPrm:", "Else:"),
            ("CapAmb:", "Else:"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
        ] {
            let status = STATUS.replace(was, is);
            assert!(!are_gone(&status, 7) && !are_given_up(&status, 7), "{is}");
        }
    }

    #[test]
    fn the_effective_ids_are_the_second_ones() {
        let status = STATUS.replace("Uid:\t7\t7", "Uid:\t7\t8").replace("Gid:\t7\t7", "Gid:\t7\t9");
        assert_eq!(effective_ids(&status), Some((8, 9)));
        assert_eq!(effective_ids("Uid:\t7\n"), None);
    }

    #[test]
    fn a_bounding_set_is_given_up_and_not_gone() {
        let status = STATUS.replace("CapBnd:\t0", "CapBnd:\t1");
        assert!(are_given_up(&status, 7) && !are_gone(&status, 7));
    }
}
