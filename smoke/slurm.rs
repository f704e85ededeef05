//! A node of Slurm whose tasks are VMs: their exit codes arrive, and no end of a task leaves a VM.
//!
//! Controller, node and munge are the distribution's, with files of their own, on the loopback of
//! the scenario's network namespace. `src/cli/FLEETS.md` says what is shown here.

use std::collections::{BTreeMap, HashMap};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::census::{Census, wait_for_equality};
use crate::command::{Output, Running};
use crate::daemons::end;
use crate::exec::BOOT;
use crate::world::World;

/// A line per task of the array, and the exit code that the scheduler has to tell of it.
const TASKS: [(&str, u8); 20] = [
    ("true", 0),
    ("exit 1", 1),
    ("exit 42", 42),
    ("kill -TERM $$", 143),
    ("echo done", 0),
    ("exit 2", 2),
    ("exit 255", 255),
    ("kill -KILL $$", 137),
    ("test -d /etc", 0),
    ("cat /nothing", 1),
    ("exit 3", 3),
    ("/nothing", 127),
    ("/etc/passwd", 126),
    ("uname", 0),
    ("kill -HUP $$", 129),
    ("exit 64", 64),
    ("sleep 1", 0),
    ("exit 7", 7),
    ("exit 100", 100),
    ("exit 254", 254),
];

/// Memory of a task, and of its VM, in MiB.
const MEMORY: usize = 256;

/// Task N of an array is line N of a file.
const ARRAY: &str = r#"#!/bin/sh
command=$(sed -n "${SLURM_ARRAY_TASK_ID}p" tasks)
exec banger vm run --rm --vcpu "$SLURM_CPUS_PER_TASK" --memory "$SLURM_MEM_PER_NODE" -- sh -c "$command"
"#;

/// Does not end by itself.
const LONG: &str = r#"#!/bin/sh
exec banger vm run --rm --memory "$SLURM_MEM_PER_NODE" -- sh -c 'echo begun; exec sleep 300'
"#;

