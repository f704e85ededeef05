//! What a guest can reach: nothing of its neighbours, nothing of its host but DNS.
//!
//! Each attempt is made twice: under banger's rules, and once more without them, where it must
//! succeed. An attempt that nothing but its own mistakes has stopped proves nothing.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use banger::model::{MacAddr, TapName, VmRecord};
use banger::net::rules::BRIDGE;

use crate::exec::BOOT;
use crate::guests::wait_for_distribution;
use crate::world::World;

/// What sends and hears frames in a guest.
const FRAMES: &str = include_str!("frames.pl");

/// An address of the host that is not the bridge's (RFC 5737).
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// Where the host listens on UDP: `echo` needs no more than somebody who hears it.
const UDP: [u16; 7] = [53, 54, 67, 123, 4444, 5353, 65535];

/// An attempt, and where it aims at.
type Attempt = (&'static str, &'static str);

const HOST: &str = "host";
const NEIGHBOUR: &str = "neighbour";

const ATTEMPTS: [Attempt; 36] = [
    ("own-frame", HOST),
    ("tcp-53", HOST),
    ("tcp-4444", HOST),
    ("tcp-4444-elsewhere", HOST),
    ("udp-53", HOST),
    ("udp-54", HOST),
    ("udp-67", HOST),
    ("udp-123", HOST),
    ("udp-4444", HOST),
    ("udp-5353", HOST),
    ("udp-65535", HOST),
    ("ping", HOST),
    ("ipv6-link-local", HOST),
    ("stolen-mac", HOST),
    ("stolen-mac-learned", HOST),
    ("neighbours-mac", HOST),
    ("neighbours-address", HOST),
    ("neighbours-both", HOST),
    ("own-mac-changed", HOST),
    ("own-address-changed", HOST),
    ("answers-at-free-address", HOST),
    ("arp-i-am-the-neighbour", HOST),
    ("tcp-22", NEIGHBOUR),
    ("tcp-22-through-the-host", NEIGHBOUR),
    ("ping", NEIGHBOUR),
    ("direct", NEIGHBOUR),
    ("through-the-host", NEIGHBOUR),
    ("as-the-gateway", NEIGHBOUR),
    ("broadcast", NEIGHBOUR),
    ("multicast", NEIGHBOUR),
    ("vlan", NEIGHBOUR),
    ("unknown-ethertype", NEIGHBOUR),
    ("ipv6-link-local", NEIGHBOUR),
    ("ipv6-static", NEIGHBOUR),
    ("arp-who-has-neighbour", NEIGHBOUR),
    ("arp-i-am-the-gateway", NEIGHBOUR),
];

/// DNS, and the frame that proves that frames made by hand arrive at all.
const ALLOWED: [Attempt; 3] = [("own-frame", HOST), ("tcp-53", HOST), ("udp-53", HOST)];

/// The open ports that a sweep finds where nothing but DNS is let in, and where everything is.
const DNS_ALONE: &str = "open: 53";
const EVERYTHING: &str = "open: 53 4444";

