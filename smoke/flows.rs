//! Where guests get under each policy: many attempts, each of which must come to exactly what is expected.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use crate::exec::BOOT;
use crate::guests::wait_for_distribution;
use crate::internet::{DNS, Entry, HOST, Internet};
use crate::world::World;

/// What attempts in a guest.
const FLOWS: &str = include_str!("flows.pl");

/// The guests: their name, and what is typed to make them.
const POLICIES: [(&str, &[&str]); 3] = [
    ("none", &[]),
    ("nat", &["--nat"]),
    (
        "allow",
        &[
            "--allow",
            "web.example:80",
            "--allow",
            "alias.example:80",
            "--allow",
            "*.wild.example:443",
            "--allow",
            "any.example",
            "--allow",
            "short.example:80",
            "--allow",
            "rebind.example",
            "--allow",
            "mixed.example:80",
            "--allow",
            "203.0.113.86:8080",
            "--allow",
            "203.0.113.88/31",
            "--allow",
            "192.168.77.1:8080",
        ],
    ),
];

const NAMES: [(&str, Entry); 11] = [
    ("web.example", Entry::Addresses(&["203.0.113.80"], 300)),
    ("other.example", Entry::Addresses(&["203.0.113.81"], 300)),
    ("short.example", Entry::Addresses(&["203.0.113.82"], 1)),
    ("sub.wild.example", Entry::Addresses(&["203.0.113.83"], 300)),
    ("wild.example", Entry::Addresses(&["203.0.113.84"], 300)),
    ("any.example", Entry::Addresses(&["203.0.113.85"], 300)),
    ("alias.example", Entry::Alias("one.cdn.example", 300)),
    ("one.cdn.example", Entry::Alias("two.cdn.example", 300)),
    ("two.cdn.example", Entry::Addresses(&["203.0.113.90"], 300)),
    ("mixed.example", Entry::Addresses(&["203.0.113.84", "192.168.77.10"], 300)),
    ("rebind.example", Entry::Addresses(&["192.168.77.10", "169.254.169.254", "127.0.0.1"], 300)),
];

