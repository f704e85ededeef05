//! What can leak, counted: links, processes, files, rows, rules, cgroups, mounts.
//!
//! Taken before and after, and compared as strictly after as before. Only what belongs to a world
//! is counted: its namespace, its folder, and of the machine's cgroups and mounts those that name it.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use banger::model::ProcessRef;
use banger::os::process;

use crate::world::World;

/// What is there at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    links: Vec<String>,
    processes: Vec<String>,
    files: Vec<PathBuf>,
    rows: Vec<String>,
    rules: Vec<String>,
    ledger: Vec<PathBuf>,
    cgroups: BTreeSet<PathBuf>,
    in_the_parent: Vec<String>,
    mounts: BTreeSet<String>,
    loops: BTreeSet<String>,
}

impl Census {
    /// Counts; daemon and helper must run.
    pub fn take(world: &World) -> Self {
        let mut rows: Vec<String> =
            world.owner().vms().iter().map(|vm| format!("{} {}", vm.spec.name, vm.state)).collect();
        rows.sort();
        let namespace = std::fs::metadata(Path::new("/run/netns").join(world.netns())).ok();
        let mut processes: Vec<String> =
            inhabitants(world.folder(), namespace.as_ref()).iter().map(Inhabitant::description).collect();
        processes.sort();
        Self {
            links: links(world),
            processes,
            files: files_below(&world.home().join("state/vms")),
            rows,
            rules: rules(world),
            ledger: ledger(world),
            cgroups: cgroups_of(&world.home()),
            in_the_parent: in_the_parent(&world.home()),
            mounts: mounts_of(world),
            loops: loops_of(world.folder()),
        }
    }

    /// What `self`, taken later, has more or less than `before`; empty when nothing leaked.
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, now: &dyn std::fmt::Debug, then: &dyn std::fmt::Debug, same: bool| {
            if !same {
                found.push(format!("{what}: before {then:?}, after {now:?}"));
            }
        };
        compare("links", &self.links, &before.links, self.links == before.links);
        compare("processes", &self.processes, &before.processes, self.processes == before.processes);
        compare("files", &self.files, &before.files, self.files == before.files);
        compare("rows", &self.rows, &before.rows, self.rows == before.rows);
        compare("rules", &self.rules, &before.rules, self.rules == before.rules);
        compare("ledger", &self.ledger, &before.ledger, self.ledger == before.ledger);
        compare("in the cgroup of all", &self.in_the_parent, &"none", self.in_the_parent.is_empty());
        let new_cgroups: Vec<_> = self.cgroups.difference(&before.cgroups).collect();
        compare("new cgroups", &new_cgroups, &"none", new_cgroups.is_empty());
        let new_mounts: Vec<_> = self.mounts.difference(&before.mounts).collect();
        compare("new mounts", &new_mounts, &"none", new_mounts.is_empty());
        compare("loop devices", &self.loops, &before.loops, self.loops == before.loops);
        found
    }

    /// The same with the rows and files that VMs have now: what is held for VMs that do not run.
    pub fn with_the_vm(&self, world: &World) -> Self {
        let Self { rows, files, .. } = Self::take(world);
        Self { rows, files, ..self.clone() }
    }

    /// Nothing has leaked since `before`.
    #[track_caller]
    pub fn equals(&self, before: &Self) {
        let found = self.differences(before);
        assert!(found.is_empty(), "something was left behind:\n{}", found.join("\n"));
    }
}

/// Waits until nothing is left beside what was there `before`; shows the last difference if not.
#[track_caller]
pub fn wait_for_equality(world: &World, before: &Census, limit: Duration) {
    let deadline = Instant::now() + limit;
    loop {
        let now = world.census();
        if now.differences(before).is_empty() || Instant::now() > deadline {
            return now.equals(before);
        }
        // What ends here is another process's child and other processes' resources: no single event tells.
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A process that lives in a world.
pub struct Inhabitant {
    process: ProcessRef,
    command: String,
}

impl Inhabitant {
    /// Kills it and waits for its end.
    pub fn kill(&self) {
        if let Ok(Some(pidfd)) = process::open(self.process) {
            process::kill(&pidfd).expect("it can be killed");
            process::wait_for_end(&pidfd, Duration::from_secs(5)).expect("its pidfd can be polled");
        }
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Its program's name and first words, without numbers that differ from start to start.
    pub fn description(&self) -> String {
        let words: Vec<&str> = self.command.split('\0').take(3).collect();
        words.join(" ").chars().filter(|c| !c.is_ascii_digit()).take(60).collect()
    }
}

/// All processes in the network namespace, with something of `folder` open, or of the binary beside
/// `folder`, except this one. One world of a stage is alive at a time.
pub fn inhabitants(folder: &Path, namespace: Option<&Metadata>) -> Vec<Inhabitant> {
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| *pid as u32 != std::process::id())
        .filter(|pid| lives_in(*pid, folder, namespace))
        .filter_map(|pid| {
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            Some(Inhabitant { process: process::reference(pid).ok()?, command })
        })
        .collect()
}

fn lives_in(pid: i32, folder: &Path, namespace: Option<&Metadata>) -> bool {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let own = std::fs::metadata(proc.join("ns/net"));
    let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    if let (Ok(own), Some(namespace)) = (own, namespace)
        && same(&own, namespace)
    {
        return true;
    }
    // A monitor of the tests has a network of its own and opens no file: it runs the stage's binary.
    let binary = folder.parent().map(|stage| stage.join("banger")).unwrap_or_default();
    let runs = std::fs::read_link(proc.join("exe")).unwrap_or_default();
    if runs.to_string_lossy().trim_end_matches(" (deleted)") == binary.to_string_lossy() {
        return true;
    }
    // A jailed one has a network and a root of its own, but is in the installation's cgroups.
    if installation(&folder.join("home")).is_some_and(|number| {
        let group = std::fs::read_to_string(proc.join("cgroup")).unwrap_or_default();
        group.contains(&number)
    }) {
        return true;
    }
    let files = std::fs::read_dir(proc.join("fd")).into_iter().flatten().flatten().map(|e| e.path());
    files.chain([proc.join("cwd")]).any(|link| std::fs::read_link(link).is_ok_and(|to| to.starts_with(folder)))
}

fn links(world: &World) -> Vec<String> {
    let listed = world.tool("ip", &["-o", "link"]).output().ok().text();
    listed.lines().filter_map(|l| l.split(": ").nth(1)).map(|n| n.split('@').next().unwrap_or(n).to_owned()).collect()
}

fn rules(world: &World) -> Vec<String> {
    let listed = world.tool("nft", &["-s", "list", "ruleset"]).output().ok().text();
    listed.lines().map(str::to_owned).collect()
}

/// All files below `folder`, sorted; empty when it is not there.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(folder, &mut |path, is_folder| {
        if !is_folder {
            found.push(path.to_owned());
        }
    });
    found.sort();
    found
}

