//! Other firewalls of this host. What one chain of the kernel accepts, another may still drop: a rule of
//! banger's own cannot overrule a foreign policy. Where that is iptables', of either kind, which docker has drop what
//! is forwarded and ufw what comes in as well, rules are put into `INPUT` and where docker wants its users'
//! (`DOCKER-USER`), else into `FORWARD`, and taken out again with the last guest. What may pass was decided
//! before they are asked.

use std::path::PathBuf;

use super::authority::Root;
use super::error::{HelperError, Result};
use super::{programs, rules};
use crate::host::facts::find_program;
use crate::net::listing::{FilterChain, filter_chains};
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

/// Lets what guests send past iptables where that refuses what it does not know: what is for this host, and,
/// where `forwards`, what goes through it.
pub fn ensure_passage(root: &Root, forwards: bool) -> Result<Deed> {
    let mut deed = Deed::Unchanged;
    for iptables in Iptables::in_use(&chains(root)?) {
        let input = iptables.refuses(root, INPUT)?;
        let forward = forwards && iptables.refuses(root, FORWARD)?;
        let through = if forward && iptables.has(root, DOCKER_USER)? { DOCKER_USER } else { FORWARD };
        let mut wanted = Vec::new();
        wanted.extend(input.then_some((INPUT, "-i")));
        wanted.extend(forward.then_some([(through, "-i"), (through, "-o")]).into_iter().flatten());
        for (chain, way) in wanted {
            if !iptables.does(root, &rule("-C", chain, way))? {
                iptables.run(root, &rule("-I", chain, way))?;
                deed = Deed::Changed;
            }
        }
    }
    Ok(deed)
}

/// Takes the rules out, wherever they are; done when none is there.
pub fn withdraw_passage(root: &Root) -> Result<Deed> {
    let mut deed = Deed::Unchanged;
    for iptables in Iptables::in_use(&chains(root)?) {
        for (chain, way) in RULES {
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

/// The foreign chains that drop what a guest sends, as `FAMILY TABLE CHAIN HOOK`.
pub fn obstacles(root: &Root) -> Result<Vec<String>> {
    let passes = find_program("iptables").is_some();
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

/// The names of its tables that are in use, of the kernel's older kind, which nft does not show.
const LEGACY_TABLES: &str = "/proc/net/ip_tables_names";

/// The program, as this host has it: there are two kinds of tables, and a host may use both.
struct Iptables(PathBuf);

impl Iptables {
    /// One for each kind that is in use; `chains` are those that nft shows.
    fn in_use(chains: &[FilterChain]) -> Vec<Self> {
        let legacy = std::fs::read_to_string(LEGACY_TABLES).is_ok_and(|names| names.lines().any(|n| n == "filter"));
        let kinds = [(chains.iter().any(is_iptables), "iptables-nft"), (legacy, "iptables-legacy")];
        let named = kinds.iter().filter(|(used, _)| *used).filter_map(|(_, name)| find_program(name));
        let named: Vec<Self> = named.map(Self).collect();
        if !named.is_empty() || !kinds.iter().any(|(used, _)| *used) {
            return named;
        }
        // Under one name alone it is of whichever kind the host uses.
        find_program("iptables").map(Self).into_iter().collect()
    }

    fn has(&self, root: &Root, chain: &str) -> Result<bool> {
        self.does(root, &["-S", chain])
    }

    /// Whether `chain` refuses what none of its rules accepts.
    fn refuses(&self, root: &Root, chain: &str) -> Result<bool> {
        let arguments = ["-w", "5", "-S", chain];
        Ok(refuses(&programs::says(root, &self.0, &arguments, DOING)?, chain))
    }

    /// Waits for its lock for a while: docker may have it.
    fn does(&self, root: &Root, arguments: &[&str]) -> Result<bool> {
        programs::succeeds(root, &self.0, &[&["-w", "5"], arguments].concat(), DOING)
    }

    fn run(&self, root: &Root, arguments: &[&str]) -> Result<()> {
        programs::run(root, &self.0, &[&["-w", "5"], arguments].concat(), DOING)
    }
}

/// By policy, as docker and ufw do it, or by a last rule without a condition, as RHEL's and some clouds' files do
/// (iptables(8), `-S`).
fn refuses(listing: &str, chain: &str) -> bool {
    let policy = listing.lines().any(|line| line == format!("-P {chain} DROP"));
    let last = listing.lines().rev().find_map(|line| line.strip_prefix(&format!("-A {chain} ")));
    let all = ["-j DROP", "-j REJECT"];
    policy
        || last.is_some_and(|rule| all.iter().any(|all| rule == *all || rule.starts_with(&format!("{all} --reject"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_or_a_last_rule_without_condition_refuses() {
        for listing in [
            "-P INPUT DROP",
            "-P INPUT ACCEPT\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -j REJECT --reject-with icmp-host-prohibited",
            "-P INPUT ACCEPT\n-A INPUT -j DROP",
        ] {
            assert!(refuses(listing, INPUT), "{listing}");
        }
        for listing in [
            "-P INPUT ACCEPT",
            "-P INPUT ACCEPT\n-A INPUT -i eth0 -j DROP",
            "-P INPUT ACCEPT\n-A INPUT -j REJECT\n-A INPUT -j ACCEPT",
            "-P FORWARD DROP",
            "",
        ] {
            assert!(!refuses(listing, INPUT), "{listing}");
        }
    }
}