/// What is attempted, and what comes of it under each policy.
struct Flow(&'static str, &'static str, [&'static str; 3]);

const OPEN: &str = "reaches";
const REFUSED: &str = "refused";
const NO_NAME: &str = "no-name";

/// Never, for anybody.
const NEVER: [&str; 3] = [REFUSED; 3];

/// Attempts in their order: an address is not open before its name was looked up. `GATEWAY`, `NEIGHBOUR` and
/// `SELF` stand for addresses.
const ATTEMPTS: [Flow; 53] = [
    Flow("by-address-before-its-name", "tcp 203.0.113.80 80", [REFUSED, OPEN, REFUSED]),
    Flow("by-name", "tcp web.example 80", [NO_NAME, OPEN, OPEN]),
    Flow("by-name-again", "tcp web.example 80", [NO_NAME, OPEN, OPEN]),
    Flow("by-address-after-its-name", "tcp 203.0.113.80 80", [REFUSED, OPEN, OPEN]),
    Flow("by-name-other-port", "tcp web.example 443", [NO_NAME, OPEN, REFUSED]),
    Flow("by-name-udp", "udp web.example 4444", [NO_NAME, OPEN, REFUSED]),
    Flow("by-name-ping", "ping web.example", [NO_NAME, OPEN, REFUSED]),
    Flow("other-name", "tcp other.example 80", [NO_NAME, OPEN, NO_NAME]),
    Flow("other-name-by-address", "tcp 203.0.113.81 80", [REFUSED, OPEN, REFUSED]),
    Flow("no-such-name", "tcp nothing.example 80", [NO_NAME, NO_NAME, NO_NAME]),
    Flow("name-in-other-case", "tcp WEB.Example 80", [NO_NAME, OPEN, OPEN]),
    Flow("alias", "tcp alias.example 80", [NO_NAME, OPEN, OPEN]),
    Flow("end-of-alias-by-address", "tcp 203.0.113.90 80", [REFUSED, OPEN, OPEN]),
    Flow("end-of-alias-by-name", "tcp two.cdn.example 80", [NO_NAME, OPEN, NO_NAME]),
    Flow("wildcard", "tcp sub.wild.example 443", [NO_NAME, OPEN, OPEN]),
    Flow("wildcard-other-port", "tcp sub.wild.example 80", [NO_NAME, OPEN, REFUSED]),
    Flow("wildcard-its-domain", "tcp wild.example 443", [NO_NAME, OPEN, NO_NAME]),
    Flow("any-port-tcp", "tcp any.example 8080", [NO_NAME, OPEN, OPEN]),
    Flow("any-port-udp", "udp any.example 4444", [NO_NAME, OPEN, OPEN]),
    Flow("any-port-ping", "ping any.example", [NO_NAME, OPEN, OPEN]),
    Flow("granted-address", "tcp 203.0.113.86 8080", [REFUSED, OPEN, OPEN]),
    Flow("granted-address-other-port", "tcp 203.0.113.86 80", [REFUSED, OPEN, REFUSED]),
    Flow("granted-address-ping", "ping 203.0.113.86", [REFUSED, OPEN, REFUSED]),
    Flow("granted-network", "tcp 203.0.113.88 443", [REFUSED, OPEN, OPEN]),
    Flow("granted-network-udp", "udp 203.0.113.88 4444", [REFUSED, OPEN, OPEN]),
    Flow("granted-network-ping", "ping 203.0.113.88", [REFUSED, OPEN, OPEN]),
    Flow("beside-granted-network", "tcp 203.0.113.85 22", [REFUSED, REFUSED, REFUSED]),
    Flow("udp-by-address", "udp 203.0.113.81 4444", [REFUSED, OPEN, REFUSED]),
    Flow("ping-by-address", "ping 203.0.113.81", [REFUSED, OPEN, REFUSED]),
    Flow("http3", "udp 203.0.113.81 443", [REFUSED, OPEN, REFUSED]),
    Flow("dns-of-banger", "dns GATEWAY web.example 1 udp", ["nxdomain", OPEN, OPEN]),
    Flow("dns-of-banger-tcp", "dns GATEWAY web.example 1 tcp", ["nxdomain", OPEN, OPEN]),
    Flow("dns-other-name-tcp", "dns GATEWAY other.example 1 tcp", ["nxdomain", OPEN, "nxdomain"]),
    Flow("dns-text-of-granted", "dns GATEWAY web.example 16 udp", ["nxdomain", "empty", "empty"]),
    Flow("dns-tunnel", "dns GATEWAY ZGF0YQ.tunnel.example 16 udp", ["nxdomain", "nxdomain", "nxdomain"]),
    Flow("dns-of-itself", "dns GATEWAY SELF.vm 1 udp", [OPEN; 3]),
    Flow("dns-of-another-server", "dns 203.0.113.54 web.example 1 udp", [REFUSED, OPEN, REFUSED]),
    Flow("dns-of-another-server-tcp", "dns 203.0.113.54 web.example 1 tcp", [REFUSED, OPEN, REFUSED]),
    Flow("dns-of-the-hosts-server", "dns 203.0.113.53 web.example 1 udp", [REFUSED, OPEN, REFUSED]),
    Flow("rebinding-answer", "tcp rebind.example 80", [NO_NAME, REFUSED, NO_NAME]),
    Flow("partly-rebinding-answer", "tcp mixed.example 80", [NO_NAME, OPEN, OPEN]),
    Flow("lan", "tcp 192.168.77.10 80", NEVER),
    Flow("lan-udp", "udp 192.168.77.10 4444", NEVER),
    Flow("metadata", "tcp 169.254.169.254 80", NEVER),
    Flow("metadata-of-another-cloud", "tcp 168.63.129.16 80", NEVER),
    Flow("host-on-the-bridge", "tcp GATEWAY 8080", NEVER),
    Flow("host-by-its-public-address", "tcp 203.0.113.1 8080", NEVER),
    Flow("host-udp", "udp 203.0.113.1 4444", NEVER),
    Flow("host-granted-address", "tcp 192.168.77.1 8080", [REFUSED, REFUSED, OPEN]),
    Flow("host-granted-address-other-port", "tcp 192.168.77.1 4444", NEVER),
    Flow("other-guest", "tcp NEIGHBOUR 22", NEVER),
    Flow("other-guest-ping", "ping NEIGHBOUR", NEVER),
    Flow("ipv6", "ipv6 2001:db8::1 80", NEVER),
];

/// The table, then what takes time or changes.
pub fn are_as_granted(world: &World) {
    let internet = Internet::connect(world, &NAMES);
    configure(world);
    world.start();
    let _host = Host::open();
    let before = rules_of_others(world);
    for (name, flags) in POLICIES {
        let arguments: Vec<&str> = ["vm", "create", "--name", name].iter().chain(flags).copied().collect();
        world.banger(&arguments).limit(BOOT).output().ok();
    }
    POLICIES.iter().for_each(|(name, _)| wait_for_distribution(world, name));
    let observed: Vec<_> = (0..POLICIES.len()).map(|at| attempt_all(world, at)).collect();
    let wrong = print(&observed);
    assert!(wrong.is_empty(), "{} cells are not as expected: {wrong:?}", wrong.len());
    slow_refusals(&observed);
    no_name_of_a_tunnel_went_out(&internet);
    an_address_closes_with_its_name(world);
    connections_end_with_their_permission(world);
    what_happened_is_told(world);
    nothing_stays(world, &before);
    drop(internet);
}

/// DNS servers are those of this internet.
pub fn configure(world: &World) {
    let folder = world.home();
    std::fs::write(folder.join("config.toml"), format!("[network]\ndns = [\"{DNS}\"]\n")).expect("written");
}

/// What the host answers to others.
struct Host {
    _web: TcpListener,
    _udp: UdpSocket,
}

impl Host {
    fn open() -> Self {
        let web = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).expect("a free port");
        let accepting = web.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            use std::io::Write;
            for mut stream in accepting.incoming().flatten() {
                let _ = stream.write_all(b"I am the host\n");
            }
        });
        let udp = UdpSocket::bind((HOST, 4444)).expect("a free port");
        let answering = udp.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((count, from)) = answering.recv_from(&mut buffer) {
                let _ = answering.send_to(&buffer[..count], from);
            }
        });
        Self { _web: web, _udp: udp }
    }
}