/// The VMs' cgroups of the installation at `home`.
fn cgroups_of(home: &Path) -> BTreeSet<PathBuf> {
    let Some(installation) = installation(home) else { return BTreeSet::new() };
    let scope = format!("banger-{installation}-");
    let parent = Path::new("banger").join(installation);
    let is_scope = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&scope));
    let mut found = BTreeSet::new();
    walk(Path::new("/sys/fs/cgroup"), &mut |path, is_folder| {
        if is_folder && (is_scope(path) || path.parent().is_some_and(|p| p.ends_with(&parent))) {
            found.insert(path.to_owned());
        }
    });
    found
}

/// What tells the cgroups of the installation at `home` from others'; none before its first start.
fn installation(home: &Path) -> Option<String> {
    let number = std::fs::read_to_string(home.join("root-run/installation")).ok()?;
    Some(number.trim_end().to_owned())
}

/// The helper's records and folders of VMs.
fn ledger(world: &World) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&world.home().join("root-run/vms"), &mut |path, _| found.push(path.to_owned()));
    found.sort();
    found
}

/// Processes in the cgroups that the VMs' cgroups lie in, all installations' and this one's: they hold
/// groups, never a process.
fn in_the_parent(home: &Path) -> Vec<String> {
    let own = installation(home).map(|number| Path::new("banger").join(number));
    let is_parent = |path: &Path| path.ends_with("banger") || own.as_ref().is_some_and(|own| path.ends_with(own));
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), &mut |path, is_folder| {
        if is_folder && is_parent(path) {
            let pids = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            found.extend(pids.lines().map(|pid| format!("{}: {pid}", path.display())));
        }
    });
    found
}

/// Mounts that name the world, and all on /sys, where a stage mounts: in this mount namespace and in
/// that of every process of the world (proc_pid_mountinfo(5); without the numbers).
fn mounts_of(world: &World) -> BTreeSet<String> {
    let namespace = std::fs::metadata(Path::new("/run/netns").join(world.netns())).ok();
    let pids = inhabitants(world.folder(), namespace.as_ref()).into_iter().map(|i| i.pid().to_string());
    let folder = world.folder().to_string_lossy().into_owned();
    let on_sys = |line: &str| line.split(' ').nth(4).is_some_and(|point| Path::new(point).starts_with("/sys"));
    let counts = |line: &&str| line.contains(&folder) || line.contains(world.netns()) || on_sys(line);
    let mut found = BTreeSet::new();
    for pid in pids.chain(["self".to_owned()]) {
        // A process that has ended mounts nothing.
        let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let lines = table.lines().filter(counts);
        let tag = |word: &&str| ["shared:", "master:", "propagate_from:"].iter().any(|t| word.starts_with(t));
        let stays = |line: &str| line.split(' ').skip(3).filter(|w| !tag(w)).collect::<Vec<_>>().join(" ");
        found.extend(lines.map(stays));
    }
    found
}

/// Files below `folder` that a loop device is over (Documentation/ABI/testing/sysfs-block).
fn loops_of(folder: &Path) -> BTreeSet<String> {
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = devices.filter_map(|d| std::fs::read_to_string(d.path().join("loop/backing_file")).ok());
    let folder = folder.to_string_lossy();
    files.filter(|file| file.starts_with(&*folder)).map(|file| file.trim_end().to_owned()).collect()
}

/// Removes the cgroups of the installation at `home`.
pub fn remove_cgroups_of(home: &Path) {
    let mut groups = cgroups_of(home);
    groups.extend(groups.clone().iter().filter_map(|group| group.parent()).map(Path::to_owned));
    for group in groups.iter().rev() {
        // A cgroup that is still in use stays; the next census shows it.
        let _ = std::fs::remove_dir(group);
    }
}

/// `VmRSS` of proc_pid_status(5), in KiB.
pub fn memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Calls `visit` for everything below `folder` that can be seen, folders before their content.
pub fn walk(folder: &Path, visit: &mut dyn FnMut(&Path, bool)) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
        visit(&entry.path(), is_folder);
        if is_folder {
            walk(&entry.path(), visit);
        }
    }
}
