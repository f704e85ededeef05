//! What strace(1) saw of the helper, judged: every file that was changed, made, removed or connected
//! to lies below what is the helper's.
//!
//! The judged are the helper, its stages and `nft`; what a stage becomes has no privilege any more.
//! A stage mounts in a namespace of its own, which is looked for first. A descriptor's path is the
//! kernel's own, as `strace -y` prints it, and not what somebody called it.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Component, Path, PathBuf};

/// For `strace -e trace=`: all that changes a file, a mount or what a process is.
pub const CALLS: &str = "open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,unlink,unlinkat,rmdir,rename,renameat,\
    renameat2,link,linkat,symlink,symlinkat,chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,truncate,ftruncate,\
    fallocate,utime,utimes,utimensat,futimesat,setxattr,lsetxattr,fsetxattr,removexattr,lremovexattr,fremovexattr,\
    mount,umount2,move_mount,open_tree,fsopen,fsmount,mount_setattr,pivot_root,chroot,unshare,setns,bind,connect,\
    execve,execveat,clone,clone3,fork,vfork,init_module,finit_module,delete_module,swapon,swapoff,reboot,kexec_load";

/// What is the helper's.
pub struct Roots {
    /// Its runtime directory.
    pub runtime: PathBuf,
    /// Its folder of disks.
    pub disks: PathBuf,
    /// Its installation.
    pub installation: String,
}

/// What was seen of one process.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Its first argument; empty until its first exec: a child that is about to exec.
    program: String,
    /// What its descriptors lead to, as far as they were shown.
    descriptors: BTreeMap<u32, String>,
    /// It has a mount namespace of its own.
    apart: bool,
    /// Whether it is in a network namespace that it made.
    elsewhere: bool,
    /// A call that has begun.
    begun: String,
}

/// Reads a trace and keeps what is wrong with it.
pub struct Judge {
    roots: Roots,
    processes: BTreeMap<u32, Seen>,
    /// Lines that broke a rule, and which.
    pub violations: Vec<String>,
    /// Calls that succeeded and were judged.
    pub judged: u64,
    /// How often each root was touched.
    pub touched: BTreeMap<&'static str, u64>,
}

impl Judge {
    /// One with nothing seen.
    pub fn new(roots: Roots) -> Self {
        Self { roots, processes: BTreeMap::new(), violations: Vec::new(), judged: 0, touched: BTreeMap::new() }
    }

    /// Reads all of a trace.
    pub fn read(&mut self, trace: impl BufRead) {
        for line in trace.split(b'\n') {
            self.line(&String::from_utf8_lossy(&line.expect("the trace can be read")));
        }
    }

