//! What the kernel has counted on a network link of this process's namespace (proc_net(5), `/proc/net/dev`).

use std::fs;
use std::io;

/// Bytes over the link called `name`, both ways; `None` when there is none.
pub fn bytes_over(name: &str) -> io::Result<Option<u64>> {
    let table = fs::read_to_string("/proc/self/net/dev")?;
    Ok(table.lines().find_map(|line| of_link(line, name)))
}

/// `NAME: ` and eight numbers of what was received, the first of them bytes, then those of what was sent.
fn of_link(line: &str, name: &str) -> Option<u64> {
    let numbers = line.trim_start().strip_prefix(name)?.strip_prefix(':')?;
    let mut numbers = numbers.split_ascii_whitespace();
    let received: u64 = numbers.next()?.parse().ok()?;
    let sent: u64 = numbers.nth(7)?.parse().ok()?;
    Some(received.saturating_add(sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_links_line_is_read_and_no_other() {
        let line = " bng-1:     796      10    0    0    0     0          0         0       54       1    0    0";
        assert_eq!(of_link(line, "bng-1"), Some(850));
        assert_eq!((of_link(line, "bng-11"), of_link(line, "ng-1"), of_link(line, "bng")), (None, None, None));
        for cut in 0..line.find("54").expect("there") {
            assert_eq!(of_link(&line[..cut], "bng-1"), None, "{cut}");
        }
    }

    #[test]
    fn loopback_is_counted_everywhere() {
        assert!(bytes_over("lo").expect("read").is_some());
        assert_eq!(bytes_over("no-such-link").expect("read"), None);
    }
}
