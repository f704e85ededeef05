//! The tools as models see them, and which code does what.

use serde_json::{Value, json};

use super::super::autostart;
use super::super::client::Client;
use super::super::report::Failure;
use super::bounds::Bounds;
use super::fleet::Fleet;
use super::trouble::{trouble, wrong};
use super::{command, create, files, patch};
use crate::host::paths::Paths;
use crate::mcp::{Arguments, Call, Field, Hints, Kind, MAX_TEXT, Tool, Toolbox};
use crate::model::size::human;
use crate::model::{VmName, VmRecord};
use crate::os::logger::timestamp;
use crate::protocol::owner::OwnerRequest;
use crate::protocol::{Fault, FaultKind};

/// Longest path, and longest of other short texts.
const PATH: usize = 4096;
const SHORT: usize = 300;

/// Longest command and input.
const LONG: usize = 1 << 20;

const VM: Field = needs("vm", Kind::Text(63), "Name of the VM, as vm_create gave it.");

const fn needs(name: &'static str, kind: Kind, says: &'static str) -> Field {
    Field { name, kind, required: true, says }
}

const fn may(name: &'static str, kind: Kind, says: &'static str) -> Field {
    Field { name, kind, required: false, says }
}

/// Changes a VM that can be thrown away, and nothing else.
const CHANGES: Hints = Hints { read_only: false, destructive: false, idempotent: false, open_world: false };
const LOOKS: Hints = Hints { read_only: true, destructive: false, idempotent: true, open_world: false };

/// All of them.
pub const TOOLS: &[Tool] = &[
    Tool {
        name: "vm_create",
        title: "Create a virtual machine",
        description: "Boots a fresh, isolated Linux virtual machine (about 5 seconds; the first use of an image may take minutes) and returns its name. You are root in it and may break anything: nothing in it can harm the host. Use one VM per task and vm_delete it when done. Without nat or allow the VM reaches no network at all. Give repository to work on a copy of a git repository of the host; changes come back only by vm_export_patch.",
        fields: &[
            may(
                "image",
                Kind::Text(SHORT),
                "Image the disk starts from, by name, for instance debian-bookworm (default: the person's default image). An OCI reference such as python:3.12 works only once a person has pulled it.",
            ),
            may("vcpu", Kind::Integer(1, 64), "Virtual CPUs (default: a quarter of the host's, at most 4)."),
            may(
                "memory",
                Kind::Text(20),
                "Memory, for instance 512M or 2G (default: what is usual on the host, at most an even share of what this server may use).",
            ),
            may(
                "disk_size",
                Kind::Text(20),
                "Size of its disk, for instance 8G; it takes only what is written (default: 8G or the image's own).",
            ),
            may(
                "nat",
                Kind::Switch,
                "Let it reach all of the internet, never the host or private networks (default: false).",
            ),
            may(
                "allow",
                Kind::Words(SHORT),
                "Let it reach these destinations only: HOST, HOST:PORT, *.DOMAIN or a public IPv4 network, for instance [\"pypi.org:443\", \"*.pythonhosted.org:443\"]. Prefer this to nat.",
            ),
            may(
                "repository",
                Kind::Text(PATH),
                "Absolute path on the host of a git repository, or of a folder in one. Its tracked files, uncommitted edits included, are copied to /root/NAME in the VM, where commands then run. Only below folders that the person has permitted.",
            ),
            may(
                "lifetime",
                Kind::Text(20),
                "Delete it after this time, for instance 30m (default and most: what this server allows).",
            ),
        ],
        hints: Hints { open_world: true, ..CHANGES },
    },
    Tool {
        name: "vm_run_command",
        title: "Run a command in a VM",
        description: "Runs one command as root in a VM, waits for its end, and returns exit_code, stdout and stderr. An exit code other than 0 is a result, not an error; isError means that banger itself failed. Give either command (a program and its arguments) or shell (a line for sh -c). Without cwd it runs in the repository's folder, else in /root. There is no terminal. Of long outputs the middle is left out, and says so. When its time is over it is ended: timed_out is true and exit_code 124.",
        fields: &[
            VM,
            may(
                "command",
                Kind::Words(LONG),
                "Program and arguments, passed as they are, without a shell: [\"make\", \"test\"].",
            ),
            may("shell", Kind::Text(LONG), "A line for sh -c, with pipes, redirections and so on."),
            may("cwd", Kind::Text(PATH), "Folder in the VM to run in."),
            may("env", Kind::Named(LONG), "Environment variables to add, by name."),
            may("stdin", Kind::Text(LONG), "Text for its standard input (default: nothing)."),
            may("timeout_seconds", Kind::Integer(1, 86_400), "End it after so many seconds (default: 600)."),
        ],
        hints: Hints { destructive: true, open_world: true, ..CHANGES },
    },
    Tool {
        name: "vm_read_file",
        title: "Read a file of a VM",
        description: "Returns the content of a regular file in a VM: as text with encoding utf-8, or as base64 when it is not text. At most max_bytes from offset; size is the whole file's, and truncated says whether more follows. For folders and for files below /proc and /sys use vm_run_command (ls, cat).",
        fields: &[
            VM,
            needs(
                "path",
                Kind::Text(PATH),
                "Path in the VM; a relative one starts in the repository's folder, else in /root.",
            ),
            may("offset", Kind::Integer(0, 1 << 30), "First byte (default: 0)."),
            may("max_bytes", Kind::Integer(1, 1 << 20), "Most bytes (default: 262144)."),
        ],
        hints: LOOKS,
    },
    Tool {
        name: "vm_write_file",
        title: "Write a file in a VM",
        description: "Writes a file in a VM, as root. What is there under this name is replaced, and missing folders are made. Nothing is written on the host.",
        fields: &[
            VM,
            needs(
                "path",
                Kind::Text(PATH),
                "Path in the VM; a relative one starts in the repository's folder, else in /root.",
            ),
            needs("content", Kind::Text(MAX_TEXT), "The whole content: text, or base64 when encoding says so."),
            may("encoding", Kind::Choice(&["utf-8", "base64"]), "What content is (default: utf-8)."),
            may("executable", Kind::Switch, "Make it a program, mode 755 instead of 644 (default: false)."),
        ],
        hints: Hints { destructive: true, idempotent: true, ..CHANGES },
    },
    Tool {
        name: "vm_export_patch",
        title: "Get the changes of a repository",
        description: "Returns all that has changed in the repository that vm_create brought into the VM, as one patch for git apply: commits made there, uncommitted edits and new files, but not ignored ones. The VM's repository stays as it is and nothing is applied on the host: show the patch to the person, or apply it with tools of your own.",
        fields: &[
            VM,
            may(
                "since",
                Kind::Choice(&["commit", "prepared"]),
                "commit (default): everything since the commit that was brought in, edits that the person already had included. prepared: only what was changed in the VM.",
            ),
        ],
        hints: LOOKS,
    },
    Tool {
        name: "vm_list",
        title: "List the VMs of this server",
        description: "Lists the VMs that this server has made and that still exist, with state, size, repository and end of life, and what may still be made. Other VMs of the host are not shown and cannot be used.",
        fields: &[],
        hints: LOOKS,
    },
    Tool {
        name: "vm_delete",
        title: "Delete a VM",
        description: "Deletes a VM with its disk, running or not. This cannot be undone: get what you need by vm_export_patch or vm_read_file first.",
        fields: &[VM],
        hints: Hints { destructive: true, idempotent: true, ..CHANGES },
    },
];

