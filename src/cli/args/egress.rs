//! Where a guest may go, as typed.

use std::str::FromStr;

use argh::{ArgsInfo, FromArgs};

use crate::model::egress::{Grant, GrantError};
use crate::model::{Reach, VmName};

/// What `--allow` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    /// One destination.
    Grant(Grant),
    /// `@NAME`: all destinations of a set in the configuration.
    Set(String),
}

impl FromStr for Allow {
    type Err = GrantError;
    fn from_str(text: &str) -> Result<Self, GrantError> {
        match text.strip_prefix('@') {
            Some(name) => Ok(Self::Set(name.to_owned())),
            None => text.parse().map(Self::Grant),
        }
    }
}

/// Where the guest of `run` and `create` may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressFlags {
    /// How far it reaches; `None`: not said.
    pub reach: Option<Reach>,
    /// What is granted.
    pub allow: Vec<Allow>,
}

impl EgressFlags {
    /// The flags of a command line. Whoever says what is granted wants nothing else to be.
    pub fn of(nat: bool, no_nat: bool, observe: bool, allow: &[Allow]) -> Self {
        let reach = match (observe, nat, no_nat) {
            (true, ..) => Some(Reach::Observe),
            (false, true, _) => Some(Reach::Nat),
            (false, false, true) => Some(Reach::Granted),
            (false, false, false) => (!allow.is_empty()).then_some(Reach::Granted),
        };
        Self { reach, allow: allow.to_vec() }
    }
}

/// `--nat on|off`.
pub fn on_or_off(text: &str) -> Result<Reach, String> {
    match text {
        "on" => Ok(Reach::Nat),
        "off" => Ok(Reach::Granted),
        other => Err(format!("{other:?}: write on or off")),
    }
}

/// `vm egress`.
#[derive(Debug, PartialEq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "egress",
    description = "where a VM went on the network, and where it was refused to go",
    usage = "NAME [--json]",
    help_triggers("-h", "--help"),
    example = "banger vm egress box\nbanger vm set box --allow example.org:443\nbanger vm set box --nat on",
    note = "Counted since the VM's start: connections that passed, packets that were\nrefused, names that were asked for. Each refusal comes with the flag of\n`vm run`, `vm create` and `vm set` that would allow it.",
    note = "What a program needs: run it once with --observe, and adopt the list."
)]
pub struct VmEgress {
    /// the VM
    #[argh(positional, arg_name = "name")]
    pub name: VmName,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}
