//! `vm_export_patch`: what became of the repository, in the answer and nowhere else.

use std::io::{Read, Seek};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::report::Failure;
use super::carry::Carry;
use super::output::content;
use super::tools::Bench;
use super::trouble::of_workspace;
use crate::mcp::{Arguments, Call};
use crate::os::memfd;
use crate::protocol::owner::Carrier;
use crate::protocol::{Fault, FaultKind};
use crate::workspace::{self, From, WorkspaceError};

/// Most bytes of a patch.
const MAX_PATCH: u64 = 1 << 20;

/// How long a guest may take to make one.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// Does it; the patch.
pub fn export(bench: &Bench, arguments: &Arguments, call: &Call) -> Result<Value, Failure> {
    let from = match arguments.text("since") {
        Some("prepared") => From::Prepared,
        _ => From::Base,
    };
    let mut client = bench.client(call)?;
    let vm = bench.vm(&mut client, arguments)?;
    let name = &vm.spec.name;
    let workspace = vm.workspace.as_ref().ok_or_else(|| {
        let failure = Failure::new(FaultKind::NotFound, format!("no repository was brought into VM '{name}'"));
        failure.hint("vm_create with repository brings one in")
    })?;
    if !workspace.has_history {
        return Err(of_workspace(&WorkspaceError::NoGit, name));
    }
    let carriers = vec![Carrier::Agent, Carrier::Ssh];
    let mut carry = Carry::open(&mut client, name, carriers, call, TIME_LIMIT)?.for_all();
    drop(client);
    let unkept = |e: std::io::Error| Failure::from(Fault::failed("cannot keep the patch", &e));
    let mut kept = memfd::create("banger-patch").map_err(unkept)?;
    let out = kept.try_clone().map_err(unkept)?;
    let exported = workspace::export(carry.guest(), &workspace.folder, &from, out, MAX_PATCH, |_| String::new());
    let exported = exported.map_err(|e| of_workspace(&e, name))?;
    let mut bytes = Vec::new();
    kept.rewind().and_then(|()| kept.take(MAX_PATCH + 1).read_to_end(&mut bytes)).map_err(unkept)?;
    let (encoding, patch) = content(bytes);
    Ok(json!({
        "repository": workspace.folder.as_str(),
        "base": exported.from,
        "bytes": exported.bytes,
        "is_empty": exported.bytes == 0,
        "encoding": encoding,
        "patch": patch,
    }))
}