/// Where commands run and paths begin in a VM without a repository, as root, whatever its image says.
pub const HOME: &str = "/root";

/// What the tools work with.
pub struct Bench {
    /// This installation.
    pub paths: Paths,
    /// What may be done.
    pub bounds: Bounds,
    /// The VMs.
    pub fleet: Fleet,
}

impl Bench {
    /// Without a VM yet.
    pub fn new(bounds: Bounds) -> Self {
        let fleet = Fleet::new(bounds.vms, bounds.memory);
        Self { paths: Paths::current(), bounds, fleet }
    }

    /// A connection to the daemon that ends with `call`.
    pub fn client(&self, call: &Call) -> Result<Client, Failure> {
        let client = autostart::connect(&self.paths)?;
        call.cancellation.leash(client.handle().map_err(|e| Fault::failed("cannot copy a socket", &e))?);
        Ok(client)
    }

    /// The VM that `arguments` name, one of this server's.
    pub fn vm(&self, client: &mut Client, arguments: &Arguments) -> Result<VmRecord, Failure> {
        let name: VmName =
            arguments.text("vm").unwrap_or_default().parse().map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
        self.fleet.own(client, &name)
    }

    /// Deletes the VM called `name`, which is this server's.
    pub fn delete(&self, client: &mut Client, name: &VmName) -> Result<(), Failure> {
        match client.ask(OwnerRequest::DeleteVm { name: name.clone() }) {
            Err(failure) if failure.kind() != Some(FaultKind::NotFound) => Err(failure),
            Ok(_) | Err(_) => {
                self.fleet.forget(name);
                Ok(())
            }
        }
    }

    /// Deletes all that are not to be kept, at the same time.
    pub fn clear(&self) {
        if self.bounds.keep {
            return;
        }
        std::thread::scope(|scope| {
            for name in self.fleet.names() {
                scope.spawn(move || {
                    let deleted =
                        autostart::connect(&self.paths).and_then(|mut client| self.delete(&mut client, &name));
                    if let Err(failure) = deleted {
                        // The daemon goes on trying once this process is gone.
                        failure.say();
                    }
                });
            }
        });
    }

    fn list(&self, call: &Call) -> Result<Value, Failure> {
        let vms = self.fleet.present(&mut self.client(call)?)?;
        let used: u64 = vms.iter().map(|vm| vm.spec.memory.bytes()).sum();
        Ok(json!({
            "vms": vms.iter().map(about).collect::<Vec<_>>(),
            "limits": {
                "vms": self.bounds.vms,
                "memory": self.bounds.memory.to_string(),
                "memory_in_use": human(used),
                "lifetime": self.bounds.lifetime.to_string(),
                "network": self.bounds.network,
                "repositories_below": self.bounds.workspaces().collect::<Vec<_>>(),
            },
        }))
    }