    /// Reads one line of `strace -f -y -o`.
    pub fn line(&mut self, line: &str) {
        let Some((pid, rest)) = line.trim_start().split_once(' ') else { return };
        let Ok(pid) = pid.parse::<u32>() else { return self.wrong(line, "it cannot be read") };
        let rest = rest.trim_start();
        if rest.starts_with("+++") {
            self.processes.remove(&pid);
            return;
        }
        let seen = self.processes.entry(pid).or_default();
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            seen.begun = begun.trim_end().to_owned();
            return;
        }
        let whole = match rest.strip_prefix("<... ").and_then(|r| r.split_once(" resumed>")) {
            Some((_, end)) => std::mem::take(&mut seen.begun) + end,
            None => rest.to_owned(),
        };
        if whole.starts_with("---") {
            return;
        }
        let Some(call) = Call::parse(&whole) else { return self.wrong(line, "it cannot be read") };
        for (number, path) in call.shown() {
            seen.descriptors.insert(number, path);
        }
        let mut now = seen.clone();
        // What failed has touched nothing; an exec that failed leaves the process what it was.
        if !call.failed {
            let verdict = self.judge(&mut now, &call);
            if !matches!(now.program.as_str(), "" | "bangerd-root" | "banger-stage" | "nft") {
                // It has become what has no privilege; nothing is kept of it but what it is.
                now.descriptors.clear();
            }
            if let Err(why) = verdict {
                self.wrong(line, &why);
            }
        }
        self.processes.insert(pid, now);
    }

    fn wrong(&mut self, line: &str, why: &str) {
        if self.violations.len() < 20 {
            self.violations.push(format!("{why}: {line}"));
        }
    }

    fn judge(&mut self, seen: &mut Seen, call: &Call) -> Result<(), String> {
        match call.name.as_str() {
            "execve" | "execveat" => return become_program(seen, call),
            // Known as its parent's until it execs; one that was seen first is taken for the helper's.
            "clone" | "clone3" | "fork" | "vfork" => {
                let child = call.result.parse().map(|pid| self.processes.entry(pid).or_default());
                if let Ok(child) = child.map_err(|_| ()).and_then(|c| c.program.is_empty().then_some(c).ok_or(()))
                    && seen.program != "bangerd-root"
                {
                    child.program.clone_from(&seen.program);
                }
                return Ok(());
            }
            _ => {}
        }
        if !matches!(seen.program.as_str(), "" | "bangerd-root" | "banger-stage" | "nft") {
            return Ok(());
        }
        self.judged += 1;
        let at = |index: usize| call.arguments.get(index).map_or("", String::as_str);
        match call.name.as_str() {
            "unshare" => {
                seen.apart |= at(0).contains("CLONE_NEWNS");
                seen.elsewhere |= at(0).contains("CLONE_NEWNET");
                Ok(())
            }
            // Back home; and a stage into the network that was made for it.
            "setns" if at(1) == "CLONE_NEWNET" && (seen.elsewhere || seen.program == "banger-stage") => {
                seen.elsewhere = false;
                Ok(())
            }
            // A filesystem in memory that is attached nowhere.
            "fsopen" if at(0) == "\"tmpfs\"" => Ok(()),
            "fsmount" => Ok(()),
            "mount" | "umount2" | "pivot_root" | "move_mount" => mounts(seen, call),
            // Held so that nobody else has the port; nothing is ever read from it.
            "bind" if at(1).contains("sa_family=AF_INET,") && seen.program == "bangerd-root" => {
                *self.touched.entry("ports of the host").or_default() += 1;
                Ok(())
            }
            "bind" | "connect" => self.address(seen, at(1)),
            "open" | "creat" | "openat" | "openat2" => {
                let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_TMPFILE"];
                let flags = call.arguments.iter().skip(1).any(|a| writes.iter().any(|w| a.contains(w)));
                if call.name != "creat" && !flags { Ok(()) } else { self.path(seen, &call.result_path()?) }
            }
            "mkdir" | "mknod" | "unlink" | "rmdir" | "chmod" | "chown" | "lchown" | "truncate" | "utime" | "utimes"
            | "setxattr" | "lsetxattr" | "removexattr" | "lremovexattr" => self.named(seen, None, at(0)),
            "mkdirat" | "mknodat" | "unlinkat" | "fchmodat" | "fchownat" | "futimesat" | "utimensat" => {
                self.named(seen, Some(at(0)), at(1))
            }
            "rename" | "link" => self.named(seen, None, at(0)).and_then(|()| self.named(seen, None, at(1))),
            "renameat" | "renameat2" | "linkat" => {
                self.named(seen, Some(at(0)), at(1)).and_then(|()| self.named(seen, Some(at(2)), at(3)))
            }
            "symlink" => self.named(seen, None, at(1)),
            "symlinkat" => self.named(seen, Some(at(1)), at(2)),
            "fchmod" | "fchown" | "ftruncate" | "fallocate" | "fsetxattr" | "fremovexattr" => {
                let (_, path) = descriptor(at(0)).ok_or("its descriptor is not shown")?;
                self.path(seen, &path)
            }
            other => Err(format!("{other} is no deed of the helper's")),
        }
    }

    /// A path by name, in a folder by descriptor or not.
    fn named(&mut self, seen: &Seen, folder: Option<&str>, name: &str) -> Result<(), String> {
        let folder = folder.and_then(|f| Some(descriptor(f)?.1).or_else(|| at_cwd(f)));
        if name == "NULL" {
            return self.path(seen, &folder.ok_or("its descriptor is not shown")?);
        }
        let name = unquoted(name).ok_or("its path is not whole")?;
        let path = match (name.strip_prefix("/proc/self/fd/").and_then(|r| r.split_once('/')), folder) {
            (Some((number, rest)), _) => {
                let number = number.parse().map_err(|_| "no descriptor".to_owned())?;
                let folder = seen.descriptors.get(&number).ok_or("its descriptor was never shown")?;
                format!("{folder}/{rest}")
            }
            (None, _) if name.starts_with('/') => name,
            (None, Some(folder)) => format!("{folder}/{name}"),
            (None, None) => return Err("a relative path".into()),
        };
        self.path(seen, &path)
    }

    fn path(&mut self, seen: &Seen, path: &str) -> Result<(), String> {
        let root = allowed(&self.roots, seen, path).ok_or_else(|| format!("{path} is not the helper's"))?;
        *self.touched.entry(root).or_default() += 1;
        Ok(())
    }

    fn address(&mut self, seen: &Seen, address: &str) -> Result<(), String> {
        if address.contains("sa_family=AF_NETLINK") {
            return Ok(());
        }
        let Some((_, name)) = address.split_once("sun_path=") else {
            return Err("it speaks to the network".into());
        };
        let name = name.trim_end_matches('}');
        match name {
            "@\"bangerd-root-network\"" => Ok(()),
            // Where systemd makes the scopes.
            "\"/run/systemd/private\"" => Ok(()),
            path => self.named(seen, None, path),
        }
    }
}

