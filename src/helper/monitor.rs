//! Monitors as processes, and those that keep their output: watched by pidfd, reaped when they are
//! children of this helper, killed by pidfd. One that an earlier helper started is found again by
//! pid and start time.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;

use super::authority::Root;
use super::error::{Doing, HelperError, Result};
use super::user;
use crate::model::{ProcessRef, VmId};
use crate::os::process;

/// How long a killed process may take to end: it may have to give back much memory.
const END_LIMIT: Duration = Duration::from_secs(20);

/// What a process is to its VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The machine monitor.
    Monitor,
    /// Keeps its output.
    Console,
}

/// A process that is watched.
#[derive(Debug)]
struct Watched {
    id: VmId,
    role: Role,
    process: ProcessRef,
    pidfd: OwnedFd,
    child: Option<Child>,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its VM.
    pub id: VmId,
    /// What it was.
    pub role: Role,
    /// How it ended, for people.
    pub status: String,
    /// The same for programs, of a child of this helper.
    pub exit: Option<ExitStatus>,
}

/// All processes that are watched.
#[derive(Debug, Default)]
pub struct Monitors {
    watched: Vec<Watched>,
}

impl Monitors {
    /// Watches a process that was just started; `None` when it has ended already.
    pub fn adopt(&mut self, id: &VmId, role: Role, child: Child) -> Result<Result<ProcessRef, String>> {
        let mut child = child;
        let doing = || format!("watch a process of VM {id}");
        let process = match process::reference(child.id() as i32) {
            Ok(process) => process,
            // Mostly a zombie, and killing one does nothing; one that lives and cannot be looked at
            // must not be waited for.
            Err(_) => {
                child.kill().doing(doing())?;
                return Ok(Err(describe(child.wait().doing(doing())?)));
            }
        };
        match process::open(process).doing(doing())? {
            Some(pidfd) => self.watched.push(Watched { id: id.clone(), role, process, pidfd, child: Some(child) }),
            None => return Ok(Err(describe(child.wait().doing(doing())?))),
        }
        Ok(Ok(process))
    }

    /// Watches a process that an earlier helper started; false when it is gone.
    pub fn find(&mut self, id: &VmId, role: Role, process: ProcessRef) -> Result<bool> {
        let Some(pidfd) = process::open(process).doing(format!("look for a process of VM {id}"))? else {
            return Ok(false);
        };
        self.watched.push(Watched { id: id.clone(), role, process, pidfd, child: None });
        Ok(true)
    }

    /// What to wait on, in the order that [`Monitors::reap`] counts.
    pub fn pidfds(&self) -> Vec<BorrowedFd<'_>> {
        self.watched.iter().map(|w| w.pidfd.as_fd()).collect()
    }

    /// Forgets the process `at`, which has ended.
    pub fn reap(&mut self, at: usize) -> Ended {
        let mut watched = self.watched.remove(at);
        let (status, exit) = match watched.child.as_mut().map(Child::wait) {
            Some(Ok(status)) => (describe(status), Some(status)),
            Some(Err(e)) => (format!("status unknown: {e}"), None),
            None => ("status unknown: an earlier helper started it".to_owned(), None),
        };
        Ended { id: watched.id, role: watched.role, status, exit }
    }

    /// The pidfd and the process of a VM's living monitor.
    pub fn monitor(&self, id: &VmId) -> Option<(BorrowedFd<'_>, ProcessRef)> {
        let found = self.watched.iter().find(|w| w.id == *id && w.role == Role::Monitor)?;
        let ended = process::wait_for_end(&found.pidfd, std::time::Duration::ZERO).unwrap_or(true);
        (!ended).then(|| (found.pidfd.as_fd(), found.process))
    }

    /// Kills a VM's monitor and waits for it and for what keeps its output, which then has all of
    /// it; done when both are gone.
    pub fn end(&mut self, root: &Root, id: &VmId) -> Result<Vec<Ended>> {
        let mut ended = Vec::new();
        for role in [Role::Monitor, Role::Console] {
            while let Some(at) = self.watched.iter().position(|w| w.id == *id && w.role == role) {
                end_one(root, &self.watched[at])?;
                ended.push(self.reap(at));
            }
        }
        Ok(ended)
    }

    /// Waits a moment until what keeps a VM's output has ended by itself.
    pub fn settle(&self, id: &VmId) {
        let console = self.watched.iter().find(|w| w.id == *id && w.role == Role::Console);
        if let Some(console) = console {
            // Whether it ended or not: what it kept so far is what there is.
            let _ = process::wait_for_end(&console.pidfd, Duration::from_secs(1));
        }
    }
}

/// What keeps the output ends by itself once the monitor is gone; it is killed only if it does not.
fn end_one(root: &Root, watched: &Watched) -> Result<()> {
    let doing = || format!("end a process of VM {}", watched.id);
    if watched.role == Role::Console && process::wait_for_end(&watched.pidfd, Duration::from_secs(1)).doing(doing())? {
        return Ok(());
    }
    user::or_as_user_of(root, watched.process.pid, || process::kill(&watched.pidfd)).doing(doing())?;
    if process::wait_for_end(&watched.pidfd, END_LIMIT).doing(doing())? {
        return Ok(());
    }
    Err(HelperError::Unkillable(format!("{} of VM {}", watched.process, watched.id)))
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "status unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeping() -> Child {
        std::process::Command::new("sleep").arg("600").spawn().expect("sleep starts")
    }

    #[test]
    fn a_child_is_watched_ended_and_reaped() {
        let Ok(root) = Root::claim() else { return };
        let (mut monitors, id) = (Monitors::default(), VmId::from_random(5));
        let process = monitors.adopt(&id, Role::Monitor, sleeping()).expect("works").expect("lives");
        assert_eq!(monitors.monitor(&id).map(|(_, p)| p), Some(process));
        assert_eq!(monitors.pidfds().len(), 1);
        let ended = monitors.end(&root, &id).expect("ends");
        assert_eq!((ended.len(), ended[0].status.as_str()), (1, "killed by signal 9"));
        assert!(monitors.monitor(&id).is_none() && !process::is_alive(process));
        assert!(monitors.end(&root, &id).expect("gone already").is_empty());
    }

    #[test]
    fn a_process_of_another_boot_is_not_found() {
        let mut monitors = Monitors::default();
        let own = process::reference(std::process::id() as i32).expect("lives");
        let id = VmId::from_random(6);
        assert!(!monitors.find(&id, Role::Monitor, ProcessRef { boot: own.boot ^ 1, ..own }).expect("works"));
        assert!(monitors.pidfds().is_empty());
    }
}
