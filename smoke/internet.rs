//! "The internet": a second network namespace with web, DNS and echo servers, on 203.0.113.0/24 (RFC 5737)
//! and a few addresses that a guest must not reach. Nothing of it leaves the machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Name, Rtype, ToName, Ttl};
use domain::rdata::{A, Cname};

use crate::world::World;

/// The host's address there, and in its own small network.
pub const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// Who answers DNS, and who does so without having been asked to.
pub const DNS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);

/// Addresses that somebody answers at.
const ADDRESSES: [&str; 16] = [
    "203.0.113.53/24",
    "203.0.113.54/24",
    "203.0.113.80/24",
    "203.0.113.81/24",
    "203.0.113.82/24",
    "203.0.113.83/24",
    "203.0.113.84/24",
    "203.0.113.85/24",
    "203.0.113.86/24",
    "203.0.113.88/24",
    "203.0.113.90/24",
    "203.0.113.91/24",
    "203.0.113.92/24",
    "192.168.77.10/24",
    "169.254.169.254/32",
    "168.63.129.16/32",
];

/// Where sites with certificates may be put, at port 443.
pub const SITES: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 91), Ipv4Addr::new(203, 0, 113, 92)];

/// Ports of the web servers and of those that say back what they hear.
const WEB: [u16; 3] = [80, 443, 8080];
const ECHO: [u16; 3] = [443, 4444, 5353];

/// What a name has: an alias, or addresses, for so many seconds.
#[derive(Clone)]
pub enum Entry {
    /// Another name.
    Alias(&'static str, u32),
    /// Addresses.
    Addresses(&'static [&'static str], u32),
}

type Names = BTreeMap<String, Entry>;

/// While it lives, so does the internet.
pub struct Internet {
    keeper: Child,
    names: Arc<Mutex<Names>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Internet {
    /// Connects this scenario's namespace to a new one in which all of it answers.
    pub fn connect(world: &World, names: &[(&str, Entry)]) -> Self {
        // It ends when this process does, and its namespace with it.
        let mut keeper = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; read -r end"])
            .current_dir(world.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        wait_for_line(keeper.stdout.take().expect("a pipe"));
        let names = names.iter().map(|(name, entry)| ((*name).to_owned(), entry.clone())).collect();
        let internet = Self { keeper, names: Arc::new(Mutex::new(names)), asked: Arc::default() };
        internet.lay_cable(world);
        internet.serve();
        internet
    }

    /// What was asked of its DNS so far, as `NAME TYPE`.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics").clone()
    }

    fn lay_cable(&self, world: &World) {
        let pid = self.keeper.id().to_string();
        let ip = |line: &str| world.tool("ip", &line.split(' ').collect::<Vec<_>>()).output().ok();
        ip(&format!("link add up0 type veth peer name eth0 netns {pid}"));
        ip(&format!("address add {HOST}/24 dev up0"));
        ip("address add 192.168.77.1/24 dev up0");
        ip("link set up0 up");
        for line in ["link set lo up", "link set eth0 up"] {
            self.inside(world, &format!("ip {line}"));
        }
        for address in ADDRESSES {
            self.inside(world, &format!("ip address add {address} dev eth0"));
        }
        for far in ["169.254.169.254", "168.63.129.16"] {
            ip(&format!("route add {far} dev up0"));
        }
    }

    /// Runs a program there.
    pub fn inside(&self, world: &World, line: &str) {
        let pid = self.keeper.id().to_string();
        let arguments: Vec<&str> = ["-t", &pid, "-n"].into_iter().chain(line.split(' ')).collect();
        world.tool("nsenter", &arguments).output().ok();
    }

    /// Each server in a thread that lives there.
    fn serve(&self) {
        let namespace = File::open(format!("/proc/{}/ns/net", self.keeper.id())).expect("its namespace");
        for port in WEB.into_iter().filter(|port| *port != 443) {
            self.spawn(&namespace, move || web((Ipv4Addr::UNSPECIFIED, port)));
        }
        for address in ADDRESSES {
            let address: Ipv4Addr = address.split('/').next().and_then(|a| a.parse().ok()).expect("an address");
            if !SITES.contains(&address) {
                self.spawn(&namespace, move || web((address, 443)));
            }
            for port in ECHO {
                self.spawn(&namespace, move || echo(address, port));
            }
        }
        for address in [DNS, Ipv4Addr::new(203, 0, 113, 54)] {
            let (names, asked) = (self.names.clone(), self.asked.clone());
            self.spawn(&namespace, move || dns_over_udp(address, &names, &asked));
            let (names, asked) = (self.names.clone(), self.asked.clone());
            self.spawn(&namespace, move || dns_over_tcp(address, &names, &asked));
        }
    }

    /// What `work` gives there.
    pub fn run_inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.start_inside(move || drop(sender.send(work())));
        receiver.recv_timeout(Duration::from_secs(30)).expect("it ends")
    }

