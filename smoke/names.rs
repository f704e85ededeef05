//! Names of VMs: what the DNS answers to dig(1), under load, and to rubbish.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use banger::model::address::DNS_LOOPBACK;
use banger::net::dns::{Carrier, Query};

use crate::fake::on_the_fake_monitor;
use crate::noise::Noise;
use crate::world::World;

/// A question to dig, and what its answer must contain: status, flags, and lines.
struct Case(&'static str, &'static [&'static str]);

/// `GW` stands for the gateway's address, `BOX` and `REV` for a VM's, forwards and backwards, `ARPA` for
/// the network's domain.
const CASES: [Case; 24] = [
    Case("@GW box.vm A", &["status: NOERROR", "flags: qr aa rd ra", "ANSWER: 1,", "\tA\tBOX"]),
    Case("@GW box.vm A +tcp", &["status: NOERROR", "\tA\tBOX", "(TCP)"]),
    Case("@LOOPBACK box.vm A", &["status: NOERROR", "\tA\tBOX"]),
    Case("@GW BoX.vM A", &["status: NOERROR", "BoX.vM.\t", "\tA\tBOX"]),
    Case("@GW box.vm AAAA", &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1", "\tSOA\t"]),
    Case("@GW box.vm MX", &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1", "\tSOA\t"]),
    Case("@GW box.vm TYPE65280", &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1"]),
    Case("@GW box.vm HTTPS", &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1"]),
    Case("@GW box.vm ANY", &["status: NOERROR", "\tA\tBOX"]),
    Case("@GW nobody.vm A", &["status: NXDOMAIN", "ANSWER: 0, AUTHORITY: 1", "vm.\t", "\tSOA\t"]),
    Case("@GW sub.box.vm A", &["status: NXDOMAIN", "\tSOA\t"]),
    Case("@GW vm SOA", &["status: NOERROR", "ANSWER: 1,", "dns.invalid. dns.invalid. 1 3600 600 86400 1"]),
    Case("@GW vm NS", &["status: NOERROR", "ANSWER: 1,", "\tNS\tdns.invalid."]),
    Case("@GW vm A", &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1"]),
    Case("@GW -x BOX", &["status: NOERROR", "ANSWER: 1,", "\tPTR\tbox.vm."]),
    Case("@GW 250.ARPA PTR", &["status: NXDOMAIN", "\tSOA\t"]),
    Case("@GW ARPA SOA", &["status: NOERROR", "ANSWER: 1,", "\tSOA\t"]),
    Case("@GW example.org A", &["status: REFUSED", "ANSWER: 0,"]),
    Case("@GW vm AXFR +tcp", &["Transfer failed"]),
    Case("@GW version.bind TXT CH", &["status: REFUSED"]),
    Case("@GW box.vm A +noedns", &["status: NOERROR", "\tA\tBOX", "ADDITIONAL: 0"]),
    Case("@GW box.vm A +edns=1 +noednsnegotiation", &["status: BADVERS"]),
    Case("@GW box.vm A +dnssec +bufsize=4096", &["status: NOERROR", "udp: 1232", "\tA\tBOX"]),
    Case("@GW box.vm A +opcode=UPDATE", &["status: NOTIMP"]),
];

/// How long the load lasts.
const LOAD: Duration = Duration::from_secs(30);

/// What is asked under load: names that are there, and one in four that is not.
const QUESTIONS: &str = "one.vm A\ntwo.vm A\nbox.vm A\nnobody.vm A\n";

/// All of it, with VMs on the fake monitor: their addresses are real.
pub fn are_answered(world: &World) {
    let world = &on_the_fake_monitor(world);
    world.start();
    for name in ["box", "one", "two"] {
        world.banger(&["vm", "create", "--name", name]).output().ok();
    }
    let address = |name: &str| world.owner().vm(name).address.expect("it runs");
    let [a, b, c, host] = address("box").octets();
    let gateway = Ipv4Addr::new(a, b, c, 1);
    let arpa = format!("{c}.{b}.{a}.in-addr.arpa");
    let filled = |text: &str| {
        let text = text.replace("GW", &gateway.to_string()).replace("BOX", &address("box").to_string());
        text.replace("REV", &format!("{host}.{arpa}"))
            .replace("ARPA", &arpa)
            .replace("LOOPBACK", &DNS_LOOPBACK.to_string())
    };
    println!("| dig | expected | observed |");
    for Case(question, expected) in &CASES {
        let question = filled(question);
        let words: Vec<&str> = ["+tries=1", "+time=3"].into_iter().chain(question.split(' ')).collect();
        let said = world.tool("dig", &words).output();
        let missing: Vec<String> =
            expected.iter().map(|e| filled(e)).filter(|e| !said.text().contains(e.as_str())).collect();
        let shown = expected.iter().map(|e| filled(e).replace('\t', " ")).collect::<Vec<_>>().join("; ");
        println!("| {question} | {shown} | {} |", if missing.is_empty() { "so" } else { "NOT" });
        assert!(missing.is_empty(), "dig {question}: {missing:?} is missing in\n{}", said.text());
    }
    names_follow_their_vms(world, gateway);
    under_load(world, gateway, &[("one.vm", address("one")), ("two.vm", address("two"))]);
    rubbish_does_no_harm(world, gateway, address("box"));
}

/// A name comes with its VM and goes with it.
fn names_follow_their_vms(world: &World, gateway: Ipv4Addr) {
    let asked = |name: &str| {
        let server = format!("@{gateway}");
        world.tool("dig", &["+short", "+tries=1", &server, name]).output().ok().text()
    };
    assert_eq!(asked("late.vm"), "");
    world.banger(&["vm", "create", "--name", "late"]).output().ok();
    assert_eq!(asked("late.vm"), world.owner().vm("late").address.expect("it runs").to_string());
    world.banger(&["vm", "stop", "late"]).output().ok();
    assert_eq!(asked("late.vm"), "");
    world.banger(&["vm", "delete", "late"]).output().ok();
}

/// dnsperf(1) as fast as it can, and beside it somebody who looks at each answer.
fn under_load(world: &World, gateway: Ipv4Addr, known: &[(&str, Ipv4Addr)]) {
    let questions = world.folder().join("questions");
    std::fs::write(&questions, QUESTIONS).expect("written");
    let (server, seconds) = (gateway.to_string(), LOAD.as_secs().to_string());
    let file = questions.to_str().expect("a plain path");
    let load = world.tool("dnsperf", &["-s", &server, "-d", file, "-l", &seconds, "-c", "4"]).limit(90).spawn();
    let ended = Arc::new(AtomicBool::new(false));
    let watching = {
        let (ended, known) = (ended.clone(), known.iter().map(|(n, a)| ((*n).to_owned(), *a)).collect::<Vec<_>>());
        std::thread::spawn(move || look_at_answers(gateway, &known, &ended))
    };
    let said = load.wait().ok().text();
    ended.store(true, Ordering::Release);
    let (looked_at, wrong) = watching.join().expect("it does not panic");
    let line = |label: &str| said.lines().find(|l| l.contains(label)).map(str::trim).unwrap_or_default().to_owned();
    println!(
        "| dnsperf, {seconds} s | {} | {} | {} |",
        line("Queries per second"),
        line("Response codes"),
        line("Queries lost")
    );
    println!("| answers looked at meanwhile | {looked_at} | wrong: {wrong} |");
    assert!(looked_at > 100 && wrong == 0, "{wrong} of {looked_at} answers were wrong");
    let codes = line("Response codes");
    assert!(codes.contains("NOERROR") && codes.contains("NXDOMAIN"), "{said}");
    assert!(!codes.contains("SERVFAIL") && !codes.contains("REFUSED") && !codes.contains("FORMERR"), "{said}");
    let share: f64 = codes
        .split("NXDOMAIN")
        .nth(1)
        .and_then(|rest| rest.split(['(', '%']).nth(1))
        .and_then(|s| s.trim().parse().ok())
        .expect("a share");
    assert!((24.5..25.5).contains(&share), "{share} % of the names are said to be missing, 25 % are");
}

fn look_at_answers(gateway: Ipv4Addr, known: &[(String, Ipv4Addr)], ended: &AtomicBool) -> (u32, u32) {
    let (mut looked_at, mut wrong) = (0, 0);
    while !ended.load(Ordering::Acquire) {
        for (name, address) in known {
            // One that is lost under load is no wrong answer.
            let Some(answer) = ask(gateway, name, Duration::from_secs(2)) else { continue };
            looked_at += 1;
            wrong += u32::from(!answer.ends_with(&address.octets()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    (looked_at, wrong)
}

/// The whole answer to a question for an address, without options.
fn ask(server: Ipv4Addr, name: &str, patience: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    socket.connect((server, 53)).expect("connected");
    socket.set_read_timeout(Some(patience)).expect("set");
    socket.send(&question(name)).ok()?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).ok()?;
    Some(buffer[..length].to_vec())
}

fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// Questions with bytes changed, cut, repeated and made up, over both carriers; then it answers as before.
fn rubbish_does_no_harm(world: &World, gateway: Ipv4Addr, address: Ipv4Addr) {
    let mut noise = Noise(4711);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    socket.set_nonblocking(true).expect("set");
    let server = SocketAddr::from((gateway, 53));
    let (mut sent, mut answered, mut buffer) = (0, 0, [0; 4096]);
    for _ in 0..20_000 {
        let mut bytes = question(["box.vm", "example.org", "nobody.vm"][noise.below(3)]);
        for _ in 0..noise.below(6) {
            let at = noise.below(bytes.len());
            bytes[at] = noise.number() as u8;
        }
        bytes.truncate(if noise.one_in(4) { noise.below(bytes.len() + 1) } else { bytes.len() });
        if noise.one_in(8) {
            bytes.extend((0..noise.below(2000)).map(|_| noise.number() as u8));
        }
        sent += u32::from(socket.send_to(&bytes, server).is_ok());
        while let Ok((length, _)) = socket.recv_from(&mut buffer) {
            answered += 1;
            assert!(length >= 12 && buffer[2] & 0x80 != 0, "an answer is an answer");
        }
        // The same parser, with all that it may be asked: nothing panics here either.
        let _ = Query::read(&bytes, Carrier::Tcp).map(|query| query.name.len());
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    let answer = loop {
        let answer = ask(gateway, "box.vm", Duration::from_secs(1));
        if answer.is_some() || Instant::now() > deadline {
            break answer;
        }
    };
    assert!(answer.is_some_and(|answer| answer.ends_with(&address.octets())), "it answers as before");
    assert!(world.report().contains("DNS is answered"), "the daemon is the one that was started");
    println!("| rubbish | {sent} datagrams sent, {answered} answered | it answers as before |");
    streams_that_say_nothing(gateway);
}

/// Streams that are opened and left, and one that says too much, are closed; others are served.
fn streams_that_say_nothing(gateway: Ipv4Addr) {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    let open = || TcpStream::connect((gateway, 53)).expect("connected");
    let idle: Vec<TcpStream> = (0..4).map(|_| open()).collect();
    let mut greedy = open();
    greedy.write_all(&[0xff, 0xff]).expect("written");
    greedy.set_read_timeout(Some(Duration::from_secs(3))).expect("set");
    assert_eq!(greedy.read(&mut [0; 8]).expect("closed"), 0, "65,535 bytes are no question");
    let mut talking = open();
    for _ in 0..3 {
        let asked = question("box.vm");
        talking.write_all(&[&(asked.len() as u16).to_be_bytes()[..], &asked].concat()).expect("written");
        let mut length = [0; 2];
        talking.read_exact(&mut length).expect("an answer");
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        talking.read_exact(&mut answer).expect("an answer");
    }
    drop(idle);
}
