//! Other firewalls of this host. What one chain of the kernel accepts, another may still drop: a rule of
//! banger's own cannot overrule a foreign policy. Where that is iptables' `FORWARD`, which docker sets to
//! drop, two rules are put where docker wants its users' (`DOCKER-USER`), else into `FORWARD` itself, and
//! taken out again with the last guest. What may pass was decided before they are asked.

use std::path::PathBuf;

use super::authority::Root;
use super::error::{HelperError, Result};
use super::{programs, rules};
use crate::host::facts::find_program;
use crate::net::listing::{ForwardChain, forward_chains};
use crate::net::rules::BRIDGE;
use crate::protocol::root::Deed;

/// What iptables is run for.
const DOING: &str = "let guests past iptables";

/// Names the rules.
const COMMENT: &str = "banger";

/// The chain of docker's users, and the kernel's own.
const CHAINS: [&str; 2] = ["DOCKER-USER", "FORWARD"];

/// Which way each of the two rules looks.
const WAYS: [&str; 2] = ["-i", "-o"];

/// Lets guests' packets past iptables where it drops what it does not know.
pub fn ensure_passage(root: &Root) -> Result<Deed> {
    let chains = chains(root)?;
    if !chains.iter().any(|chain| is_iptables(chain) && chain.drops) {
        return Ok(Deed::Unchanged);
    }
    let Some(iptables) = Iptables::find() else { return Ok(Deed::Unchanged) };
    let chain = if iptables.has(root, CHAINS[0])? { CHAINS[0] } else { CHAINS[1] };
    let mut deed = Deed::Unchanged;
    for way in WAYS {
        if !iptables.does(root, &rule("-C", chain, way))? {
            iptables.run(root, &rule("-I", chain, way))?;
            deed = Deed::Changed;
        }
    }
    Ok(deed)
}

/// Takes the rules out, wherever they are; done when none is there.
pub fn withdraw_passage(root: &Root) -> Result<Deed> {
    let mut deed = Deed::Unchanged;
    if !chains(root)?.iter().any(is_iptables) {
        return Ok(deed);
    }
    let Some(iptables) = Iptables::find() else { return Ok(deed) };
    for chain in CHAINS {
        for way in WAYS {
            // Twice at most: two helpers may have put it there at the same time.
            for _ in 0..2 {
                if iptables.does(root, &rule("-C", chain, way))? {
                    iptables.run(root, &rule("-D", chain, way))?;
                    deed = Deed::Changed;
                }
            }
        }
    }
    Ok(deed)
}

/// The foreign chains that drop what a guest sends, as `FAMILY TABLE CHAIN`.
pub fn obstacles(root: &Root) -> Result<Vec<String>> {
    let passes = Iptables::find().is_some();
    let drops = |chain: &ForwardChain| chain.drops && !(passes && is_iptables(chain));
    // firewalld drops by a rule at the end, not by a policy.
    let refuses = |chain: &ForwardChain| chain.table == "firewalld";
    let mut found: Vec<String> = chains(root)?
        .into_iter()
        .filter(|chain| chain.table != "banger" && (drops(chain) || refuses(chain)))
        .map(|chain| format!("{} {} {}", chain.family, chain.table, chain.name))
        .collect();
    found.dedup();
    Ok(found)
}

fn chains(root: &Root) -> Result<Vec<ForwardChain>> {
    let doing = "look at other firewalls";
    let text = rules::list(root, "list chains", doing)?;
    forward_chains(&text).map_err(|e| HelperError::Program { doing: doing.to_owned(), said: e.to_string() })
}

fn is_iptables(chain: &ForwardChain) -> bool {
    (chain.family.as_str(), chain.table.as_str(), chain.name.as_str()) == ("ip", "filter", "FORWARD")
}

fn rule<'a>(verb: &'a str, chain: &'a str, way: &'a str) -> [&'a str; 10] {
    [verb, chain, way, BRIDGE, "-m", "comment", "--comment", COMMENT, "-j", "ACCEPT"]
}

/// The program, as this host has it.
struct Iptables(PathBuf);

impl Iptables {
    fn find() -> Option<Self> {
        find_program("iptables").map(Self)
    }

    fn has(&self, root: &Root, chain: &str) -> Result<bool> {
        self.does(root, &["-S", chain])
    }

    /// Waits for its lock for a while: docker may have it.
    fn does(&self, root: &Root, arguments: &[&str]) -> Result<bool> {
        programs::succeeds(root, &self.0, &[&["-w", "5"], arguments].concat(), DOING)
    }

    fn run(&self, root: &Root, arguments: &[&str]) -> Result<()> {
        programs::run(root, &self.0, &[&["-w", "5"], arguments].concat(), DOING)
    }
}
