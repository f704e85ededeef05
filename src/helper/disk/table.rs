//! Tables of device-mapper and the status of a snapshot, as text. Pure.

use super::BlockDevice;
use crate::protocol::root::DiskFill;

/// Sectors that are copied at once: 4 KiB, a block of the guests' filesystem.
pub const CHUNK: u64 = 8;

/// One line of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The first sector.
    pub start: u64,
    /// How many.
    pub sectors: u64,
    /// Who serves them.
    pub target: &'static str,
    /// Its parameters.
    pub parameters: String,
}

/// The image, then zeros up to `sectors`.
pub fn base(image: BlockDevice, image_sectors: u64, sectors: u64) -> [Line; 2] {
    let parameters = format!("{}:{} 0", image.major, image.minor);
    let rest = sectors.saturating_sub(image_sectors);
    [
        Line { start: 0, sectors: image_sectors, target: "linear", parameters },
        Line { start: image_sectors, sectors: rest, target: "zero", parameters: String::new() },
    ]
}

/// A persistent snapshot of `origin` that keeps what differs in `cow`.
pub fn snapshot(origin: BlockDevice, cow: BlockDevice, sectors: u64) -> Line {
    let parameters = format!("{}:{} {}:{} P {CHUNK}", origin.major, origin.minor, cow.major, cow.minor);
    Line { start: 0, sectors, target: "snapshot", parameters }
}

/// What the kernel says of a snapshot (drivers/md/dm-snap.c, `snapshot_status`). banger never merges, so
/// a merge that failed is lost as well.
pub fn parse_status(status: &str) -> DiskFill {
    match status.trim() {
        "Invalid" | "Merge failed" => DiskFill::Invalid,
        "Overflow" => DiskFill::Overflow,
        other => parse_sectors(other).unwrap_or(DiskFill::Unknown),
    }
}

fn parse_sectors(text: &str) -> Option<DiskFill> {
    let (used, total) = text.split_ascii_whitespace().next()?.split_once('/')?;
    Some(DiskFill::Sectors { used: used.parse().ok()?, total: total.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: BlockDevice = BlockDevice { major: 7, minor: 3 };
    const COW: BlockDevice = BlockDevice { major: 7, minor: 4 };

    #[test]
    fn tables_are_as_the_kernel_reads_them() {
        let [image, zeros] = base(IMAGE, 2048, 4096);
        assert_eq!((image.start, image.sectors, image.parameters.as_str()), (0, 2048, "7:3 0"));
        assert_eq!((zeros.start, zeros.sectors, zeros.target), (2048, 2048, "zero"));
        assert_eq!(snapshot(IMAGE, COW, 4096).parameters, "7:3 7:4 P 8");
    }

    #[test]
    fn every_status_of_the_kernel_is_understood() {
        assert_eq!(parse_status("16/4224 16"), DiskFill::Sectors { used: 16, total: 4224 });
        assert_eq!(parse_status("Invalid"), DiskFill::Invalid);
        assert_eq!(parse_status("Overflow"), DiskFill::Overflow);
        assert_eq!(parse_status("Merge failed"), DiskFill::Invalid);
    }

    #[test]
    fn any_other_status_is_unknown_and_harms_nobody() {
        for text in ["", "Unknown", "/", "1/", "/2", "-1/2", "99999999999999999999/1 2", "a/b", "\0", "1 / 2", "é/ü"]
        {
            assert_eq!(parse_status(text), DiskFill::Unknown, "{text:?}");
        }
    }
}
