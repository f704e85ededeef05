//! The account database, read without NSS: a static binary has none (passwd(5)).

use std::path::PathBuf;

/// One line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home folder.
    pub home: PathBuf,
    /// Login shell; `/bin/sh` where none is named (passwd(5)).
    pub shell: PathBuf,
}

/// The account called `name`, or, when `name` is a number, of that uid.
pub fn find(name: &str) -> Option<Account> {
    let database = std::fs::read_to_string("/etc/passwd").ok()?;
    let uid = name.parse::<u32>().ok();
    database.lines().filter_map(parse).find(|a| a.name == name || Some(a.uid) == uid)
}

/// The account of `uid`.
pub fn of_uid(uid: u32) -> Option<Account> {
    find(&uid.to_string())
}

fn parse(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1)?.into();
    let shell = fields.next().filter(|s| !s.is_empty()).unwrap_or("/bin/sh").into();
    Some(Account { name, uid, gid, home, shell })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_of_passwd() {
        let account = parse("bob:x:1000:1001:Bob,,,:/home/bob:/bin/bash").expect("parses");
        assert_eq!((account.uid, account.gid, account.home), (1000, 1001, "/home/bob".into()));
        assert_eq!(account.shell, PathBuf::from("/bin/bash"));
        assert_eq!(parse("bob:x:1:1::/:").expect("parses").shell, PathBuf::from("/bin/sh"));
        assert!(parse("bob:x:nan").is_none());
    }
}