/// By attempt: what came of it, and in how many milliseconds.
type Observed = BTreeMap<String, (String, u64)>;

fn attempt_all(world: &World, at: usize) -> Observed {
    let (name, _) = POLICIES[at];
    let own = world.owner().vm(name).address.expect("it runs");
    let (neighbour, _) = POLICIES[(at + 1) % POLICIES.len()];
    let neighbour = world.owner().vm(neighbour).address.expect("it runs");
    let [a, b, c, _] = own.octets();
    let gateway = Ipv4Addr::new(a, b, c, 1).to_string();
    let line = |Flow(attempt, how, _): &Flow| {
        let how = how.replace("GATEWAY", &gateway).replace("NEIGHBOUR", &neighbour.to_string());
        format!("{attempt} {}\n", how.replace("SELF", name))
    };
    attempt(world, name, &ATTEMPTS.iter().map(line).collect::<String>())
}

fn attempt(world: &World, name: &str, lines: &str) -> Observed {
    let script = format!("cat > /tmp/flows.pl <<'END'\n{FLOWS}\nEND\nperl /tmp/flows.pl <<'END'\n{lines}END\n");
    let said = world.guest(name, &["bash", "-s"]).input(script).limit(240).output().ok().text();
    let read = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let (attempt, came) = (words.next()?, words.next()?);
        Some((attempt, (came, words.next()?.parse().ok()?)))
    };
    said.lines().filter_map(read).collect()
}

/// Prints the table; returns what is not as expected.
fn print(observed: &[Observed]) -> Vec<String> {
    let mut wrong = Vec::new();
    println!("| attempt | none: expected | observed | --nat: expected | observed | --allow: expected | observed |");
    for Flow(attempt, _, expected) in &ATTEMPTS {
        let mut row = format!("| {attempt} |");
        for (at, expected) in expected.iter().enumerate() {
            let came = observed[at].get(*attempt).map_or("nothing", |(came, _)| came.as_str());
            row.push_str(&format!(" {expected} | {came} |"));
            if came != *expected {
                wrong.push(format!("{attempt} under {}: {came}, not {expected}", POLICIES[at].0));
            }
        }
        println!("{row}");
    }
    wrong
}

/// Refused is refused at once, not after a silence.
fn slow_refusals(observed: &[Observed]) {
    let refusals = observed.iter().flatten().filter(|(_, (came, _))| [REFUSED, NO_NAME].contains(&came.as_str()));
    let mut times: Vec<u64> = refusals.map(|(_, (_, took))| *took).collect();
    times.sort_unstable();
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    println!("| {} refusals: median {median} ms, longest {most} ms |", times.len());
    assert!(most < 1500, "a refusal took {most} ms");
}

/// A guest with an allow-list asks the host's servers for nothing but granted names.
fn no_name_of_a_tunnel_went_out(internet: &Internet) {
    let asked = internet.asked();
    assert!(asked.iter().any(|name| name.starts_with("web.example")), "{asked:?}");
    let tunnels = asked.iter().filter(|name| name.contains("tunnel")).count();
    assert_eq!(tunnels, 1, "only the guest with --nat may ask for that: {asked:?}");
}