/// What a process may become: the helper's children are its stages and `nft`, and a stage becomes
/// what the helper names.
fn become_program(seen: &mut Seen, call: &Call) -> Result<(), String> {
    let list = if call.name == "execve" { 1 } else { 2 };
    let words: Vec<String> = call.arguments.get(list).map(|l| list_of(l)).unwrap_or_default();
    let path = call.arguments.first().and_then(|p| unquoted(p)).unwrap_or_default();
    let first = words.first().map_or("", String::as_str);
    let program = first.rsplit('/').next().unwrap_or(first).to_owned();
    let is_helper = words.iter().any(|w| w == "bangerd-root");
    let fine = match (seen.program.as_str(), program.as_str()) {
        ("", _) if is_helper => true,
        ("" | "bangerd-root", "banger-stage") => path == "/proc/self/exe",
        ("" | "bangerd-root", "nft") => match words.get(1..).unwrap_or_default() {
            [file, input] => (file.as_str(), input.as_str()) == ("-f", "-"),
            [json, numbers, list] => (json.as_str(), numbers.as_str()) == ("-j", "-n") && only_lists(list),
            _ => false,
        },
        ("banger-stage", "banger-console" | "banger-fake-vmm") => path.starts_with("/proc/self/fd/"),
        ("banger-stage", program) => program.starts_with("qemu-system-"),
        // Without privilege.
        (from, _) => !matches!(from, "" | "bangerd-root" | "nft"),
    };
    seen.program = if is_helper { "bangerd-root".to_owned() } else { program.clone() };
    if fine { Ok(()) } else { Err(format!("{path} is no program of the helper's")) }
}

/// Mounts are a stage's, in a namespace of its own, on the new root that it puts together.
/// The chains, or one set or counter of banger's own.
fn only_lists(command: &str) -> bool {
    let own = ["list set inet banger ", "list counter inet banger "];
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    command == "list chains" || own.iter().any(|own| command.strip_prefix(own).is_some_and(plain))
}

fn mounts(seen: &Seen, call: &Call) -> Result<(), String> {
    if seen.program != "banger-stage" || !seen.apart {
        return Err("it mounts where others see it".into());
    }
    let index = match call.name.as_str() {
        "mount" => 1,
        "move_mount" => 3,
        _ => 0,
    };
    let target = call.arguments.get(index).and_then(|a| unquoted(a)).unwrap_or_default();
    let fine = matches!(target.as_str(), "/" | "." | "/sys" | "/tmp")
        || below_its_own(&target) && is_plain(Path::new(&target));
    if fine { Ok(()) } else { Err(format!("it mounts on {target}")) }
}

/// The empty root that a stage puts together, and its jail.
fn below_its_own(target: &str) -> bool {
    target.starts_with("/sys/") || target.starts_with("/tmp/firecracker/")
}