    /// Has `work` go on there.
    pub fn start_inside(&self, work: impl FnOnce() + Send + 'static) {
        let namespace = File::open(format!("/proc/{}/ns/net", self.keeper.id())).expect("its namespace");
        self.spawn(&namespace, work);
    }

    fn spawn(&self, namespace: &File, server: impl FnOnce() + Send + 'static) {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        use std::os::fd::AsFd;
        let namespace = namespace.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("entered");
            server();
        });
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        // Its standard input is closed, which ends it.
        drop(self.keeper.stdin.take());
        self.keeper.wait().expect("it ends");
    }
}

fn wait_for_line(mut output: ChildStdout) {
    let mut line = [0; 6];
    output.read_exact(&mut line).expect("it says that it is ready");
}

/// Says to whoever connects who is spoken to, and who was heard.
fn web(place: (Ipv4Addr, u16)) {
    let listener = TcpListener::bind(place).expect("a free port");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || greet(stream));
    }
}

fn greet(mut stream: TcpStream) {
    let (Ok(own), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else { return };
    let _ = stream.write_all(format!("I am {own}, you are {}\n", peer.ip()).as_bytes());
    // Whoever wants to stay connected may: what it says comes back.
    let mut buffer = [0; 256];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let _ = stream.write_all(&buffer[..count]);
    }
}

/// A socket for each address: one for all would answer from another than was asked.
fn echo(address: Ipv4Addr, port: u16) {
    let socket = UdpSocket::bind((address, port)).expect("a free port");
    let mut buffer = [0; 2048];
    while let Ok((count, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(&buffer[..count], from);
    }
}

fn dns_over_udp(address: Ipv4Addr, names: &Mutex<Names>, asked: &Mutex<Vec<String>>) {
    let socket = UdpSocket::bind((address, 53)).expect("a free port");
    let mut buffer = [0; 4096];
    while let Ok((count, from)) = socket.recv_from(&mut buffer) {
        if let Some(answer) = answer(&buffer[..count], names, asked) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn dns_over_tcp(address: Ipv4Addr, names: &Mutex<Names>, asked: &Mutex<Vec<String>>) {
    let listener = TcpListener::bind((address, 53)).expect("a free port");
    for mut stream in listener.incoming().flatten() {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut question).is_err() {
                break;
            }
            let Some(answer) = answer(&question, names, asked) else { break };
            let length = (answer.len() as u16).to_be_bytes();
            let _ = stream.write_all(&[&length[..], &answer].concat());
        }
    }
}

fn answer(question: &[u8], names: &Mutex<Names>, asked: &Mutex<Vec<String>>) -> Option<Vec<u8>> {
    let message = Message::from_octets(question).ok()?;
    let question = message.sole_question().ok()?;
    let mut at: Name<Vec<u8>> = question.qname().to_name();
    asked.lock().expect("nobody panics").push(format!("{at} {}", question.qtype()));
    let names = names.lock().expect("nobody panics");
    let known = names.contains_key(&plain(&at));
    let code = if known { Rcode::NOERROR } else { Rcode::NXDOMAIN };
    let mut answer = MessageBuilder::new_vec().start_answer(&message, code).ok()?;
    answer.header_mut().set_ra(true);
    while let Some(entry) = names.get(&plain(&at)) {
        match entry {
            Entry::Alias(target, ttl) => {
                let target: Name<Vec<u8>> = target.parse().expect("a name");
                answer.push((&at, Ttl::from_secs(*ttl), Cname::new(&target))).ok()?;
                at = target;
            }
            Entry::Addresses(addresses, ttl) if question.qtype() == Rtype::A => {
                for address in *addresses {
                    let data = A::new(address.parse().expect("an address"));
                    answer.push((&at, Ttl::from_secs(*ttl), data)).ok()?;
                }
                break;
            }
            Entry::Addresses(..) => break,
        }
    }
    Some(answer.finish())
}

fn plain(name: &Name<Vec<u8>>) -> String {
    name.to_string().trim_end_matches('.').to_ascii_lowercase()
}