/// An address is open for as long as its name's answer lasts, and no longer.
fn an_address_closes_with_its_name(world: &World) {
    let lines = "first tcp short.example 80\nopen tcp 203.0.113.82 80\npause sleep 8\nclosed tcp 203.0.113.82 80\n\
        again tcp short.example 80\n";
    let came = attempt(world, "allow", lines);
    for (name, expected) in [("first", OPEN), ("open", OPEN), ("closed", REFUSED), ("again", OPEN)] {
        println!("| time to live of a second: {name} | {expected} | {} |", came[name].0);
        assert_eq!(came[name].0, expected, "{name}");
    }
}

/// `--nat off` and `--disallow` end connections that are open, and others stay.
fn connections_end_with_their_permission(world: &World) {
    let talk = "exec 3<>/dev/tcp/$1/$2; read -r hello <&3; echo connected
        for _ in $(seq 60); do
            echo still >&3; read -t 2 -r back <&3 || break; [ \"$back\" = still ] || break; echo alive; sleep 0.2
        done; echo cut";
    let connect = |name: &str, address: &str, port: &str| {
        let talking = world.guest(name, &["bash", "-c", talk, "talk", address, port]).limit(60).spawn();
        talking.wait_for_output("alive");
        talking
    };
    let [by_nat, by_address] = [connect("nat", "203.0.113.81", "80"), connect("allow", "203.0.113.86", "8080")];
    let stays = connect("allow", "203.0.113.88", "80");
    world.banger(&["vm", "set", "nat", "--nat", "off"]).output().ok();
    world.banger(&["vm", "set", "allow", "--disallow", "203.0.113.86:8080"]).output().ok();
    by_nat.wait_for_output("cut");
    by_address.wait_for_output("cut");
    let alive = |text: &str| text.lines().filter(|line| *line == "alive").count();
    let stayed = stays.wait().ok().text();
    assert_eq!(alive(&stayed), 60, "a connection that is still allowed was cut: {stayed}");
    println!("| connections after --nat off, after --disallow, of what stays | cut, cut, kept | cut, cut, kept |");
    let came = attempt(world, "nat", "now tcp 203.0.113.81 80\n");
    assert_eq!(came["now"].0, REFUSED);
    world.banger(&["vm", "set", "nat", "--nat", "on"]).output().ok();
    assert_eq!(attempt(world, "nat", "now tcp 203.0.113.81 80\n")["now"].0, OPEN);
    world.banger(&["vm", "set", "allow", "--disallow", "203.0.113.86:8080"]).output().ends(3);
}

/// `vm egress` names what was reached and refused, and the flag that would allow it.
fn what_happened_is_told(world: &World) {
    let told = world.banger(&["vm", "egress", "allow", "--json"]).output().ok().text();
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let line = |list: &str, key: &str, value: &str| {
        let lines = told[list].as_array().expect("a list");
        lines
            .iter()
            .find(|line| line[key] == value)
            .unwrap_or_else(|| panic!("{value} is not in {list}: {told}"))
            .clone()
    };
    let reached = line("reached", "host", "web.example");
    assert_eq!((&reached["protocol"], &reached["port"]), (&"tcp".into(), &80.into()));
    assert!(reached["count"].as_u64() >= Some(3), "{reached}");
    assert_eq!(line("refused", "host", "other.example")["allow"], "--allow other.example");
    assert_eq!(line("refused", "allow", "--allow 203.0.113.81:80")["address"], "203.0.113.81");
    assert_eq!(line("refused", "address", "169.254.169.254")["allow"], "--allow 169.254.169.254:80");
    assert!(line("refused", "host", "rebind.example")["note"].is_string());
    println!("{}", world.banger(&["vm", "egress", "allow"]).output().ok().text());
    let run =
        ["vm", "run", "--rm", "--observe", "--", "bash", "-c", "exec 3<>/dev/tcp/web.example/80; cat <&3 & sleep 1"];
    let said = world.banger(&run).limit(BOOT).output().ok();
    assert!(said.stderr.contains("--allow web.example:80"), "{}", said.stderr);
    let run = ["vm", "run", "--rm", "--", "bash", "-c", "exec 3<>/dev/tcp/web.example/80"];
    let said = world.banger(&run).limit(BOOT).output().ends(1);
    assert!(said.stderr.contains("--allow web.example"), "{}", said.stderr);
}

/// All rules but banger's, and whether the host forwards.
fn rules_of_others(world: &World) -> (String, String) {
    let rules = world.tool("nft", &["list", "ruleset"]).output().ok().text();
    (rules, std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("read"))
}

fn nothing_stays(world: &World, before: &(String, String)) {
    for (name, _) in POLICIES {
        world.banger(&["vm", "delete", name]).limit(BOOT).output().ok();
    }
    assert_eq!(&rules_of_others(world), before);
    assert_eq!(before.1.trim(), "0", "this host did not forward before");
}