    fn delete_asked(&self, arguments: &Arguments, call: &Call) -> Result<Value, Failure> {
        let mut client = self.client(call)?;
        let vm = self.vm(&mut client, arguments)?;
        self.delete(&mut client, &vm.spec.name)?;
        Ok(json!({"vm": vm.spec.name.as_str(), "deleted": true}))
    }
}

/// A VM as a model needs it.
pub fn about(vm: &VmRecord) -> Value {
    json!({
        "vm": vm.spec.name.as_str(),
        "state": vm.state,
        "reason": vm.reason,
        "image": vm.spec.image.as_str(),
        "vcpu": vm.spec.vcpus,
        "memory": vm.spec.memory.to_string(),
        "disk_size": vm.spec.disk.to_string(),
        "network": super::super::resolve::in_words(&vm.spec.egress),
        "repository": vm.workspace.as_ref().map(|workspace| workspace.folder.as_str()),
        "deleted_at": vm.expires_at.map(timestamp),
    })
}

impl Toolbox for Bench {
    fn tools(&self) -> &'static [Tool] {
        TOOLS
    }

    fn instructions(&self) -> String {
        let Bounds { vms, memory, lifetime, network, keep, .. } = &self.bounds;
        let folders: Vec<String> = self.bounds.workspaces().collect();
        let repositories = match folders.as_slice() {
            [] => "Repositories of the host cannot be brought in: the person has permitted no folder (banger mcp --workspace DIR).".to_owned(),
            folders => format!("Repositories can be brought in from below: {}.", folders.join(", ")),
        };
        format!(
            "Throw-away Linux virtual machines on this host. Create one, run commands in it as root, read and write its files, take a patch out, delete it. At most {vms} VMs at once with {memory} of memory together, each for at most {lifetime}{}. {}{repositories}",
            if *keep { "" } else { "; all are deleted when this connection ends" },
            if *network { "" } else { "VMs get no network here. " },
        )
    }

    fn call(&self, tool: &'static Tool, arguments: &Arguments, call: &Call) -> Result<Value, Value> {
        let done = match tool.name {
            "vm_create" => create::create(self, arguments, call),
            "vm_run_command" => command::run(self, arguments, call),
            "vm_read_file" => files::read(self, arguments, call),
            "vm_write_file" => files::write(self, arguments, call),
            "vm_export_patch" => patch::export(self, arguments, call),
            "vm_list" => self.list(call),
            "vm_delete" => self.delete_asked(arguments, call),
            other => Err(wrong(format!("there is no tool {other:?}"))),
        };
        done.map_err(|failure| trouble(&failure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_have_names_of_their_own_and_say_what_they_are_for() {
        let names: std::collections::BTreeSet<&str> = TOOLS.iter().map(|tool| tool.name).collect();
        assert_eq!(names.len(), TOOLS.len());
        for tool in TOOLS {
            // What the protocol permits in a name.
            assert!(tool.name.len() <= 64 && tool.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert!(tool.description.len() > 80 && tool.description.len() < 1024, "{}", tool.name);
            let fields: std::collections::BTreeSet<&str> = tool.fields.iter().map(|field| field.name).collect();
            assert_eq!(fields.len(), tool.fields.len(), "{}", tool.name);
            assert!(tool.fields.iter().all(|field| field.says.len() > 15), "{}", tool.name);
            assert!(!(tool.hints.read_only && tool.hints.destructive), "{}", tool.name);
        }
    }

    /// The schemas are valid, closed, and use nothing that a provider of models is known to refuse.
    #[test]
    fn schemas_are_plain_and_closed() {
        for tool in TOOLS {
            let schema = &tool.listed()["inputSchema"];
            assert_eq!((&schema["type"], &schema["additionalProperties"]), (&json!("object"), &json!(false)));
            let properties = schema["properties"].as_object().expect("properties");
            assert_eq!(properties.len(), tool.fields.len());
            for word in ["oneOf", "anyOf", "allOf", "not", "$ref"] {
                assert!(!schema.to_string().contains(&format!("\"{word}\"")), "{}: {word}", tool.name);
            }
            for name in schema["required"].as_array().expect("a list") {
                assert!(properties.contains_key(name.as_str().expect("a name")), "{}", tool.name);
            }
        }
    }

    /// Each argument is read where its tool is done, under the name that the schema has.
    #[test]
    fn what_a_schema_names_is_what_is_read() {
        let sources = [
            include_str!("create.rs"),
            include_str!("command.rs"),
            include_str!("files.rs"),
            include_str!("patch.rs"),
            include_str!("tools.rs"),
        ]
        .concat();
        for field in TOOLS.iter().flat_map(|tool| tool.fields) {
            let read = [format!("(\"{}\")", field.name), format!("(arguments, \"{}\")", field.name)];
            assert!(read.iter().any(|how| sources.contains(how)), "{}", field.name);
        }
    }
}
