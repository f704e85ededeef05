//! Other firewalls of this host. What one chain of the kernel accepts, another may still drop: a rule of
//! banger's own cannot overrule a foreign policy. Where that is iptables', which docker has drop what is
//! forwarded and ufw what comes in as well, rules are put into `INPUT` and where docker wants its users'
//! (`DOCKER-USER`), else into `FORWARD`, and taken out again with the last guest. What may pass was decided
//! before they are asked.

use std::path::PathBuf;

use super::authority::Root;
use super::error::{HelperError, Result};
use super::{programs, rules};
use crate::host::facts::find_program;
use crate::net::listing::{FilterChain, Hook, filter_chains};
use crate::net::rules::BRIDGE;
use crate::protocol::root::Deed;

/// What iptables is run for.
const DOING: &str = "let guests past iptables";

/// Names the rules.
const COMMENT: &str = "banger";

/// iptables' own chains.
const INPUT: &str = "INPUT";
const FORWARD: &str = "FORWARD";

/// The chain that docker leaves to its users, asked before its own.
const DOCKER_USER: &str = "DOCKER-USER";

/// All rules that there may be: the chain, and which way it looks.
const RULES: [(&str, &str); 5] =
    [(INPUT, "-i"), (DOCKER_USER, "-i"), (DOCKER_USER, "-o"), (FORWARD, "-i"), (FORWARD, "-o")];

/// Lets what guests send past iptables where that drops what it does not know: what is for this host, and,
/// where `forwards`, what goes through it.
pub fn ensure_passage(root: &Root, forwards: bool) -> Result<Deed> {
    let chains = chains(root)?;
    let drops = |hook| chains.iter().any(|chain| chain.hook == hook && chain.drops && is_iptables(chain));
    let (input, forward) = (drops(Hook::Input), forwards && drops(Hook::Forward));
    let Some(iptables) = Iptables::find().filter(|_| input || forward) else { return Ok(Deed::Unchanged) };
    let through = if forward && iptables.has(root, DOCKER_USER)? { DOCKER_USER } else { FORWARD };
    let mut wanted = Vec::new();
    wanted.extend(input.then_some((INPUT, "-i")));
    wanted.extend(forward.then_some([(through, "-i"), (through, "-o")]).into_iter().flatten());
    let mut deed = Deed::Unchanged;
    for (chain, way) in wanted {
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
    for (chain, way) in RULES {
        // Twice at most: two helpers may have put it there at the same time.
        for _ in 0..2 {
            if iptables.does(root, &rule("-C", chain, way))? {
                iptables.run(root, &rule("-D", chain, way))?;
                deed = Deed::Changed;
            }
        }
    }
    Ok(deed)
}

/// The foreign chains that drop what a guest sends, as `FAMILY TABLE CHAIN HOOK`.
pub fn obstacles(root: &Root) -> Result<Vec<String>> {
    let passes = Iptables::find().is_some();
    let drops = |chain: &FilterChain| chain.drops && !(passes && is_iptables(chain));
    // firewalld drops by a rule at the end, not by a policy.
    let refuses = |chain: &FilterChain| chain.table == "firewalld";
    let mut found: Vec<String> = chains(root)?
        .into_iter()
        .filter(|chain| chain.table != "banger" && (drops(chain) || refuses(chain)))
        .map(|chain| format!("{} {} {} {}", chain.family, chain.table, chain.name, chain.hook.as_str()))
        .collect();
    found.dedup();
    Ok(found)
}

fn chains(root: &Root) -> Result<Vec<FilterChain>> {
    let doing = "look at other firewalls";
    let text = rules::list(root, "list chains", doing)?;
    filter_chains(&text).map_err(|e| HelperError::Program { doing: doing.to_owned(), said: e.to_string() })
}

fn is_iptables(chain: &FilterChain) -> bool {
    let (family, table, name) = (chain.family.as_str(), chain.table.as_str(), chain.name.as_str());
    (family, table) == ("ip", "filter") && [INPUT, FORWARD].contains(&name)
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
