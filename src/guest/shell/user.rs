//! Becoming another user and then a program, in a process of its own: the agent keeps its rights.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Gid, Uid};

use crate::os::accounts::{self, Account};

/// Before uid, gid and groups; then come the program's file, its name and its arguments.
pub const FLAG: &str = "--user";

/// The words that have the agent become `account`.
pub fn words(account: &Account) -> [String; 4] {
    let groups: Vec<String> = accounts::groups_of(&account.name).iter().map(u32::to_string).collect();
    [FLAG.to_owned(), account.uid.to_string(), account.gid.to_string(), groups.join(",")]
}

/// Does what the words behind [`FLAG`] say; comes back only when it cannot.
pub fn run(words: &[OsString]) -> ExitCode {
    let (code, error) = match words {
        [uid, gid, groups, program, name, arguments @ ..] => match become_user(uid, gid, groups) {
            Ok(()) => {
                let error = Command::new(program).arg0(name).args(arguments).exec();
                let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
                (code, format!("{}: {error}", name.to_string_lossy()))
            }
            Err(error) => (125, format!("cannot become another user: {error}")),
        },
        _ => (125, "words are missing".to_owned()),
    };
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(io::stderr(), "banger: {error}");
    ExitCode::from(code)
}

/// Groups first: only root may set them.
fn become_user(uid: &OsString, gid: &OsString, groups: &OsString) -> io::Result<()> {
    let number = |text: &str| text.parse::<u32>().map_err(|_| io::Error::other(format!("{text:?} is no id")));
    let groups = groups.to_string_lossy();
    let groups = groups.split(',').filter(|group| !group.is_empty());
    let groups = groups.map(|group| number(group).map(Gid::from_raw)).collect::<io::Result<Vec<_>>>()?;
    let (uid, gid) = (number(&uid.to_string_lossy())?, number(&gid.to_string_lossy())?);
    rustix::thread::set_thread_groups(&groups)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}
