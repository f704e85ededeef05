//! Links, addresses and routes over rtnetlink (rtnetlink(7)), blocking, one request at a time.
//!
//! Speaks to the network namespace in which the socket was opened. Reading needs no privilege;
//! whoever changes something needs `CAP_NET_ADMIN` there. Every error names the verb and the link.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

mod message;

use message::RouteMessage;
pub use message::attribute;

/// `IFLA_*` (linux/if_link.h).
const MAC: u16 = 1;
const NAME: u16 = 3;
const MASTER: u16 = 10;
const INFO: u16 = 18;
const ALIAS: u16 = 20;
const NAMESPACE: u16 = 28;
/// `IFLA_INFO_*`, in `IFLA_LINKINFO`.
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_PORT_KIND: u16 = 4;
const INFO_PORT_DATA: u16 = 5;
/// `VETH_INFO_PEER` (linux/veth.h), `IFLA_BRPORT_ISOLATED`.
const PEER: u16 = 1;
const ISOLATED: u16 = 33;
/// `IFA_*` (linux/if_addr.h).
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
/// `RTA_*`, and the types of routes that are left out, `RTN_BROADCAST` and `RTN_MULTICAST` (linux/rtnetlink.h).
const DESTINATION: u16 = 1;
const GATEWAY: u16 = 5;
const BROADCAST: u8 = 3;
const MULTICAST: u8 = 5;

/// How often a list is asked for again when the kernel changed it meanwhile (`NLM_F_DUMP_INTR`).
const DUMP_ATTEMPTS: usize = 16;

/// A network link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, where it has one.
    pub mac: Option<[u8; 6]>,
    /// Whether it was set up.
    pub up: bool,
    /// What somebody wrote on it (`ifalias`).
    pub alias: Option<String>,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    /// What makes it (`bridge`, `tun`, `veth`, …), for one that is made and not found.
    pub kind: Option<String>,
}

/// A conversation with the kernel.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Netlink")
    }
}