/// What has arrived, by attempt and place.
type Arrived = BTreeSet<(String, &'static str)>;

/// All attempts of guest `one`, twice.
pub fn guests_are_apart(world: &World) {
    world.start();
    let create = |name| world.banger(&["vm", "create", "--name", name]).limit(BOOT).spawn();
    for creating in ["one", "two"].map(create) {
        creating.wait().ok();
    }
    ["one", "two"].iter().for_each(|name| wait_for_distribution(world, name));
    let site = Site::of(world);
    // The way that packets between guests take where a host forwards.
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("this namespace forwards");
    world.tool("ip", &["address", "add", &ELSEWHERE.to_string(), "dev", "lo"]).output().ok();
    // Port 53 is heard by the test in the daemon's place.
    world.banger(&["daemon", "stop"]).output().ok();
    let ears = Ears::open(site.gateway);
    world.start();
    let (defended, ports) = (site.attempt_all(&ears), site.sweep());
    // It would make the rules again at once.
    let helper = crate::daemons::pids(world).1;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(helper).expect("a pid"),
        rustix::process::Signal::STOP,
    )
    .expect("the helper can be stopped");
    site.defend_no_more();
    let (open, all_ports) = (site.attempt_all(&ears), site.sweep());
    print(&defended, &open);
    println!("| SYN to each TCP port | host | {DNS_ALONE} | {ports} | {EVERYTHING} | {all_ports} |");
    for attempt in ATTEMPTS {
        assert_eq!(has(&defended, attempt), ALLOWED.contains(&attempt), "{attempt:?} under the rules");
        assert!(has(&open, attempt), "{attempt:?} does not arrive without rules either: it proves nothing");
    }
    for (found, expected) in [(ports, DNS_ALONE), (all_ports, EVERYTHING)] {
        assert!(found.ends_with(expected), "{found}, not {expected}");
        let answering: u32 = found.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
        assert!(answering > 60_000, "only {answering} ports answer at all: {found}");
    }
}

fn print(defended: &Arrived, open: &Arrived) {
    let word = |arrives| if arrives { "arrives" } else { "nothing" };
    println!("| attempt | at | expected | observed | without rules, expected | observed |");
    for attempt in ATTEMPTS {
        let (name, place) = attempt;
        let [allowed, seen, seen_open] =
            [ALLOWED.contains(&attempt), has(defended, attempt), has(open, attempt)].map(word);
        println!("| {name} | {place} | {allowed} | {seen} | arrives | {seen_open} |");
    }
}

fn has(arrived: &Arrived, (name, place): Attempt) -> bool {
    arrived.contains(&(name.to_owned(), place))
}

/// The host's sockets.
struct Ears {
    datagrams: Vec<UdpSocket>,
    _services: [TcpListener; 3],
}

impl Ears {
    fn open(gateway: Ipv4Addr) -> Self {
        let mut datagrams: Vec<UdpSocket> =
            UDP.map(|port| UdpSocket::bind((gateway, port)).expect("a socket of the host")).into();
        datagrams.push(dns_over_ipv6().expect("a socket of the host"));
        datagrams.iter().for_each(|socket| socket.set_nonblocking(true).expect("it can be told not to wait"));
        let service = |address, port| TcpListener::bind((address, port)).expect("a service of the host");
        Self { datagrams, _services: [service(gateway, 53), service(gateway, 4444), service(ELSEWHERE, 4444)] }
    }

    /// The names in all that has arrived.
    fn names(&self) -> Vec<String> {
        let mut buffer = [0; 2048];
        let mut found = Vec::new();
        for socket in &self.datagrams {
            while let Ok(count) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                found.extend(text.split(['<', '>']).nth(1).map(str::to_owned));
            }
        }
        found
    }
}

/// Of IPv6 alone: else it would be in the way of the other's.
fn dns_over_ipv6() -> rustix::io::Result<UdpSocket> {
    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
    let socket = socket(AddressFamily::INET6, SocketType::DGRAM, None)?;
    sockopt::set_ipv6_v6only(&socket, true)?;
    bind(&socket, &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 53, 0, 0))?;
    Ok(UdpSocket::from(socket))
}

/// Two guests and their host.
struct Site<'a> {
    world: &'a World,
    records: [VmRecord; 2],
    one: Ipv4Addr,
    two: Ipv4Addr,
    gateway: Ipv4Addr,
    gateway_mac: String,
}

