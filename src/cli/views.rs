//! What `--json` prints: the documented, stable form of records (`JSON.md`). Apart from the records,
//! so that a record can change without breaking anybody's script.

use std::net::Ipv4Addr;

use serde::Serialize;

use crate::image::catalogue::Entry;
use crate::model::image::{ImageRecord, KernelRecord};
use crate::model::{InitMode, KernelName, ObjectId, Reach, Secret, TimeSpan, VmRecord, VmState, Workspace};
use crate::os::logger::timestamp;
use crate::protocol::owner::Overview;

/// A VM.
#[derive(Debug, Serialize)]
pub struct VmView<'a> {
    name: &'a str,
    id: &'a str,
    state: VmState,
    reason: Option<&'a str>,
    image: &'a str,
    kernel: &'a str,
    address: Option<Ipv4Addr>,
    vcpus: u8,
    memory_mib: u32,
    disk_mib: u32,
    init: Option<InitMode>,
    reach: Reach,
    granted: Vec<String>,
    ports: Vec<String>,
    secrets: Vec<SecretView<'a>>,
    environment: Vec<&'a str>,
    workspace: Option<WorkspaceView<'a>>,
    vmm: &'static str,
    accel: &'static str,
    pid: Option<i32>,
    ephemeral: bool,
    created_at: String,
    started_at: Option<String>,
    expires_at: Option<String>,
    idle_stop_seconds: Option<u64>,
}

impl<'a> From<&'a VmRecord> for VmView<'a> {
    fn from(vm: &'a VmRecord) -> Self {
        Self {
            name: vm.spec.name.as_str(),
            id: vm.id.as_str(),
            state: vm.state,
            reason: vm.reason.as_deref(),
            image: vm.spec.image.as_str(),
            kernel: vm.spec.kernel.as_str(),
            address: vm.present_address(),
            vcpus: vm.spec.vcpus,
            memory_mib: vm.spec.memory.0,
            disk_mib: vm.spec.disk.0,
            init: vm.spec.init,
            reach: vm.spec.egress.reach,
            granted: vm.spec.egress.grants.iter().map(ToString::to_string).collect(),
            ports: vm.spec.ports.iter().map(ToString::to_string).collect(),
            secrets: vm.spec.secrets.iter().map(SecretView::from).collect(),
            environment: vm.spec.environment.iter().map(|v| v.name().as_str()).collect(),
            workspace: vm.workspace.as_ref().map(WorkspaceView::from),
            vmm: vm.vmm.as_str(),
            accel: vm.accel.as_str(),
            pid: vm.process.map(|p| p.pid),
            ephemeral: vm.keeper.is_some(),
            created_at: timestamp(vm.created_at),
            started_at: vm.started_at.map(timestamp),
            expires_at: vm.expires_at.map(timestamp),
            idle_stop_seconds: vm.spec.idle_stop.map(TimeSpan::seconds),
        }
    }
}

/// A secret, without its value.
#[derive(Debug, Serialize)]
pub struct SecretView<'a> {
    name: &'a str,
    hosts: Vec<String>,
}

impl<'a> From<&'a Secret> for SecretView<'a> {
    fn from(secret: &'a Secret) -> Self {
        Self { name: secret.name.as_str(), hosts: secret.hosts.iter().map(ToString::to_string).collect() }
    }
}

/// The repository in a VM.
#[derive(Debug, Serialize)]
pub struct WorkspaceView<'a> {
    folder: &'a str,
    runs_in: &'a str,
    source: String,
    head: Option<&'a str>,
    base: Option<&'a str>,
    has_history: bool,
    prepared_at: String,
    last_exit: Option<u8>,
}

impl<'a> From<&'a Workspace> for WorkspaceView<'a> {
    fn from(workspace: &'a Workspace) -> Self {
        Self {
            folder: workspace.folder.as_str(),
            runs_in: workspace.runs_in.as_str(),
            source: String::from_utf8_lossy(&workspace.source).into_owned(),
            head: workspace.head.as_ref().map(ObjectId::as_str),
            base: workspace.base.as_ref().map(ObjectId::as_str),
            has_history: workspace.has_history,
            prepared_at: timestamp(workspace.prepared_at),
            last_exit: workspace.last_exit,
        }
    }
}

