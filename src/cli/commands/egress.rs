//! `vm egress`, and what `vm run` says of it at its end.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::autostart;
use super::super::client::{Client, unexpected};
use super::super::render;
use super::super::report::Failure;
use super::super::table::Table;
use crate::host::paths::Paths;
use crate::model::egress::{Cidr, Destination, Grant};
use crate::model::traffic::Transport;
use crate::model::{Reach, VmName};
use crate::protocol::owner::{CountedName, EgressReport, NamedFlow, OwnerReply, OwnerRequest, SecretUse};

/// The table of secrets' hosts.
const SECRET_HEADERS: [&str; 5] = ["SECRETS GO TO", "NAMES", "REQUESTS", "WITH SECRET", "FAILED"];

/// Most refusals that `vm run` names at its end.
const NAMED: usize = 5;

/// `vm egress`.
pub fn egress(name: &VmName, json: bool) -> Result<(), Failure> {
    let mut client = autostart::connect(&Paths::current())?;
    let report = ask(&mut client, name)?;
    let shown = Shown::of(&report);
    if json {
        return render::json(&shown);
    }
    shown.print()
}

fn ask(client: &mut Client, name: &VmName) -> Result<EgressReport, Failure> {
    match client.ask(OwnerRequest::Egress { name: name.clone() })? {
        OwnerReply::Egress(report) => Ok(*report),
        other => Err(unexpected(&other)),
    }
}

/// What `vm run` says once the command has ended: what to adopt after `--observe`, else what was refused, if
/// anything was. A VM that is gone has nothing to say.
pub fn summarize(client: &mut Client, name: &VmName) -> Result<(), Failure> {
    let shown = match ask(client, name) {
        Ok(report) => Shown::of(&report),
        Err(failure) if failure.kind() == Some(crate::protocol::FaultKind::NotFound) => return Ok(()),
        Err(failure) => return Err(failure),
    };
    if shown.reach == Reach::Observe {
        shown.adopt();
    } else if !shown.refused.is_empty() {
        shown.hint();
    }
    shown.tell_failures();
    Ok(())
}

/// A report as it is shown; `JSON.md` documents its fields.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    running: bool,
    reach: Reach,
    granted: Vec<String>,
    reached: Vec<Line>,
    refused: Vec<Line>,
    /// Connections and refusals that there was no room to tell apart.
    reached_beyond: u64,
    refused_beyond: u64,
    secrets: Vec<SecretLine>,
}

/// The host of a secret.
#[derive(Debug, Serialize)]
struct SecretLine {
    host: String,
    names: Vec<String>,
    /// Requests that were sent on, those of them that carried a secret, and what came to nothing.
    requests: u64,
    with_secret: u64,
    failed: u64,
    last_failure: Option<String>,
}

/// A destination.
#[derive(Debug, Serialize)]
struct Line {
    host: Option<String>,
    address: Option<String>,
    protocol: &'static str,
    port: Option<u16>,
    count: u64,
    /// What would allow it, or, of what was reached, what keeps it allowed.
    allow: Option<String>,
    /// Why nothing would.
    note: Option<&'static str>,
}

impl Shown {
    fn of(report: &EgressReport) -> Self {
        let mut refused: Vec<Line> = report.refused.iter().map(|flow| refused_flow(report, flow)).collect();
        // What begins so leads to a service's record, not to an address: there is nothing to reach.
        let service =
            |name: &CountedName| name.name.starts_with('_').then_some("a service's record: none are passed on");
        refused.extend(report.refused_names.iter().map(|name| refused_name(name, service(name))));
        let filtered = "it leads to a private address: allow that";
        refused.extend(report.filtered_names.iter().map(|name| refused_name(name, Some(filtered))));
        refused.sort_by_key(|line| std::cmp::Reverse(line.count));
        Self {
            name: report.name.to_string(),
            running: report.is_running,
            reach: report.egress.reach,
            granted: report.egress.grants.iter().map(Grant::to_string).collect(),
            reached: report.reached.iter().map(|flow| line(flow, allow(flow), None)).collect(),
            refused,
            reached_beyond: report.reached_beyond,
            refused_beyond: report.refused_beyond + report.names_beyond,
            secrets: report.secret_hosts.iter().map(|used| SecretLine::of(report, used)).collect(),
        }
    }

