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

/// The account that an image's `USER` means: a name or uid, and perhaps `:` and a group's name or gid
/// (OCI image spec, config.md, "User"). A number needs no entry in any database; its home is `/` then.
pub fn of_image_user(text: &str) -> Option<Account> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let unknown = |uid: u32| Account { name: uid.to_string(), uid, gid: 0, home: "/".into(), shell: "/bin/sh".into() };
    let account = find(user).or_else(|| user.parse().ok().map(unknown))?;
    match group {
        None | Some("") => Some(account),
        Some(group) => Some(Account { gid: gid_of(group)?, ..account }),
    }
}

/// The gid of the group called `name`, or `name` itself where it is a number (group(5)).
fn gid_of(name: &str) -> Option<u32> {
    let database = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let named = database.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    });
    named.or_else(|| name.parse().ok())
}

/// The gids of the groups that the user called `name` is a member of, beside the primary one.
pub fn groups_of(name: &str) -> Vec<u32> {
    let database = std::fs::read_to_string("/etc/group").unwrap_or_default();
    database.lines().filter_map(|line| group_with(line, name)).collect()
}

/// The gid in `line` of group(5), where the user called `name` is a member.
fn group_with(line: &str, name: &str) -> Option<u32> {
    let mut fields = line.split(':').skip(2);
    let gid = fields.next()?.parse().ok()?;
    fields.next()?.split(',').any(|member| member == name).then_some(gid)
}

/// The account of one line of passwd(5).
pub fn of_line(line: &str) -> Option<Account> {
    parse(line)
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

    #[test]
    fn an_images_user_is_a_name_or_a_number_with_or_without_group() {
        let ids = |text: &str| of_image_user(text).map(|account| (account.uid, account.gid));
        assert_eq!(ids("root"), Some((0, 0)));
        assert_eq!(ids("65432"), Some((65_432, 0)));
        assert_eq!(ids("65432:77"), Some((65_432, 77)));
        assert_eq!(ids("0:daemon"), Some((0, 1)));
        assert_eq!(ids("no-such-user"), None);
        assert_eq!(ids("root:no-such-group"), None);
    }
    #[test]
    fn groups_are_read_as_group_5_says() {
        assert_eq!(group_with("kvm:x:105:bob,alice", "alice"), Some(105));
        assert_eq!(group_with("kvm:x:105:bob", "alice"), None);
        assert_eq!(group_with("broken", "alice"), None);
    }
}
