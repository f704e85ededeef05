//! `vm ping|health|ports`: questions to a guest's agent. What a guest answers is its own
//! claim: it is shown escaped.

use std::time::Instant;

use super::super::args::VmQuestion;
use super::super::client::unexpected;
use super::super::report::Failure;
use super::super::{autostart, render};
use crate::host::paths::Paths;
use crate::protocol::guest::{GuestReply, Health, ListeningPort};
use crate::protocol::owner::{AgentQuestion, OwnerReply, OwnerRequest};

#[derive(serde::Serialize)]
struct PingView<'a> {
    name: &'a str,
    answered: bool,
    milliseconds: u64,
}

/// Asks and prints the answer.
pub fn ask(asked: &VmQuestion, question: AgentQuestion) -> Result<(), Failure> {
    let mut client = autostart::connect(&Paths::current())?;
    let begun = Instant::now();
    let reply = client.ask(OwnerRequest::AskAgent { name: asked.name.clone(), question })?;
    let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let OwnerReply::Agent(answer) = reply else { return Err(unexpected(&reply)) };
    match (answer, asked.json) {
        (GuestReply::Done, true) => render::json(&PingView { name: asked.name.as_str(), answered: true, milliseconds }),
        (GuestReply::Done, false) => render::line(&format!("{} answers in {milliseconds} ms", asked.name)),
        (GuestReply::Health(health), true) => render::json(&health),
        (GuestReply::Health(health), false) => render::text(&health_text(&health)),
        (GuestReply::Ports(ports), true) => render::json(&ports),
        (GuestReply::Ports(ports), false) => render::text(&ports_text(&ports)),
        (other @ (GuestReply::Stats(_) | GuestReply::Shell { .. } | GuestReply::ShellPort { .. }), _) => {
            Err(unexpected(&OwnerReply::Agent(other)))
        }
    }
}

fn health_text(health: &Health) -> String {
    let mut facts = vec![
        ("ssh", if health.ssh { "answers" } else { "does not answer" }.to_owned()),
        ("uptime", render::duration(health.uptime_s)),
        ("kernel", health.kernel.clone()),
        ("init", health.init.clone()),
    ];
    facts.extend(health.system_state.iter().map(|s| ("system", s.clone())));
    facts.extend(health.troubles.iter().map(|t| ("trouble", t.clone())));
    render::facts(&facts)
}

fn ports_text(ports: &[ListeningPort]) -> String {
    let row = |port: &ListeningPort| {
        let pid = port.pid.map(|p| p.to_string());
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        vec![port.port.to_string(), port.address.clone(), or_dash(port.process.clone()), or_dash(pid)]
    };
    render::table(&["PORT", "ADDRESS", "PROCESS", "PID"], &ports.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_write_more_than_one_line_per_claim() {
        let port = ListeningPort { address: "0.0.0.0".into(), port: 80, process: Some("a\nb\x1b".into()), pid: None };
        assert_eq!(ports_text(&[port]).lines().count(), 2);
    }
}