/// Under which root `path` lies.
fn allowed(roots: &Roots, seen: &Seen, path: &str) -> Option<&'static str> {
    // A file that has no name any more had one when it was opened.
    let path = path.strip_suffix(" (deleted)").or_else(|| path.strip_suffix("(deleted)")).unwrap_or(path);
    let kinds = [("/memfd:", "memory"), ("pipe:[", "a pipe"), ("socket:[", "a socket")];
    if let Some((_, kind)) = kinds.into_iter().find(|(prefix, _)| path.starts_with(prefix)) {
        return Some(kind);
    }
    // A folder that is the root of its mount, and what is in it.
    let path = path.strip_prefix('/').filter(|p| p.starts_with('/')).unwrap_or(path);
    let path = Path::new(path);
    if !path.is_absolute() || !is_plain(path) {
        return None;
    }
    let parts: Vec<&str> = path.iter().skip(1).filter_map(|p| p.to_str()).collect();
    match parts.as_slice() {
        _ if path.starts_with(&roots.runtime) => Some("the runtime directory"),
        _ if path.starts_with(&roots.disks) => Some("the folder of disks"),
        // Nothing is called so on this host: it is the jail, whose mount is attached nowhere.
        ["firecracker", ..] if !Path::new("/firecracker").exists() => Some("a jail"),
        ["tmp", "firecracker", ..] if seen.apart && seen.program == "banger-stage" => Some("a jail"),
        ["dev", "loop-control"] => Some("loop devices"),
        ["dev", "mapper", "control"] => Some("device-mapper"),
        ["dev", device] if is_loop(device) => Some("loop devices"),
        ["proc", "sys", "net", "ipv6", "conf", "all" | "default", "disable_ipv6"] if seen.elsewhere => {
            Some("a network of its own")
        }
        // In its own mount namespace this is the empty root that it puts together.
        ["sys", ..] if seen.apart && seen.program == "banger-stage" => Some("a stage's own root"),
        ["sys", "fs", "cgroup", rest @ ..] => is_own_cgroup(roots, rest).then_some("its cgroups"),
        // With what the kernel changes along with it, put back.
        ["proc", "sys", "net", "ipv4", "ip_forward"]
        | ["proc", "sys", "net", "ipv4", "conf", "all", "accept_redirects"]
        | ["proc", "sys", "net", "ipv4", "conf", _, "forwarding"] => Some("whether the host forwards"),
        ["proc", "sys", "net", "ipv4" | "ipv6", "conf", link, _] => is_own_link(link).then_some("its links' settings"),
        ["dev", "null"] => Some("/dev/null"),
        ["dev", "net", "tun"] => Some("/dev/net/tun"),
        _ => None,
    }
}

/// `[HIERARCHY/]banger/INSTALLATION/…`, its parent, and the file that hands controllers down.
fn is_own_cgroup(roots: &Roots, rest: &[&str]) -> bool {
    let own = match rest {
        ["banger", own @ ..] | [_, "banger", own @ ..] => own,
        ["cgroup.subtree_control"] | [_, "cgroup.subtree_control"] => return true,
        _ => return false,
    };
    match own {
        [] | ["cgroup.subtree_control"] => true,
        [installation, ..] => *installation == roots.installation,
    }
}

fn is_loop(device: &str) -> bool {
    device.strip_prefix("loop").is_some_and(|number| number.parse::<u32>().is_ok())
}

fn is_own_link(link: &str) -> bool {
    let slot = |number: &str| number.parse::<u8>().is_ok_and(|n| (1..=250).contains(&n) && n.to_string() == number);
    link == "br-banger" || link.strip_prefix("bng-").is_some_and(slot)
}

fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// One call of a trace.
struct Call {
    name: String,
    arguments: Vec<String>,
    result: String,
    failed: bool,
}

impl Call {
    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once('(')?;
        let (arguments, rest) = split(rest)?;
        let result = rest.trim_start().strip_prefix('=')?.trim_start().to_owned();
        // `?`: the process ended within the call.
        let failed = result.starts_with('-') || result.starts_with('?');
        Some(Self { name: name.to_owned(), arguments, result, failed })
    }

    /// The descriptors that it shows, with what they lead to.
    fn shown(&self) -> Vec<(u32, String)> {
        self.arguments.iter().chain([&self.result]).filter_map(|a| descriptor(a)).collect()
    }

    fn result_path(&self) -> Result<String, String> {
        descriptor(&self.result).map(|(_, path)| path).ok_or_else(|| "what it opened is not shown".to_owned())
    }
}

/// The arguments up to the closing parenthesis, and what is behind it.
fn split(text: &str) -> Option<(Vec<String>, &str)> {
    let (mut arguments, mut current) = (Vec::new(), String::new());
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '[' | '{' | '(' | '<' => depth += 1,
            ')' if depth == 0 => {
                if !current.trim().is_empty() {
                    arguments.push(current.trim().to_owned());
                }
                return Some((arguments, &text[at + 1..]));
            }
            // `->` and `=>` close nothing.
            ']' | '}' | ')' => depth -= 1,
            '>' if depth > 0 => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(std::mem::take(&mut current).trim().to_owned());
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    None
}

