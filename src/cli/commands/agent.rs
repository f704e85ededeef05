//! `vm ping|health|ports`: questions to a guest's agent. What a guest answers is its own
//! claim: it is shown escaped.

use std::net::IpAddr;
use std::time::Instant;

use super::super::args::VmQuestion;
use super::super::client::unexpected;
use super::super::report::Failure;
use super::super::table::Table;
use super::super::{autostart, render};
use crate::host::paths::Paths;
use crate::model::VmRecord;
use crate::model::publish::{Protocol, PublishedPort};
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
        (GuestReply::Ports(ports), json) => {
            let vm = match client.ask(OwnerRequest::ShowVm { name: asked.name.clone() })? {
                OwnerReply::Vm(vm) => vm,
                other => return Err(unexpected(&other)),
            };
            let ports: Vec<PortView<'_>> = ports.iter().map(|port| PortView::of(port, &vm)).collect();
            if json { render::json(&ports) } else { render::text(&ports_text(&ports)) }
        }
        (
            other @ (GuestReply::Stats(_)
            | GuestReply::Shell { .. }
            | GuestReply::ShellPort { .. }
            | GuestReply::Activity(_)),
            _,
        ) => Err(unexpected(&OwnerReply::Agent(other))),
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

/// Who listens, and how to get there.
#[derive(serde::Serialize)]
struct PortView<'a> {
    address: &'a str,
    port: u16,
    process: Option<&'a str>,
    pid: Option<u32>,
    /// From the host, where it can be reached from there at all.
    url: Option<String>,
    /// Addresses and ports of the host that lead there.
    published: Vec<String>,
}

impl<'a> PortView<'a> {
    fn of(port: &'a ListeningPort, vm: &VmRecord) -> Self {
        let leads = |p: &&PublishedPort| p.guest == port.port && p.protocol == Protocol::Tcp;
        let is_reachable = !port.address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let published = vm.spec.ports.iter().filter(leads).filter(|_| is_reachable);
        Self {
            address: &port.address,
            port: port.port,
            process: port.process.as_deref(),
            pid: port.pid,
            url: is_reachable.then(|| url(vm, port.port)),
            published: published.map(|p| format!("{}:{}", p.address, p.host)).collect(),
        }
    }
}

/// What is customary on a port; on all others, http.
fn url(vm: &VmRecord, port: u16) -> String {
    let host = format!("{}.vm", vm.spec.name);
    match port {
        22 => format!("ssh://root@{host}"),
        80 => format!("http://{host}"),
        443 => format!("https://{host}"),
        port => format!("http://{host}:{port}"),
    }
}

fn ports_text(ports: &[PortView<'_>]) -> String {
    let row = |port: &PortView<'_>| {
        let or_dash = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
        vec![
            port.port.to_string(),
            port.address.to_owned(),
            or_dash(port.process.map(str::to_owned)),
            or_dash(port.pid.map(|p| p.to_string())),
            or_dash(port.url.clone()),
            or_dash(Some(port.published.join(" "))),
        ]
    };
    let headers = ["PORT", "ADDRESS", "PROCESS", "PID", "URL", "PUBLISHED"];
    Table::new(&headers, ports.iter().map(row)).text(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::choice::{Accel, VmmKind};
    use crate::model::{Egress, Mib, VmId, VmSpec};

    #[test]
    fn a_guest_cannot_write_more_than_one_line_per_claim() {
        let port = ListeningPort { address: "0.0.0.0".into(), port: 80, process: Some("a\nb\x1b".into()), pid: None };
        assert_eq!(ports_text(&[PortView::of(&port, &vm())]).lines().count(), 2);
    }

    fn vm() -> VmRecord {
        let [name, image] = ["box", "i"];
        let spec = VmSpec {
            name: name.parse().expect("a name"),
            image: image.parse().expect("a name"),
            kernel: image.parse().expect("a name"),
            vcpus: 1,
            memory: Mib(512),
            disk: Mib(4096),
            init: None,
            egress: Egress::default(),
            ports: ["8080:80", "0.0.0.0:81:80", "53:80/udp"].map(|port| port.parse().expect("a port")).into(),
            secrets: Vec::new(),
            environment: Vec::new(),
            idle_stop: None,
        };
        VmRecord::asked_for(VmId::from_random(1), spec, VmmKind::Fake, Accel::Tcg, 0)
    }

    #[test]
    fn whoever_listens_is_shown_with_the_way_there() {
        let port = |address: &str, port| ListeningPort { address: address.into(), port, process: None, pid: None };
        let (web, local) = (port("0.0.0.0", 80), port("127.0.0.1", 80));
        let web = PortView::of(&web, &vm());
        assert_eq!(web.url.as_deref(), Some("http://box.vm"));
        assert_eq!(web.published, ["127.0.0.1:8080", "0.0.0.0:81"]);
        let local = PortView::of(&local, &vm());
        assert!(local.url.is_none() && local.published.is_empty());
        assert_eq!(PortView::of(&port("::", 3000), &vm()).url.as_deref(), Some("http://box.vm:3000"));
    }
}
