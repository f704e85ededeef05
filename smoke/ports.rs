//! Ports of the host that lead into a guest.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::daemons::lose_both;
use crate::exec::BOOT;
use crate::flows;
use crate::internet::{HOST, Internet};
use crate::world::World;

/// What listens in the guest: TCP on every address and on loopback alone, and UDP.
const LISTENERS: &str = r#"
    use strict; use warnings; use IO::Socket::INET; use Socket;
    $SIG{CHLD} = 'IGNORE'; $SIG{PIPE} = 'IGNORE';
    my @listeners = map { IO::Socket::INET->new(Listen => 5, LocalAddr => $_, ReuseAddr => 1) or die "$_: $!" } '0.0.0.0:80', '127.0.0.1:81';
    my $udp = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '0.0.0.0:5353') or die $!;
    if (!fork) { while (my $from = recv($udp, my $said, 200, 0)) { send($udp, "guest:$said", 0, $from) } exit }
    for my $listener (@listeners) {
        next if fork;
        while (my $client = $listener->accept) { print $client "guest, from ", $client->peerhost, "\n"; close $client }
        exit;
    }
    print "listening\n"; close STDOUT; sleep 1000;
"#;

/// From this host, from others, after restarts; taken ports, twice the same, and nothing afterwards.
pub fn lead_into_the_guest(world: &World) {
    let internet = Internet::connect(world, &[]);
    flows::configure(world);
    world.start();
    let before = world.tool("nft", &["list", "ruleset"]).output().ok().text();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 9000)).expect("a free port");
    let create = |name: &str, ports: &[&str]| {
        let mut command = vec!["vm", "create", "--name", name];
        ports.iter().for_each(|port| command.extend(["-p", port]));
        world.banger(&command).limit(BOOT).output()
    };
    let refused = create("box", &["9000:80"]).ends(4).refuses(&["9000", "ss -lntup"]);
    println!(
        "| published | a taken port | {} |",
        refused.stderr.lines().find(|l| l.contains("9000")).unwrap_or_default()
    );
    create("box", &["192.0.2.1:9001:80"]).ends(4);
    create("box", &["1:1", "1:1"]).ends(2);
    assert!(world.owner().vms().is_empty(), "a refused VM has left a row");
    let ports = ["8080:80", "0.0.0.0:8081:80", "8082:81", "0.0.0.0:5300:5353/udp", "80:80"];
    create("box", &ports).ok();
    create("other", &["8081:80"]).ends(4).refuses(&["'box'"]);
    listen(world);
    let loopback = Ipv4Addr::LOCALHOST;
    for (what, place, expected) in [
        ("by loopback", (loopback, 8080), true),
        ("a privileged port", (loopback, 80), true),
        ("everywhere, by loopback", (loopback, 8081), true),
        ("everywhere, by another address of the host", (HOST, 8081), true),
        ("loopback's port by another address", (HOST, 8080), false),
        ("what listens in the guest alone", (loopback, 8082), false),
    ] {
        let reached = ask(place.into());
        println!("| published | {what} | {} | {reached:?} |", if expected { "reaches" } else { "nothing" });
        assert_eq!(reached.is_some_and(|said| said.starts_with("guest, from ")), expected, "{what}");
    }
    from_elsewhere(&internet);
    to_loopback_from_elsewhere(world, &internet);
    datagrams(HOST);
    let held = TcpListener::bind((loopback, 8080)).map(drop).map_err(|e| e.kind());
    assert_eq!(held, Err(std::io::ErrorKind::AddrInUse), "another program can have a published port");
    let shown = world.banger(&["vm", "ports", "box"]).output().ok().text();
    println!("{shown}");
    for column in ["http://box.vm", "127.0.0.1:8080 0.0.0.0:8081 127.0.0.1:80", "perl", "ssh://root@box.vm"] {
        assert!(shown.contains(column), "{column} is not in\n{shown}");
    }
    lose_both(world);
    assert!(ask((loopback, 8080).into()).is_some(), "a restart of both daemons has cut the way");
    let held = TcpListener::bind((loopback, 8080)).map(drop).map_err(|e| e.kind());
    assert_eq!(held, Err(std::io::ErrorKind::AddrInUse), "after a restart another program can have the port");
    world.banger(&["vm", "restart", "box"]).limit(BOOT).output().ok();
    listen(world);
    assert!(ask((loopback, 8080).into()).is_some(), "a restart of the VM has cut the way");
    world.banger(&["vm", "delete", "box"]).limit(BOOT).output().ok();
    assert_eq!(world.tool("nft", &["list", "ruleset"]).output().ok().text(), before);
    TcpListener::bind((loopback, 8080)).expect("the port is free again");
    drop(taken);
}

fn listen(world: &World) {
    let script = "cat > /tmp/listen.pl; (setsid perl /tmp/listen.pl </dev/null 2>&1 & ) | head -n 1";
    let said = world.guest("box", &["sh", "-c", script]).input(LISTENERS).output().ok().text();
    assert_eq!(said, "listening");
}

/// What is said at a place, within a moment.
fn ask(place: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&place, Duration::from_secs(3)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    (!said.is_empty()).then(|| said.trim_end().to_owned())
}

/// Another machine reaches what is published everywhere, with its own address, and nothing else.
fn from_elsewhere(internet: &Internet) {
    let everywhere = internet.run_inside(move || ask((HOST, 8081).into())).expect("it reaches the guest");
    println!("| published | everywhere, from another machine | reaches | {everywhere} |");
    assert!(everywhere.starts_with("guest, from 203.0.113."), "its own address is seen: {everywhere}");
    assert_eq!(internet.run_inside(move || ask((HOST, 8080).into())), None, "loopback's port is open to others");
}

/// Somebody on the same wire sends packets to 127.0.0.1, which arrive at this host and lead nowhere.
fn to_loopback_from_elsewhere(world: &World, internet: &Internet) {
    for line in [
        "sysctl -qw net.ipv4.conf.eth0.route_localnet=1",
        "ip route del table local local 127.0.0.0/8 dev lo",
        "ip route del table local local 127.0.0.1 dev lo",
        "ip route add 127.0.0.1 via 203.0.113.1 dev eth0",
    ] {
        internet.inside(world, line);
    }
    let nft = |line: &str| world.tool("nft", &[line]).output().ok().text();
    nft("add table ip watch");
    nft("add chain ip watch arrives { type filter hook prerouting priority -310; }");
    nft("add rule ip watch arrives iifname up0 ip daddr 127.0.0.1 counter");
    let reached = internet.run_inside(|| ask((Ipv4Addr::LOCALHOST, 8080).into()));
    let seen = nft("list chain ip watch arrives");
    nft("delete table ip watch");
    println!("| published | 127.0.0.1, from another machine | nothing | {reached:?} |");
    assert!(seen.contains("counter packets") && !seen.contains("packets 0 "), "no packet has arrived: {seen}");
    assert_eq!(reached, None, "loopback's port is open to whoever is on the same wire");
}

fn datagrams(host: Ipv4Addr) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(3))).expect("set");
    for place in [(Ipv4Addr::LOCALHOST, 5300), (host, 5300)] {
        socket.send_to(b"hello", place).expect("sent");
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer).expect("an answer");
        assert_eq!((&buffer[..length], from), (&b"guest:hello"[..], SocketAddr::from(place)));
    }
}