impl<'a> Site<'a> {
    fn of(world: &'a World) -> Self {
        let records = ["one", "two"].map(|name| world.owner().vm(name));
        let [one, two] = [0, 1].map(|at: usize| records[at].address.expect("a running VM has an address"));
        let [a, b, c, _] = one.octets();
        let link = world.tool("ip", &["-o", "link", "show", "dev", BRIDGE]).output().ok().text();
        let mac = link.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).expect("its address");
        Self { world, records, one, two, gateway: Ipv4Addr::new(a, b, c, 1), gateway_mac: mac.to_owned() }
    }

    /// `program` in guest `one`, with `input`.
    fn in_one(&self, command: &[&str], input: &str) -> crate::command::Output {
        self.world.guest("one", command).input(input).limit(180).output()
    }

    fn attempt_all(&self, ears: &Ears) -> Arrived {
        // A card that is not promiscuous drops what has a VLAN or is for another before it is heard.
        self.world.guest("two", &["ip", "link", "set", "eth0", "promisc", "on"]).output().ok();
        let ear = self.world.guest("two", &["perl", "-", "listen"]).input(FRAMES).limit(180).spawn();
        ear.wait_for_output("listening");
        self.tell_neighbour("control");
        self.send_frames();
        let mut arrived = self.look_at_the_host();
        self.speak_by_its_own_kernel();
        self.forget_lies();
        self.tell_neighbour("over");
        let heard = ear.wait().ok().text();
        assert!(heard.lines().any(|name| name == "control"), "the neighbour hears nothing at all");
        arrived.extend(heard.lines().map(|name| (name.to_owned(), NEIGHBOUR)));
        arrived.extend(ears.names().into_iter().map(|name| (name, HOST)));
        arrived.extend(self.connect());
        arrived
    }

    /// A datagram that the neighbour's ear must hear.
    fn tell_neighbour(&self, name: &str) {
        let socket = UdpSocket::bind((self.gateway, 0)).expect("a socket of the host");
        for _ in 0..3 {
            socket.send_to(format!("<{name}>").as_bytes(), (self.two, 9)).expect("the neighbour is there");
        }
    }

    fn send_frames(&self) {
        let two = self.records[1].slot.expect("a running VM has a slot");
        let words = [self.one.to_string(), MacAddr::of(two).to_string(), self.two.to_string()];
        let [own, peer_mac, peer] = words.each_ref().map(String::as_str);
        let gateway = self.gateway.to_string();
        self.in_one(&["perl", "-", "send", own, peer_mac, peer, &self.gateway_mac, &gateway], FRAMES).ok();
    }

    /// Whether the bridge and the host's table of neighbours believe what they were told.
    fn look_at_the_host(&self) -> Arrived {
        let [one, two] = [0, 1].map(|at: usize| MacAddr::of(self.records[at].slot.expect("a slot")).to_string());
        let learned = self.world.tool("bridge", &["fdb", "show", "br", BRIDGE]).output().ok().text();
        let neighbours = self.world.tool("ip", &["neigh", "show", &self.two.to_string(), "dev", BRIDGE]);
        let neighbour = neighbours.output().ok().text();
        assert!(neighbour.contains(&one) || neighbour.contains(&two), "the host knows no neighbour: {neighbour:?}");
        let lies = [
            ("stolen-mac-learned", learned.contains("02:62:67:00:00:63")),
            ("arp-i-am-the-neighbour", neighbour.contains(&one)),
        ];
        lies.into_iter().filter(|(_, believed)| *believed).map(|(name, _)| (name.to_owned(), HOST)).collect()
    }

    /// The host looks for its guests anew, and thereby tells them who it is.
    fn forget_lies(&self) {
        self.world.tool("ip", &["neigh", "flush", "dev", BRIDGE]).output().ok();
    }

    /// Datagrams to the host as everybody may write them, and under another MAC and address.
    fn speak_by_its_own_kernel(&self) {
        let script = "gw=$1 two=$2
            say() { echo \"<$1>\" >/dev/udp/$gw/$2; }
            for port in $3; do say udp-$port $port; done
            own=$(cat /sys/class/net/eth0/address)
            ip link set eth0 address 02:62:67:00:00:62
            for _ in 1 2 3; do say own-mac-changed 53; sleep 0.5; done
            ip link set eth0 address $own
            ip address add $two/32 dev eth0
            perl -MIO::Socket::INET -e 'IO::Socket::INET->new(Proto => \"udp\", LocalAddr => shift,
                PeerAddr => shift, PeerPort => 53)->send(\"<own-address-changed>\") or die' $two $gw
            ip address del $two/32 dev eth0";
        let ports = UDP.map(|port| port.to_string()).join(" ");
        let (gateway, two) = (self.gateway.to_string(), self.two.to_string());
        self.in_one(&["bash", "-c", script, "bash", &gateway, &two, &ports], "").ok();
    }

    /// Connections, the guest's and, to an address that it took, the host's.
    fn connect(&self) -> Arrived {
        let [a, b, c, _] = self.one.octets();
        let (free, two) = (Ipv4Addr::new(a, b, c, 249), format!("{}/32", self.two));
        assert!(self.reaches(self.one, 22), "a guest reaches itself");
        let mut found = vec![
            ("tcp-53", HOST, self.reaches(self.gateway, 53)),
            ("tcp-4444", HOST, self.reaches(self.gateway, 4444)),
            ("tcp-4444-elsewhere", HOST, self.reaches(ELSEWHERE, 4444)),
            ("ping", HOST, self.pings(self.gateway)),
            ("tcp-22", NEIGHBOUR, self.reaches(self.two, 22)),
            ("ping", NEIGHBOUR, self.pings(self.two)),
        ];
        self.in_one(&["ip", "route", "add", &two, "via", &self.gateway.to_string()], "").ok();
        found.push(("tcp-22-through-the-host", NEIGHBOUR, self.reaches(self.two, 22)));
        self.in_one(&["ip", "route", "del", &two], "").ok();
        self.in_one(&["ip", "address", "add", &format!("{free}/24"), "dev", "eth0"], "").ok();
        found.push(("answers-at-free-address", HOST, host_reaches(free)));
        self.in_one(&["ip", "address", "del", &format!("{free}/24"), "dev", "eth0"], "").ok();
        assert!(host_reaches(self.one) && host_reaches(self.two), "the host reaches its guests");
        found.into_iter().filter(|(_, _, reached)| *reached).map(|(name, place, _)| (name.to_owned(), place)).collect()
    }

    fn reaches(&self, address: Ipv4Addr, port: u16) -> bool {
        let attempt = format!("exec 3<>/dev/tcp/{address}/{port}");
        self.tries(&["timeout", "3", "bash", "-c", &attempt])
    }

    fn pings(&self, address: Ipv4Addr) -> bool {
        self.tries(&["ping", "-c", "1", "-W", "3", &address.to_string()])
    }

    fn tries(&self, command: &[&str]) -> bool {
        let tried = self.in_one(command, "");
        assert!([0, 1, 124].contains(&tried.code), "the attempt itself failed with {}: {}", tried.code, tried.stderr);
        tried.code == 0
    }

    /// How many of all TCP ports of the host answer, with whatever.
    fn sweep(&self) -> String {
        let (own, gateway) = (self.one.to_string(), self.gateway.to_string());
        self.in_one(&["perl", "-", "sweep", &own, &self.gateway_mac, &gateway], FRAMES).ok().text()
    }

    /// Takes away all that keeps guests apart: both tables, the ports' isolation, the ban of IPv6.
    fn defend_no_more(&self) {
        for family in ["bridge", "inet"] {
            self.world.tool("nft", &["delete", "table", family, "banger"]).output().ok();
        }
        for record in &self.records {
            let tap = TapName::of(record.slot.expect("a slot")).to_string();
            self.world.tool("bridge", &["link", "set", "dev", &tap, "isolated", "off"]).output().ok();
        }
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{BRIDGE}/disable_ipv6"), "0").expect("IPv6 is there");
    }
}

fn host_reaches(address: Ipv4Addr) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((address, 22)), Duration::from_secs(3)).is_ok()
}