impl Netlink {
    /// Opens a conversation with the network namespace of this process.
    pub fn open() -> io::Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(Self { socket, sequence: 0 })
        };
        open().map_err(|e| explained(e, "open an rtnetlink socket"))
    }

    /// All links.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.dump(&RouteMessage::link(message::GET_LINK, 0));
        let answers = answers.map_err(|e| explained(e, "list the links"))?;
        Ok(answers.iter().filter_map(link_of).collect())
    }

    /// The link called `name`.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        match self.ask(named(message::GET_LINK, name), 0) {
            Ok(answers) => Ok(answers.iter().find_map(link_of)),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(None),
            Err(e) => Err(explained(e, &format!("look at link {name}"))),
        }
    }

    /// Makes a bridge; `AlreadyExists` when the name is taken.
    pub fn create_bridge(&mut self, name: &str, mac: [u8; 6]) -> io::Result<()> {
        let message = named(message::NEW_LINK, name).with(MAC, &mac).with(INFO, &attribute(INFO_KIND, b"bridge"));
        self.change(message, NLM_F_CREATE | NLM_F_EXCL).map_err(|e| explained(e, &format!("create bridge {name}")))
    }

    /// Makes a pair of links that are each other's other end: `name` here, `peer` in the network namespace
    /// `there`; `AlreadyExists` when a name is taken.
    pub fn create_veth(&mut self, name: &str, peer: &str, there: BorrowedFd<'_>) -> io::Result<()> {
        let other = named(message::NEW_LINK, peer).with(NAMESPACE, &there.as_raw_fd().to_ne_bytes());
        let data = attribute(INFO_DATA, &attribute(PEER, &other.into_body()));
        let info = [attribute(INFO_KIND, b"veth"), data].concat();
        self.change(named(message::NEW_LINK, name).with(INFO, &info), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(|e| explained(e, &format!("create links {name} and {peer}")))
    }

    /// Sets a link up.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.change(RouteMessage::link_up(index), 0).map_err(|e| explained(e, &format!("set link {index} up")))
    }

    /// Makes a link a port of the bridge `master`.
    pub fn set_master(&mut self, index: u32, master: u32) -> io::Result<()> {
        self.set_attribute(index, MASTER, &master.to_ne_bytes())
            .map_err(|e| explained(e, &format!("make link {index} a port of link {master}")))
    }

    /// Whether a bridge's port may exchange frames with other isolated ports.
    pub fn set_isolated(&mut self, index: u32, isolated: bool) -> io::Result<()> {
        let data = attribute(INFO_PORT_DATA, &attribute(ISOLATED, &[u8::from(isolated)]));
        let info = [attribute(INFO_PORT_KIND, b"bridge"), data].concat();
        // Unlike RTM_SETLINK, RTM_NEWLINK of an existing link takes a port's settings (ip-link(8)).
        self.change(RouteMessage::link(message::NEW_LINK, index).with(INFO, &info), 0)
            .map_err(|e| explained(e, &format!("set the isolation of bridge port {index}")))
    }

    /// Writes `alias` on a link.
    pub fn set_alias(&mut self, index: u32, alias: &str) -> io::Result<()> {
        self.set_attribute(index, ALIAS, alias.as_bytes())
            .map_err(|e| explained(e, &format!("set the alias of link {index}")))
    }

    /// Gives a link an Ethernet address. A bridge keeps it; otherwise it takes one of its ports'.
    pub fn set_mac(&mut self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        self.set_attribute(index, MAC, &mac)
            .map_err(|e| explained(e, &format!("set the Ethernet address of link {index}")))
    }

    /// Gives a link an IPv4 address; `AlreadyExists` when it has it.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let message = RouteMessage::address(message::NEW_ADDRESS, index, prefix);
        let message = message.with(LOCAL, &address.octets()).with(ADDRESS, &address.octets());
        self.change(message, NLM_F_CREATE | NLM_F_EXCL)
            .map_err(|e| explained(e, &format!("give link {index} the address {address}/{prefix}")))
    }

    /// The IPv4 addresses of a link.
    pub fn addresses(&mut self, index: u32) -> io::Result<Vec<(Ipv4Addr, u8)>> {
        let answers = self.dump(&RouteMessage::address(message::GET_ADDRESS, 0, 0));
        let answers = answers.map_err(|e| explained(e, &format!("list the addresses of link {index}")))?;
        Ok(answers.iter().filter_map(|m| address_of(m, index)).collect())
    }

    /// Sends everything without a route of its own to `gateway`; `AlreadyExists` when there is a
    /// default route.
    pub fn add_default_route(&mut self, gateway: Ipv4Addr) -> io::Result<()> {
        let message = RouteMessage::default_route().with(GATEWAY, &gateway.octets());
        self.change(message, NLM_F_CREATE | NLM_F_EXCL)
            .map_err(|e| explained(e, &format!("make {gateway} the default gateway")))
    }

    /// Where IPv4 goes, by every table: each destination with its prefix, the default route as
    /// `0.0.0.0/0`. Broadcast and multicast entries are left out.
    pub fn routes(&mut self) -> io::Result<Vec<(Ipv4Addr, u8)>> {
        let answers = self.dump(&RouteMessage::all_routes());
        let answers = answers.map_err(|e| explained(e, "list the routes"))?;
        Ok(answers.iter().filter_map(route_of).collect())
    }

    /// Removes a link; done when it is gone already.
    pub fn delete_link(&mut self, index: u32) -> io::Result<()> {
        match self.change(RouteMessage::link(message::DELETE_LINK, index), 0) {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(()),
            other => other.map_err(|e| explained(e, &format!("delete link {index}"))),
        }
    }

    fn set_attribute(&mut self, index: u32, kind: u16, value: &[u8]) -> io::Result<()> {
        self.change(RouteMessage::link(message::SET_LINK, index).with(kind, value), 0)
    }

    fn change(&mut self, message: RouteMessage, flags: u16) -> io::Result<()> {
        self.ask(message, NLM_F_ACK | flags).map(drop)
    }

    fn dump(&mut self, message: &RouteMessage) -> io::Result<Vec<RouteMessage>> {
        for _ in 0..DUMP_ATTEMPTS {
            match self.ask(message.clone(), NLM_F_DUMP) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "it changed while it was read, again and again"))
    }

    /// Sends one request and collects its answers up to the acknowledgement, the end of the list,
    /// or, where neither is asked for, the first message.
    fn ask(&mut self, message: RouteMessage, flags: u16) -> io::Result<Vec<RouteMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(message, NLM_F_REQUEST | flags)?;
        let mut answers = Answers { sequence: self.sequence, single: flags == 0, ..Answers::default() };
        loop {
            let (datagram, from) = self.socket.recv_from_full()?;
            // Port 0 is the kernel; anybody may send to a netlink socket.
            if from.port_number() == 0 && answers.take(&datagram)? {
                return answers.finish();
            }
        }
    }

    fn send(&mut self, message: RouteMessage, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }
}