    fn print(&self) -> Result<(), Failure> {
        render::line(&format!("{}: {}", self.name, self.policy()))?;
        if !self.running {
            return render::line("It does not run: nothing is counted.");
        }
        self.print_secrets()?;
        print_lines("REACHED", &self.reached, self.reached_beyond, false)?;
        print_lines("REFUSED", &self.refused, self.refused_beyond, true)?;
        if self.reach == Reach::Observe && !self.reached.is_empty() {
            render::line(&format!("\nTo adopt:\n  {}", self.flags().join(" \\\n  ")))?;
        }
        Ok(())
    }

    fn policy(&self) -> String {
        let granted = self.granted.join(" ");
        match (self.reach, self.granted.is_empty()) {
            (Reach::Granted, true) => "may go nowhere (--allow HOST, or --nat)".to_owned(),
            (Reach::Granted, false) => format!("may go to {granted}"),
            (Reach::Nat, true) => "may go everywhere on the internet".to_owned(),
            (Reach::Nat, false) => format!("may go everywhere on the internet, and to {granted}"),
            (Reach::Observe, _) => "may go everywhere on the internet, observed".to_owned(),
        }
    }

    fn print_secrets(&self) -> Result<(), Failure> {
        if self.secrets.is_empty() {
            return Ok(());
        }
        let table = Table::new(&SECRET_HEADERS, self.secrets.iter().map(SecretLine::row));
        render::text(&format!("\n{}", table.text(false)))?;
        let failures = self.secrets.iter().filter_map(|line| line.last_failure.as_ref());
        failures.map(|why| format!("last failure: {why}")).try_for_each(|line| render::line(&line))
    }

    /// The flags that would allow what was reached, each once.
    fn flags(&self) -> Vec<String> {
        let mut flags: Vec<String> = self.reached.iter().filter_map(|line| line.allow.clone()).collect();
        flags.sort();
        flags.dedup();
        flags
    }

    fn adopt(&self) {
        match self.flags().as_slice() {
            [] => render::note("[vm run] observed: it went nowhere"),
            flags => render::note(&format!("[vm run] observed; to allow just this:\n  {}", flags.join(" \\\n  "))),
        }
    }

    /// Requests with secrets that came to nothing: what the guest saw of it may say little.
    fn tell_failures(&self) {
        for line in self.secrets.iter().filter(|line| line.failed > 0) {
            let why = line.last_failure.as_deref().unwrap_or("unknown");
            let (host, failed) = (&line.host, line.failed);
            render::note(&format!("[vm run] {failed}x a request to {host}, a secret's host, failed; the last: {why}"));
        }
    }

    fn hint(&self) {
        // By what would allow it: a name that was asked for and packets to its address are one matter.
        let mut wanted: BTreeMap<&str, u64> = BTreeMap::new();
        for line in &self.refused {
            if let Some(flag) = &line.allow {
                *wanted.entry(flag).or_default() += line.count;
            }
        }
        if wanted.is_empty() {
            return;
        }
        let mut wanted: Vec<(&str, u64)> = wanted.into_iter().collect();
        wanted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let beyond = wanted.len().saturating_sub(NAMED);
        let mut text = String::from("[vm run] the network refused some of what it asked for; to allow it:");
        for (flag, count) in wanted.iter().take(NAMED) {
            text.push_str(&format!("\n  {flag}      ({count}x)"));
        }
        if beyond > 0 {
            text.push_str(&format!("\n  and {beyond} more; to allow everything: --nat"));
        }
        render::note(&text);
    }
}

