//! The rules among those of others, and how long they take.

use std::time::{Duration, Instant};

use banger::model::{Egress, Reach, Slot, Subnet};
use banger::net::rules::{self, Admission, Guest};

use crate::exec::BOOT;
use crate::fake::on_the_fake_monitor;
use crate::flows;
use crate::internet::{Entry, Internet};
use crate::world::World;

/// What docker 20 to 28 makes of an empty host, by hand (`iptables -S`, and its nat table), and what ufw has
/// `INPUT` do.
const DOCKER: &str = "
    sysctl -qw net.ipv4.ip_forward=1
    ip link add docker0 type bridge && ip address add 172.17.0.1/16 dev docker0 && ip link set docker0 up
    iptables -P FORWARD DROP
    iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    iptables -A INPUT -i lo -j ACCEPT
    iptables -A INPUT -i up0 -j ACCEPT
    iptables -P INPUT DROP
    for chain in DOCKER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2 DOCKER-USER; do iptables -N $chain; done
    iptables -A FORWARD -j DOCKER-USER
    iptables -A FORWARD -j DOCKER-ISOLATION-STAGE-1
    iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    iptables -A FORWARD -o docker0 -j DOCKER
    iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
    iptables -A FORWARD -i docker0 -o docker0 -j ACCEPT
    iptables -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
    iptables -A DOCKER-ISOLATION-STAGE-1 -j RETURN
    iptables -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
    iptables -A DOCKER-ISOLATION-STAGE-2 -j RETURN
    iptables -A DOCKER-USER -j RETURN
    iptables -t nat -N DOCKER
    iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
    iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
    iptables -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
    iptables -t nat -A DOCKER -i docker0 -j RETURN";

/// A guest with `--nat` gets out although docker drops what it does not know; docker's rules are untouched
/// while it runs but for three with banger's name, and the same to the letter afterwards.
pub fn docker_is_at_home(world: &World) {
    let names = [("web.example", Entry::Addresses(&["203.0.113.80"], 300))];
    let _internet = Internet::connect(world, &names);
    flows::configure(world);
    world.tool("sh", &["-ec", DOCKER]).output().ok();
    // Without what the counters say.
    let rules = || world.tool("nft", &["-s", "list", "ruleset"]).output().ok().text();
    let before = rules();
    world.start();
    let run =
        ["vm", "run", "--name", "box", "--nat", "--", "bash", "-c", "exec 3<>/dev/tcp/web.example/80; head -n 1 <&3"];
    let said = world.banger(&run).limit(BOOT).output().ok().text();
    assert!(said.starts_with("I am 203.0.113.80:80, you are 203.0.113.1"), "{said}");
    let added: Vec<String> = foreign(&rules()).into_iter().filter(|line| !foreign(&before).contains(line)).collect();
    println!("| docker | rules added to its own | {} |", added.join("; "));
    assert_eq!(added.len(), 3, "{added:?}");
    assert!(added.iter().all(|line| line.contains("br-banger")), "{added:?}");
    let obstacles = world.banger(&["doctor", "-v"]).output().ok().text();
    assert!(!obstacles.contains("warn  firewall"), "{obstacles}");
    world.banger(&["vm", "delete", "box"]).limit(BOOT).output().ok();
    assert_eq!(rules(), before, "docker's rules are not what they were");
    let forwards = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("read");
    assert_eq!(forwards.trim(), "1", "docker needs a host that forwards");
    println!("| docker | the ruleset after the last VM | the same to the letter |");
    somebody_elses_drop_is_explained(world);
}

/// The lines of the ruleset outside banger's tables.
fn foreign(rules: &str) -> Vec<String> {
    let mut ours = false;
    let mut lines = Vec::new();
    for line in rules.lines() {
        if line.starts_with("table ") {
            ours = line.contains(" banger ");
        }
        if !ours {
            lines.push(line.trim().to_owned());
        }
    }
    lines
}