/// The answers to one request as they arrive.
#[derive(Default)]
struct Answers {
    sequence: u32,
    /// The answer is one message without an acknowledgement.
    single: bool,
    /// The kernel changed the list meanwhile.
    interrupted: bool,
    messages: Vec<RouteMessage>,
}

impl Answers {
    /// Reads one datagram; true when the answer is complete.
    fn take(&mut self, mut rest: &[u8]) -> io::Result<bool> {
        while !rest.is_empty() {
            let packet = NetlinkMessage::<RouteMessage>::deserialize(rest).map_err(malformed)?;
            let length = (packet.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            // An answer to an earlier request that ended with an error.
            if packet.header.sequence_number != self.sequence {
                continue;
            }
            self.interrupted |= packet.header.flags & NLM_F_DUMP_INTR != 0;
            match packet.payload {
                NetlinkPayload::Done(done) if done.code < 0 => return Err(io::Error::from_raw_os_error(-done.code)),
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(e) if e.code.is_some() => return Err(e.to_io()),
                NetlinkPayload::Error(_) => return Ok(true),
                NetlinkPayload::InnerMessage(message) => self.messages.push(message),
                _ => {}
            }
            if self.single && !self.messages.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn finish(self) -> io::Result<Vec<RouteMessage>> {
        if self.interrupted { Err(io::ErrorKind::Interrupted.into()) } else { Ok(self.messages) }
    }
}

/// About the link called `name`.
fn named(kind: u16, name: &str) -> RouteMessage {
    RouteMessage::link(kind, 0).with(NAME, &[name.as_bytes(), &[0]].concat())
}

fn link_of(message: &RouteMessage) -> Option<Link> {
    let (index, up) = message.as_link()?;
    Some(Link {
        index,
        name: message.find(NAME).map(message::text).unwrap_or_default(),
        mac: message.find(MAC).and_then(|value| value.try_into().ok()),
        up,
        alias: message.find(ALIAS).map(message::text),
        master: message.find(MASTER).and_then(|value| value.try_into().ok()).map(u32::from_ne_bytes),
        kind: message.find(INFO).and_then(|info| message::find(info, INFO_KIND)).map(message::text),
    })
}

fn address_of(message: &RouteMessage, index: u32) -> Option<(Ipv4Addr, u8)> {
    let (_, prefix) = message.as_address().filter(|(of, _)| *of == index)?;
    // On a point-to-point link `ADDRESS` is the peer's; `LOCAL` is always the own one.
    Some((message.find(LOCAL).and_then(message::ipv4)?, prefix))
}

fn route_of(message: &RouteMessage) -> Option<(Ipv4Addr, u8)> {
    let (prefix, _) = message.as_route().filter(|(_, kind)| !matches!(*kind, BROADCAST | MULTICAST))?;
    let destination = message.find(DESTINATION).and_then(message::ipv4);
    Some((destination.unwrap_or(Ipv4Addr::UNSPECIFIED), prefix))
}

fn malformed(error: netlink_packet_core::DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an answer of the kernel could not be read: {error}"))
}

fn explained(error: io::Error, doing: &str) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {doing}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the ignored test `name` of this binary in an own network namespace, where root.
    fn in_a_namespace(name: &str) {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let own = std::env::current_exe().expect("this program");
        let mut command = std::process::Command::new("unshare");
        command.args(["--net", "--"]).arg(own).args(["--exact", name, "--ignored", "--nocapture"]);
        let output = command.output().expect("unshare runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    #[test]
    fn a_bridge_is_made_and_removed() {
        in_a_namespace("os::netlink::tests::inside_a_bridge_is_made_and_removed");
    }

    #[test]
    #[ignore = "run by the test above in a network namespace"]
    fn inside_a_bridge_is_made_and_removed() {
        let mut netlink = Netlink::open().expect("opens");
        assert_eq!(netlink.link("br-test").expect("answers"), None);
        let mac = [2, 0, 0, 0, 0, 7];
        netlink.create_bridge("br-test", mac).expect("made");
        let again = netlink.create_bridge("br-test", mac).expect_err("taken");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        let bridge = netlink.link("br-test").expect("answers").expect("there");
        assert!(!bridge.up && bridge.mac == Some(mac));
        netlink.set_alias(bridge.index, "banger:test").expect("written");
        netlink.add_address(bridge.index, Ipv4Addr::new(172, 30, 7, 1), 24).expect("given");
        netlink.set_up(bridge.index).expect("up");
        let bridge = netlink.link("br-test").expect("answers").expect("there");
        assert_eq!((bridge.up, bridge.alias.as_deref()), (true, Some("banger:test")));
        assert_eq!(bridge.kind.as_deref(), Some("bridge"));
        assert_eq!(netlink.addresses(bridge.index).expect("listed"), [(Ipv4Addr::new(172, 30, 7, 1), 24)]);
        netlink.add_default_route(Ipv4Addr::new(172, 30, 7, 2)).expect("added");
        let routes = netlink.routes().expect("listed");
        assert!(routes.contains(&(Ipv4Addr::new(172, 30, 7, 0), 24)), "{routes:?}");
        assert!(routes.contains(&(Ipv4Addr::UNSPECIFIED, 0)), "{routes:?}");
        ports(&mut netlink, bridge.index);
        netlink.delete_link(bridge.index).expect("deleted");
        netlink.delete_link(bridge.index).expect("gone already");
        assert_eq!(netlink.link("br-test").expect("answers"), None);
    }

    fn ports(netlink: &mut Netlink, bridge: u32) {
        let made = std::process::Command::new("ip").args(["tuntap", "add", "dev", "p0", "mode", "tap"]).status();
        assert!(made.expect("ip runs").success());
        let port = netlink.link("p0").expect("answers").expect("there");
        netlink.set_master(port.index, bridge).expect("enslaved");
        netlink.set_isolated(port.index, true).expect("isolated");
        let port = netlink.links().expect("listed").into_iter().find(|l| l.name == "p0").expect("there");
        assert_eq!(port.master, Some(bridge));
        let shown = std::process::Command::new("bridge").args(["-d", "link", "show", "dev", "p0"]).output();
        assert!(String::from_utf8_lossy(&shown.expect("bridge runs").stdout).contains("isolated on"));
    }

    #[test]
    fn an_error_names_the_verb_and_the_link() {
        let mut netlink = Netlink::open().expect("opens");
        let error = netlink.set_up(0x7fff_fff0).expect_err("no such link");
        assert!(error.to_string().starts_with("cannot set link 2147483632 up: "), "{error}");
        assert_eq!(netlink.link("no-such-link").expect("answers"), None);
        assert!(netlink.links().expect("listed").iter().any(|l| l.name == "lo"));
    }
}