fn print_lines(title: &'static str, lines: &[Line], beyond: u64, with_cure: bool) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut headers = vec![title, "ADDRESS", "PROTO", "PORT", "COUNT"];
    headers.extend(with_cure.then_some("TO ALLOW IT"));
    let table = Table::new(&headers, lines.iter().map(|line| line.row(with_cure)));
    render::text(&format!("\n{}", table.text(false)))?;
    match beyond {
        0 => Ok(()),
        beyond => render::line(&format!("and {beyond} more, to where there was no room to count apart")),
    }
}

impl SecretLine {
    fn of(report: &EgressReport, used: &SecretUse) -> Self {
        let names = report.secrets.iter().filter(|secret| secret.hosts.contains(&used.host));
        Self {
            host: used.host.to_string(),
            names: names.map(|secret| secret.name.to_string()).collect(),
            requests: used.requests,
            with_secret: used.with_secret,
            failed: used.failed,
            last_failure: used.last_failure.clone(),
        }
    }

    fn row(&self) -> Vec<String> {
        let counts = [self.requests, self.with_secret, self.failed].map(|count| count.to_string());
        [vec![self.host.clone(), self.names.join(" ")], counts.to_vec()].concat()
    }
}

impl Line {
    fn row(&self, with_cure: bool) -> Vec<String> {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let mut row = vec![
            or_none(self.host.clone()),
            or_none(self.address.clone()),
            self.protocol.to_owned(),
            or_none(self.port.map(|port| port.to_string())),
            self.count.to_string(),
        ];
        let cure = self.note.map(str::to_owned).or_else(|| self.allow.clone());
        row.extend(with_cure.then(|| or_none(cure)));
        row
    }
}

fn line(flow: &NamedFlow, allow: Option<String>, note: Option<&'static str>) -> Line {
    Line {
        host: flow.name.clone(),
        address: Some(flow.flow.to.to_string()),
        protocol: protocol(flow.flow.transport),
        port: flow.flow.port,
        count: flow.flow.count,
        allow,
        note,
    }
}

fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::TCP => "tcp",
        Transport::UDP => "udp",
        Transport::ICMP => "icmp",
        Transport(_) => "other",
    }
}

/// The flag for a destination: by its name where it has one, and its port where it has one.
fn allow(flow: &NamedFlow) -> Option<String> {
    let by_name = flow.name.as_ref().and_then(|name| name.parse().ok()).map(Destination::Name);
    let to = by_name.unwrap_or(Destination::Net(Cidr::host(flow.flow.to)));
    Some(format!("--allow {}", Grant { to, port: flow.flow.port }))
}

fn refused_flow(report: &EgressReport, flow: &NamedFlow) -> Line {
    let (to, transport) = (flow.flow.to, flow.flow.transport);
    let is_host = report.network.is_some_and(|(_, gateway)| gateway == to);
    let in_network = |network: std::net::Ipv4Addr| network.octets()[..3] == to.octets()[..3];
    let is_guest = !is_host && report.network.is_some_and(|(network, _)| in_network(network));
    match transport {
        // DNS has told the guest that it is there.
        _ if is_host && flow.name.is_some() => line(flow, None, Some("a secret's host: only HTTPS leads there")),
        _ if is_guest => line(flow, None, Some("another VM: never allowed")),
        Transport::TCP | Transport::UDP | Transport::ICMP if is_private(flow) => {
            line(flow, allow(&NamedFlow { name: None, flow: flow.flow.clone() }), None)
        }
        Transport::TCP | Transport::UDP | Transport::ICMP => line(flow, allow(flow), None),
        // Only addresses open what has no ports.
        Transport(_) => line(flow, allow(&NamedFlow { name: None, flow: flow.flow.clone() }), None),
    }
}

/// A name never opens what is not the internet's.
fn is_private(flow: &NamedFlow) -> bool {
    !crate::model::scope::is_public(flow.flow.to)
}

fn refused_name(name: &CountedName, note: Option<&'static str>) -> Line {
    let allow =
        name.name.parse().ok().map(|name| format!("--allow {}", Grant { to: Destination::Name(name), port: None }));
    Line {
        host: Some(name.name.clone()),
        address: None,
        protocol: "dns",
        port: None,
        count: name.count,
        allow: allow.filter(|_| note.is_none()),
        note,
    }
}