/// The second task's image is not there the first time: banger fails, and the task is begun again. It
/// is the one whose number as a job is also the whole array's, which is not what shall begin again.
const AGAIN: &str = r#"#!/bin/sh
image=debian-bookworm
[ "$SLURM_ARRAY_TASK_ID" = 1 ] || [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || image=not-here-yet
banger vm run --rm --memory "$SLURM_MEM_PER_NODE" --image "$image" -- sh -c 'exit 42'
code=$?
if [ "$code" = 125 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
"#;

/// States of a job that has not ended.
const GOES_ON: [&str; 4] = ["PENDING", "CONFIGURING", "RUNNING", "COMPLETING"];

/// How long cleaning up may take that no command waits for.
const CLEANING: Duration = Duration::from_secs(20);

/// An array of tasks with all kinds of ends; one that is cancelled, one whose command line is killed,
/// one that is begun again.
pub fn tasks_end_as_their_commands(world: &World) {
    let before = world.start_and_count();
    let site = Site::start(world);
    let idle = world.census();
    site.array();
    wait_for_equality(world, &idle, CLEANING);
    site.cancelled(&idle);
    site.killed(&idle);
    site.begun_again();
    wait_for_equality(world, &idle, CLEANING);
    site.stop();
    wait_for_equality(world, &before, CLEANING);
}

/// The fields of a job, as `scontrol` tells them.
type Job = HashMap<String, String>;

/// A controller, one node of as many processors as this machine has, and the munge of both.
struct Site {
    world: World,
    folder: PathBuf,
    daemons: Vec<Running>,
}

impl Site {
    fn start(world: &World) -> Self {
        let folder = world.folder().join("slurm");
        prepare(&folder);
        // Names, and addresses as well, are looked up only in a namespace with an address that is not
        // 127.0.0.1 (AI_ADDRCONFIG, getaddrinfo(3)).
        world.tool("ip", &["addr", "add", "127.0.0.2/8", "dev", "lo"]).output().ok();
        let beside = world.binary().parent().expect("a folder").display().to_string();
        let path = std::env::var("PATH").expect("a PATH of text");
        let world = world.with("SLURM_CONF", &folder.join("slurm.conf").display().to_string());
        let world = world.with("PATH", &format!("{beside}:{path}"));
        let mut site = Self { world, folder, daemons: Vec::new() };
        site.begin("munged", &munge_flags(&site.folder));
        let socket = site.folder.join("munge.socket");
        site.wait_until("munged does not listen", || socket.exists());
        // Each believes to be on a machine called `node`, whatever this one's name is.
        for daemon in ["slurmctld -D -i", "slurmd -D"] {
            let script = format!("hostname node && exec {daemon}");
            site.begin("unshare", &["--uts", "sh", "-c", &script].map(str::to_owned));
        }
        site.wait_until("the node is not ready", || site.tell("sinfo", &["-h", "-o", "%t"]).text() == "idle");
        site
    }

    fn begin(&mut self, program: &str, arguments: &[String]) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.daemons.push(self.world.tool(program, &arguments).limit(900).spawn());
    }

    /// The last one first; each ends by itself, with 0.
    fn stop(mut self) {
        while let Some(daemon) = self.daemons.pop() {
            daemon.signal(Signal::TERM);
            daemon.wait().ok();
        }
    }

    fn tell(&self, program: &str, arguments: &[&str]) -> Output {
        self.world.tool(program, arguments).output()
    }

    /// `sbatch` of `script`, whose output goes to files called `output` and, in an array, its task's number.
    fn submit(&self, script: &str, more: &[&str]) -> String {
        let memory = format!("--mem={MEMORY}M");
        let words = [&["--parsable", "--cpus-per-task=1", &memory, "--open-mode=append"], more].concat();
        self.world.tool("sbatch", &words).input(script).output().ok().text()
    }

    /// The job `id`, or all tasks of that array.
    fn jobs(&self, id: &str) -> Vec<Job> {
        let told = self.tell("scontrol", &["-o", "show", "job", id]).ok().text();
        told.lines().map(fields).collect()
    }

    fn wait_for_end(&self, id: &str, tasks: usize) -> Vec<Job> {
        let mut jobs = Vec::new();
        self.wait_until("a job does not end", || {
            jobs = self.jobs(id);
            jobs.len() == tasks && jobs.iter().all(|job| !GOES_ON.contains(&job["JobState"].as_str()))
        });
        jobs
    }

    /// Somebody else's programs, whose states no event of ours tells.
    #[track_caller]
    fn wait_until(&self, otherwise: &str, mut reached: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(2 * BOOT);
        while !reached() {
            assert!(Instant::now() < deadline, "{otherwise}\n{}", self.report());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What the scheduler knows and has logged.
    fn report(&self) -> String {
        let jobs = self.tell("scontrol", &["-o", "show", "job"]).text();
        let logs = ["ctld.log", "d.log"].map(|log| std::fs::read_to_string(self.folder.join(log)).unwrap_or_default());
        let tails = logs.map(|log| {
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(20)..].join("\n")
        });
        format!("{jobs}\n{}", tails.join("\n"))
    }

    /// Every task's exit code is its guest command's, in the job's state and in what is kept of it.
    fn array(&self) {
        let lines: String = TASKS.iter().map(|(command, _)| format!("{command}\n")).collect();
        std::fs::write(self.world.person().join("tasks"), lines).expect("written");
        let begun = Instant::now();
        let id = self.submit(ARRAY, &["--array=1-20", "--output=task.%a"]);
        let jobs = self.wait_for_end(&id, TASKS.len());
        let taken = begun.elapsed().as_secs_f64();
        let expected: BTreeMap<usize, String> =
            TASKS.iter().enumerate().map(|(number, (_, code))| (number + 1, told_of(*code))).collect();
        let number = |job: &Job| job["ArrayTaskId"].parse().expect("a number");
        let told: BTreeMap<usize, String> = jobs.iter().map(|job| (number(job), end_of(job))).collect();
        assert_eq!(told, expected, "in the jobs' states\n{}", self.outputs());
        let by_id: BTreeMap<String, String> = jobs.iter().map(|job| (job["JobId"].clone(), end_of(job))).collect();
        self.wait_until("not all ends are in sacct", || self.accounted().len() == TASKS.len());
        assert_eq!(self.accounted(), by_id, "in sacct");
        let (tasks, at_once) = (TASKS.len(), processors());
        let per_task = taken / tasks as f64;
        println!("| an array of {tasks} tasks, {at_once} at a time | {taken:.1} s | {per_task:.1} s per task |");
        println!("| exit codes as expected | {tasks} in the jobs' states | {tasks} in sacct |");
    }

    /// State and exit code of every job that has ended, by its number, in the words of `sacct`.
    fn accounted(&self) -> BTreeMap<String, String> {
        let told = self.tell("sacct", &["-c", "-n", "-P", "-o", "jobid,state,exitcode"]).ok().text();
        let lines = told.lines().filter_map(|line| line.split_once('|'));
        lines.map(|(id, end)| (id.to_owned(), end.replace('|', " "))).collect()
    }

    fn outputs(&self) -> String {
        let said = |number| std::fs::read_to_string(self.world.person().join(format!("task.{number}")));
        (1..=TASKS.len()).map(|number| format!("{number}: {}", said(number).unwrap_or_default())).collect()
    }

    /// A task whose guest command runs.
    fn begun(&self, output: &str) -> String {
        let id = self.submit(LONG, &[&format!("--output={output}")]);
        let file = self.world.person().join(output);
        let has_begun = || std::fs::read_to_string(&file).is_ok_and(|said| said.contains("begun"));
        self.wait_until("the guest command does not begin", has_begun);
        id
    }

    /// `scancel` while the guest command runs.
    fn cancelled(&self, idle: &Census) {
        let id = self.begun("cancelled");
        let at = Instant::now();
        self.tell("scancel", &[&id]).ok();
        self.gone(at, "scancel");
        let end = end_of(&self.wait_for_end(&id, 1)[0]);
        assert!(end.starts_with("CANCELLED"), "{end}");
        wait_for_equality(&self.world, idle, CLEANING);
    }

    /// The task's command line is killed, and can clean nothing up.
    fn killed(&self, idle: &Census) {
        let id = self.begun("killed");
        let vm = self.world.owner().vms().pop().expect("a VM");
        let at = Instant::now();
        end(vm.keeper.expect("a VM with a keeper").pid);
        self.gone(at, "kill -9 of the task's banger");
        assert_eq!(end_of(&self.wait_for_end(&id, 1)[0]), "FAILED 0:9");
        wait_for_equality(&self.world, idle, CLEANING);
    }

    fn gone(&self, since: Instant, after: &str) {
        self.wait_until("the VM stays", || self.world.owner().vms().is_empty());
        println!("| {after} | no VM after {:.1} s |", since.elapsed().as_secs_f64());
    }

    /// 125 begins that task once more, and no other; the guest command's own exit code does not.
    fn begun_again(&self) {
        let id = self.submit(AGAIN, &["--array=1-2", "--output=again.%a"]);
        let jobs = self.wait_for_end(&id, 2);
        let mut ends: Vec<String> = jobs.iter().map(|job| format!("{} {}", job["Restarts"], end_of(job))).collect();
        ends.sort();
        assert_eq!(ends, ["0 FAILED 42:0", "1 FAILED 42:0"], "{}", self.report());
        println!("| exit code 125 of one task the first time | that one begun again | {} |", ends[1]);
    }
}

/// `KEY=VALUE KEY=VALUE…`; a value with blanks in it is of no interest here.
fn fields(line: &str) -> Job {
    line.split(' ').filter_map(|word| word.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// State and exit code, as `scontrol` and `sacct` write them: the code, and the signal that ended the job.
fn end_of(job: &Job) -> String {
    format!("{} {}", job["JobState"], job["ExitCode"])
}

fn told_of(code: u8) -> String {
    let state = if code == 0 { "COMPLETED" } else { "FAILED" };
    format!("{state} {code}:0")
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

fn munge_flags(folder: &Path) -> Vec<String> {
    let files = ["key-file=munge.key", "socket=munge.socket", "pid-file=munge.pid", "seed-file=munge.seed"];
    let flags = files.iter().filter_map(|flag| flag.split_once('='));
    let mut flags: Vec<String> =
        flags.map(|(flag, file)| format!("--{flag}={}", folder.join(file).display())).collect();
    flags.push("--foreground".into());
    flags
}

/// The folder of controller and node, with what they and munge read.
fn prepare(folder: &Path) {
    // munged looks at the modes of its key and of the folders above its socket.
    for path in [folder.to_owned(), folder.join("ctld"), folder.join("d")] {
        std::fs::create_dir(&path).expect("made");
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("set");
    }
    let key = folder.join("munge.key");
    let bytes: Vec<u8> = (0..16).flat_map(|_| banger::os::random::number().to_le_bytes()).collect();
    std::fs::write(&key, bytes).expect("written");
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("set");
    std::fs::write(folder.join("slurm.conf"), configuration(folder)).expect("written");
    // Of the two that there are the one that touches nothing unless a plugin wants control groups.
    std::fs::write(folder.join("cgroup.conf"), "CgroupPlugin=cgroup/v1\n").expect("written");
}

/// As many tasks at once as there are processors, by processors and by memory. A requeued job waits
/// for `cred_expire` seconds.
fn configuration(folder: &Path) -> String {
    let (folder, cpus) = (folder.display(), processors());
    let memory = cpus * MEMORY;
    format!(
        "ClusterName=smoke
SlurmctldHost=node(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/d
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/d.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
SlurmdParameters=config_overrides
NodeName=node NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=vms Nodes=node Default=YES MaxTime=INFINITE State=UP
"
    )
}