/// A drop that no rule of banger's may change is named by `doctor`, with what to type.
fn somebody_elses_drop_is_explained(world: &World) {
    let theirs = "table inet fence {\n chain gate {\n type filter hook forward priority 0; policy drop;\n }\n}\n";
    world.tool("nft", &["-f", "-"]).input(theirs).output().ok();
    let said = world.banger(&["doctor"]).output().text();
    assert!(said.contains("`inet fence gate` drops") && said.contains("nft insert rule inet fence gate"), "{said}");
    println!("| another firewall | doctor | {} |", said.lines().find(|l| l.contains("fence")).unwrap_or_default());
}

/// How many guests' rules are made, and how many of the first and last are compared.
const GUESTS: u8 = 100;
const COMPARED: usize = 20;

/// The hundredth guest's rules take what the first's took.
pub fn hundred_guests_cost_the_same(world: &World) {
    let subnet: Subnet = "172.30.7.0/24".parse().expect("a subnet");
    let egress = Egress {
        reach: Reach::Nat,
        grants: ["10.0.0.0/8:443", "192.168.7.1", "example.org"].map(|grant| grant.parse().expect("a grant")).into(),
    };
    let apply = |text: String| {
        let began = Instant::now();
        world.tool("nft", &["-f", "-"]).input(text).output().ok();
        began.elapsed()
    };
    apply(rules::base(subnet, &[]));
    let admission = |number| Admission {
        guest: Guest::new(subnet, Slot::new(number).expect("a slot")),
        passage: egress.passage(),
        ports: Vec::new(),
    };
    let times: Vec<Duration> = (1..=GUESTS).map(|n| apply(rules::admit(&admission(n)))).collect();
    let median = |times: &[Duration]| {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        sorted[sorted.len() / 2].as_secs_f64() * 1000.0
    };
    let (first, last) = (median(&times[..COMPARED]), median(&times[times.len() - COMPARED..]));
    println!(
        "| rules of one guest more | the first {COMPARED}: {first:.1} ms | the last {COMPARED} of {GUESTS}: {last:.1} ms |"
    );
    assert!(last < first * 2.5 + 10.0, "adding the hundredth guest takes {last} ms, the first {first} ms");
    let gone: Vec<Duration> = (1..=GUESTS).rev().map(|n| apply(rules::dismiss(admission(n).guest, &[]))).collect();
    println!(
        "| rules of one guest less | with {GUESTS}: {:.1} ms | with few: {:.1} ms |",
        median(&gone[..COMPARED]),
        median(&gone[gone.len() - COMPARED..])
    );
    apply(rules::removal());
    assert_eq!(world.tool("nft", &["list", "ruleset"]).output().ok().text(), "");
}

/// Rules that somebody flushed are made again at once, and nothing of a killed helper stays.
pub fn flushed_or_killed_they_come_back(world: &World) {
    let world = &on_the_fake_monitor(world);
    world.start();
    world.banger(&["vm", "create", "--name", "one", "--nat"]).output().ok();
    let rules = || world.tool("nft", &["list", "ruleset"]).output().ok().text();
    let whole = rules();
    let began = Instant::now();
    world.tool("nft", &["flush", "ruleset"]).output().ok();
    while rules().lines().count() != whole.lines().count() {
        assert!(began.elapsed() < Duration::from_secs(5), "flushed rules do not come back: {}", rules());
    }
    println!("| `nft flush ruleset` under a guest | its rules are back after {} ms |", began.elapsed().as_millis());
    assert_eq!(forwards(), "1");
    crate::daemons::lose_both(world);
    world.banger(&["vm", "egress", "one"]).output().ok();
    assert_eq!(rules().lines().count(), whole.lines().count());
    crate::daemons::lose_both(world);
    world.banger(&["vm", "delete", "one"]).output().ok();
    assert_eq!((rules().as_str(), forwards().as_str()), ("", "0"));
}

fn forwards() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("read").trim().to_owned()
}