/// An image.
#[derive(Debug, Serialize)]
pub struct ImageView<'a> {
    name: &'a str,
    size_mib: u32,
    used_bytes: u64,
    digest: &'a str,
    source: &'a str,
    init: InitMode,
    created_at: String,
    reference: Option<&'a str>,
    env: &'a [String],
    entrypoint: &'a [String],
    cmd: &'a [String],
    folder: &'a str,
    user: &'a str,
    kernel: Option<&'a str>,
    file: Option<&'a str>,
}

impl<'a> From<&'a ImageRecord> for ImageView<'a> {
    fn from(image: &'a ImageRecord) -> Self {
        Self {
            name: image.name.as_str(),
            size_mib: image.size.0,
            used_bytes: image.used_bytes,
            digest: &image.digest,
            source: &image.source,
            init: image.init,
            created_at: timestamp(image.created_at),
            reference: image.reference.as_deref(),
            env: &image.config.env,
            entrypoint: &image.config.entrypoint,
            cmd: &image.config.cmd,
            folder: &image.config.folder,
            user: &image.config.user,
            kernel: image.kernel.as_ref().map(KernelName::as_str),
            file: image.place.as_ref().map(|place| place.path.as_str()),
        }
    }
}

/// A kernel.
#[derive(Debug, Serialize)]
pub struct KernelView<'a> {
    name: &'a str,
    release: &'a str,
    boot_args: &'a str,
    has_modules_drive: bool,
    own: bool,
    used_bytes: u64,
    source: &'a str,
    created_at: String,
}

impl<'a> From<&'a KernelRecord> for KernelView<'a> {
    fn from(kernel: &'a KernelRecord) -> Self {
        Self {
            name: kernel.name.as_str(),
            release: &kernel.release,
            boot_args: kernel.boot_args.as_str(),
            has_modules_drive: kernel.has_modules_drive,
            own: kernel.is_own(),
            used_bytes: kernel.used_bytes,
            source: &kernel.source,
            created_at: timestamp(kernel.created_at),
        }
    }
}

/// What the catalogue has.
#[derive(Debug, Serialize)]
pub struct OfferView<'a> {
    name: String,
    description: &'a str,
    approximate_bytes: u64,
    sources: Vec<String>,
}

impl<'a, Name: std::fmt::Display> From<&'a Entry<Name>> for OfferView<'a> {
    fn from(entry: &'a Entry<Name>) -> Self {
        Self {
            name: entry.name.to_string(),
            description: &entry.description,
            approximate_bytes: entry.approximate_bytes,
            sources: entry.sources().iter().map(ToString::to_string).collect(),
        }
    }
}

/// The daemon's surroundings.
#[derive(Debug, Serialize)]
pub struct StatusView<'a> {
    running: bool,
    build: &'a str,
    pid: i32,
    helper_build: Option<&'a str>,
    helper_error: Option<&'a str>,
    socket: &'a str,
    helper_socket: &'a str,
    state_dir: &'a str,
    subnet: Option<&'a str>,
    dns: Option<String>,
    vmm: &'static str,
    accel: &'static str,
    vmm_reason: &'a str,
    vms: u32,
    operations: u32,
}

impl<'a> From<&'a Overview> for StatusView<'a> {
    fn from(o: &'a Overview) -> Self {
        Self {
            running: true,
            build: &o.build,
            pid: o.pid,
            helper_build: o.helper.as_deref().ok(),
            helper_error: o.helper.as_ref().err().map(String::as_str),
            socket: &o.socket,
            helper_socket: &o.helper_socket,
            state_dir: &o.state_dir,
            subnet: o.subnet.as_deref(),
            dns: o.dns.map(|d| d.to_string()),
            vmm: o.vmm.kind.as_str(),
            accel: o.vmm.accel.as_str(),
            vmm_reason: &o.vmm.reason,
            vms: o.vms,
            operations: o.operations,
        }
    }
}