/// `N</path>`.
fn descriptor(text: &str) -> Option<(u32, String)> {
    let (number, rest) = text.split_once('<')?;
    let path = rest.rfind('>').map(|end| &rest[..end])?;
    let deleted = if rest.ends_with("(deleted)") { " (deleted)" } else { "" };
    Some((number.parse().ok()?, format!("{path}{deleted}")))
}

/// `AT_FDCWD</path>`.
fn at_cwd(text: &str) -> Option<String> {
    Some(text.strip_prefix("AT_FDCWD<")?.strip_suffix('>')?.to_owned())
}

/// A whole string, without its quotes. One that strace has cut or escaped is none.
fn unquoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('\\')).then(|| inner.to_owned())
}

fn list_of(text: &str) -> Vec<String> {
    let inner = text.trim_start_matches('[').trim_end_matches(']');
    split(&format!("{inner})")).map(|(words, _)| words).unwrap_or_default().iter().filter_map(|w| unquoted(w)).collect()
}

/// The judge passes what a helper does, and sees each planted deed.
pub fn judges_rightly() {
    let judged = |lines: &[&str]| {
        let mut judge = Judge::new(Roots {
            runtime: "/h/root-run".into(),
            disks: "/h/root-state".into(),
            installation: "00aa".into(),
        });
        lines.iter().for_each(|line| judge.line(line));
        judge.violations
    };
    let helper = [
        r#"1 execve("/b/banger", ["/b/banger", "--as", "bangerd-root", "--owner", "0"], 0x7f /* 3 vars */) = 0"#,
        r#"1 openat(3</h>, "root-run", O_RDONLY|O_NOFOLLOW|O_CLOEXEC|O_DIRECTORY) = 4</h/root-run>"#,
    ];
    let stage = [
        r#"2 execve("/proc/self/exe", ["banger-stage", "7", "bare"], 0x7f /* 0 vars */ <unfinished ...>"#,
        r#"1 open("/dev/null", O_RDWR|O_LARGEFILE|O_CLOEXEC) = 13</dev/null>"#,
        "2 <... execve resumed>) = 0",
    ];
    let apart = "2 unshare(CLONE_NEWNS|CLONE_NEWNET) = 0";
    let fine = [
        r#"1 open("/proc/self/fd/4/x", O_WRONLY|O_CREAT, 0600) = 5</h/root-run/x>"#,
        r#"1 rename("/proc/self/fd/4/a", "/proc/self/fd/4/vms/b") = 0"#,
        r#"1 open("/etc/passwd", O_RDONLY) = 5</etc/passwd>"#,
        r#"1 open("/etc/passwd", O_WRONLY) = -1 EACCES (Permission denied)"#,
        r#"1 bind(7<socket:[3]>, {sa_family=AF_UNIX, sun_path="/proc/self/fd/4/s"}, 36) = 0"#,
        r#"1 connect(7<socket:[3]>, {sa_family=AF_UNIX, sun_path=@"bangerd-root-network"}, 36) = 0"#,
        r#"1 connect(7<socket:[3]>, {sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}, 12) = 0"#,
        r#"1 mkdir("/sys/fs/cgroup/memory/banger/00aa", 0777) = 0"#,
        r#"1 open("/proc/sys/net/ipv4/conf/bng-250/x", O_WRONLY) = 5</proc/sys/net/ipv4/conf/bng-250/x>"#,
        r#"1 open("/proc/sys/net/ipv4/ip_forward", O_WRONLY) = 5</proc/sys/net/ipv4/ip_forward>"#,
        r#"1 open("/proc/sys/net/ipv4/conf/all/accept_redirects", O_WRONLY) = 5</proc/sys/net/ipv4/conf/all/accept_redirects>"#,
        r#"1 bind(7<socket:[3]>, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("0.0.0.0")}, 16) = 0"#,
        r#"3 execve("/usr/sbin/nft", ["/usr/sbin/nft", "-j", "-n", "list set inet banger reached-port-7"], 0x7f /* 0 vars */) = 0"#,
        r#"1 ftruncate(5</memfd:x (deleted)>, 1) = 0"#,
        r#"1 unlinkat(5</h/root-run/vms/0123>, "record", 0) = 0"#,
    ];
    assert_eq!(judged(&[&helper[..], &fine].concat()), [""; 0]);
    let becomes = [
        apart,
        r#"2 mount("tmpfs", "/sys", "tmpfs", MS_NOSUID, "mode=0755,size=1m") = 0"#,
        r#"2 mkdir("/sys/proc", 0777) = 0"#,
        r#"2 pivot_root(".", ".") = 0"#,
        r#"2 execve("/proc/self/fd/3", ["banger-console", "20", "21", "23"], 0x7f /* 0 vars */) = 0"#,
    ];
    assert_eq!(judged(&[&helper[..], &stage, &becomes].concat()), [""; 0]);
    let jail = [
        "1 unshare(CLONE_NEWNET) = 0",
        r#"1 open("/proc/sys/net/ipv6/conf/all/disable_ipv6", O_WRONLY) = 5</proc/sys/net/ipv6/conf/all/disable_ipv6>"#,
        "1 setns(5<net:[1]>, CLONE_NEWNET) = 0",
        r#"1 fsopen("tmpfs", FSOPEN_CLOEXEC) = 6<anon_inode:[fscontext]>"#,
        r#"1 mkdirat(7</>, "firecracker", 0755) = 0"#,
    ];
    assert_eq!(judged(&[&helper[..], &jail].concat()), [""; 0]);
    let planted: [&[&str]; 28] = [
        &[jail[1]],
        &[jail[0], jail[2], jail[1]],
        &[r#"1 fsopen("ext4", FSOPEN_CLOEXEC) = 6<anon_inode:[fscontext]>"#],
        &[r#"1 move_mount(6</>, "", AT_FDCWD, "/tmp", MOVE_MOUNT_F_EMPTY_PATH) = 0"#],
        &[r#"1 open("/etc/passwd", O_WRONLY|O_APPEND) = 5</etc/passwd>"#],
        &[r#"1 open("/proc/self/fd/4/x", O_WRONLY) = 5</etc/shadow>"#],
        &[r#"1 openat(4</h/root-run>, "../x", O_RDONLY|O_CREAT) = 5</h/x>"#],
        &[r#"1 unlinkat(4</h/root-run>, "../x", 0) = 0"#],
        &[r#"1 unlinkat(5</h>, "x", 0) = 0"#],
        &[r#"1 unlink("x") = 0"#],
        &[r#"1 rename("/proc/self/fd/4/a", "/h/b") = 0"#],
        &[r#"1 linkat(5</etc>, "shadow", 4</h/root-run>, "x", 0) = 0"#],
        &[r#"1 mkdir("/h/root-run-2", 0700) = 0"#],
        &[r#"1 mkdir("/proc/self/fd/9/x", 0700) = 0"#],
        &[r#"1 fchmod(9</dev/kvm>, 0666) = 0"#],
        &[r#"1 mkdir("/sys/fs/cgroup/banger/00ab", 0700) = 0"#],
        &[r#"1 open("/proc/sys/net/ipv4/conf/eth0/x", O_WRONLY) = 5</proc/sys/net/ipv4/conf/eth0/x>"#],
        &[r#"1 connect(7<socket:[3]>, {sa_family=AF_UNIX, sun_path="/run/docker.sock"}, 36) = 0"#],
        &[
            r#"1 connect(7<socket:[3]>, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("1.2.3.4")}, 16) = 0"#,
        ],
        &[r#"1 mount("tmpfs", "/sys", "tmpfs", 0, "") = 0"#],
        &[r#"1 delete_module("x", 0) = 0"#],
        &[r#"1 open("/proc/sys/net/ipv4/ip_local_port_range", O_WRONLY) = 5</proc/sys/net/ipv4/ip_local_port_range>"#],
        &[r#"3 execve("/usr/sbin/nft", ["/usr/sbin/nft", "-j", "-n", "flush ruleset"], 0x7f /* 0 vars */) = 0"#],
        &[
            stage[0],
            stage[2],
            r#"2 bind(7<socket:[3]>, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("0.0.0.0")}, 16) = 0"#,
        ],
        &[r#"9 execve("/bin/sh", ["sh", "-c", "x"], 0x7f /* 0 vars */) = 0"#],
        &[r#"1 unlink("/etc/x" <unfinished ...>"#, "1 <... unlink resumed>) = 0"],
        &[stage[0], stage[2], r#"2 mount("tmpfs", "/sys", "tmpfs", 0, "") = 0"#],
        &[stage[0], stage[2], apart, r#"2 mount("/dev", "/etc", NULL, MS_BIND, NULL) = 0"#],
    ];
    for lines in planted {
        assert_eq!(judged(&[&helper[..], lines].concat()).len(), 1, "not seen: {lines:?}");
    }
}
