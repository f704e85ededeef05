use super::foreign::{self, Inquiry, Unusable};
use super::zone::Zone;
use super::*;
use std::net::Ipv4Addr;

const BOX: Ipv4Addr = Ipv4Addr::new(172, 30, 7, 2);

fn zone() -> Zone {
    let mut zone = Zone { subnet: Some("172.30.7.0/24".parse().expect("a subnet")), ..Zone::default() };
    zone.add("box", BOX);
    zone
}

/// A question as a resolver writes it.
fn asked(name: &str, qtype: u16) -> Vec<u8> {
    let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(qtype.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// The same with an options record that says version, and how much is taken.
fn asked_with_edns(name: &str, qtype: u16, version: u8, takes: u16) -> Vec<u8> {
    let mut bytes = asked(name, qtype);
    bytes[11] = 1;
    bytes.extend([0, 0, 41]);
    bytes.extend(takes.to_be_bytes());
    bytes.extend([0, version, 0, 0, 0, 0]);
    bytes
}

fn query(bytes: &[u8]) -> Query {
    Query::read(bytes, Carrier::Udp).expect("a question")
}

/// An answer, read.
struct Read {
    code: Rcode,
    answers: Vec<String>,
    /// Whether the zone's owner is named in the authority section.
    is_owned: bool,
    is_cut: bool,
}

fn read(bytes: &[u8]) -> Read {
    use domain::rdata::AllRecordData;
    let message = Message::from_octets(bytes).expect("a message");
    let head = message.header();
    assert!(head.qr() && head.rd() && head.ra());
    assert_eq!((head.id(), message.header_counts().qdcount()), (0xabcd, 1));
    let answers = message.answer().expect("answers").limit_to_in::<AllRecordData<_, _>>();
    let answers = answers.map(|record| record.expect("a record").data().to_string()).collect();
    let is_owned = message.authority().expect("authority").flatten().any(|record| record.rtype() == Rtype::SOA);
    Read { code: head.rcode(), answers, is_owned, is_cut: head.tc() }
}

fn answered(name: &str, qtype: u16) -> (Rcode, Vec<String>, bool) {
    let query = query(&asked(name, qtype));
    let bytes = query.reply(&zone().answer(&query).expect("in the zone"));
    assert!(Message::from_octets(&bytes).expect("a message").header().aa());
    assert_eq!(options(&bytes).map(|edns| edns.is_some()), Some(false));
    let Read { code, answers, is_owned, .. } = read(&bytes);
    (code, answers, is_owned)
}

#[test]
fn a_vm_is_found_by_name_and_by_address() {
    assert_eq!(answered("box.vm", 1), (Rcode::NOERROR, vec!["172.30.7.2".into()], false));
    assert_eq!(answered("BoX.Vm", 255), (Rcode::NOERROR, vec!["172.30.7.2".into()], false));
    assert_eq!(answered("2.7.30.172.in-addr.arpa", 12), (Rcode::NOERROR, vec!["box.vm.".into()], false));
}

#[test]
fn what_a_name_does_not_have_is_told_from_a_name_that_is_not_there() {
    for qtype in [28, 16, 15, 65, 12, 6, 65_280] {
        assert_eq!(answered("box.vm", qtype), (Rcode::NOERROR, vec![], true), "{qtype}");
    }
    for name in
        ["other.vm", "sub.box.vm", "9.7.30.172.in-addr.arpa", "x.2.7.30.172.in-addr.arpa", "300.7.30.172.in-addr.arpa"]
    {
        assert_eq!(answered(name, 1), (Rcode::NXDOMAIN, vec![], true), "{name}");
    }
    assert_eq!(answered("vm", 6), (Rcode::NOERROR, vec!["dns.invalid. dns.invalid. 1 3600 600 86400 1".into()], false));
    assert_eq!(answered("vm", 2), (Rcode::NOERROR, vec!["dns.invalid.".into()], false));
    assert_eq!(answered("vm", 1), (Rcode::NOERROR, vec![], true));
}

#[test]
fn other_names_are_not_the_zones() {
    for name in ["example.org", "vmm", "xvm", "vm.org", "3.8.30.172.in-addr.arpa", ""] {
        assert!(zone().answer(&query(&asked(name, 1))).is_none(), "{name}");
    }
}

#[test]
fn case_comes_back_as_it_came() {
    let query = query(&asked("bOx.VM", 1));
    let bytes = query.reply(&zone().answer(&query).expect("in the zone"));
    assert!(bytes.windows(7).filter(|w| w == b"\x03bOx\x02VM").count() == 1);
}

#[test]
fn edns_is_answered_with_edns() {
    let query = query(&asked_with_edns("box.vm", 1, 0, 4096));
    let bytes = query.reply(&zone().answer(&query).expect("in the zone"));
    let edns = options(&bytes).flatten().expect("an options record");
    assert_eq!((edns.version, edns.takes), (0, 1232));
    let Err(Unread::Refusal(refusal)) = Query::read(&asked_with_edns("box.vm", 1, 1, 4096), Carrier::Udp) else {
        panic!("refused")
    };
    let refusal = Message::from_octets(&refusal).expect("a message");
    let code = refusal.opt().expect("an options record").rcode(refusal.header());
    assert_eq!((code, refusal.header().qr()), (OptRcode::BADVERS, true));
}

#[test]
fn whoever_wants_signatures_is_answered_too() {
    let mut bytes = asked_with_edns("box.vm", 1, 0, 4096);
    let at = bytes.len() - 4;
    bytes[at] = 0x80;
    assert_eq!(read(&query(&bytes).reply(&zone().answer(&query(&bytes)).expect("in the zone"))).answers.len(), 1);
}

#[test]
fn a_name_that_is_not_granted_comes_with_its_reason() {
    let query = query(&asked_with_edns("example.org", 1, 0, 4096));
    let bytes = query.reply(&Answer::blocked());
    assert_eq!(read(&bytes).code, Rcode::NXDOMAIN);
    assert!(String::from_utf8_lossy(&bytes).contains("--allow HOST"));
}

#[test]
fn what_is_no_question_is_refused_by_its_fault_or_met_with_silence() {
    let refusal = |bytes: &[u8]| match Query::read(bytes, Carrier::Udp) {
        Err(Unread::Refusal(refusal)) => Message::from_octets(&refusal).map(|m| m.header().rcode()).expect("a message"),
        other => panic!("{other:?}"),
    };
    let with = |at: usize, value: u8| {
        let mut bytes = asked("box.vm", 1);
        bytes[at] = value;
        bytes
    };
    assert_eq!(Query::read(&with(2, 0x81), Carrier::Udp).map(|_| ()), Err(Unread::Silence));
    assert_eq!(Query::read(&[0; 11], Carrier::Udp).map(|_| ()), Err(Unread::Silence));
    assert_eq!(refusal(&with(2, 0x28)), Rcode::NOTIMP);
    assert_eq!(refusal(&with(5, 0)), Rcode::FORMERR);
    assert_eq!(refusal(&with(5, 2)), Rcode::FORMERR);
    assert_eq!(refusal(&with(7, 255)), Rcode::FORMERR);
    assert_eq!(refusal(&with(12, 0xc0)), Rcode::FORMERR);
    assert_eq!(refusal(&asked("box.vm", 252)), Rcode::REFUSED);
    let mut chaos = asked("version.bind", 16);
    *chaos.last_mut().expect("a class") = 3;
    assert_eq!(refusal(&chaos), Rcode::REFUSED);
    let mut twice = asked_with_edns("box.vm", 1, 0, 4096);
    twice[11] = 2;
    twice.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(refusal(&twice), Rcode::FORMERR);
}

#[test]
fn a_question_cut_flipped_or_lengthened_anywhere_does_no_harm() {
    let whole = asked_with_edns("box.vm", 1, 0, 4096);
    for length in 0..whole.len() {
        let _ = Query::read(&whole[..length], Carrier::Udp);
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bad = whole.clone();
            bad[at] ^= 1 << bit;
            if let Ok(query) = Query::read(&bad, Carrier::Tcp) {
                let answer = zone().answer(&query).unwrap_or_else(Answer::blocked);
                assert!(query.reply(&answer).len() >= HEADER);
            }
        }
    }
    assert!(Query::read(&[whole, vec![0]].concat(), Carrier::Udp).is_ok());
}

#[test]
fn an_answer_that_is_too_long_says_so() {
    let query = query(&asked("many.example", 1));
    let many: Vec<_> = (0..100u8).map(|n| (Ipv4Addr::new(203, 0, 113, n), 60)).collect();
    let bytes = query.reply(&foreign::answer(&query, Rcode::NOERROR, &many, 0));
    let cut = read(&bytes);
    assert!(cut.is_cut && cut.answers.is_empty() && bytes.len() <= 512);
    let whole = Query::read(&asked("many.example", 1), Carrier::Tcp).expect("a question");
    let whole = read(&whole.reply(&foreign::answer(&whole, Rcode::NOERROR, &many, 0)));
    assert!(!whole.is_cut && whole.answers.len() == 100);
}

/// An answer of the host's server to `inquiry`: aliases and addresses, each under its name.
fn upstream(inquiry: &Inquiry, aliases: &[(&str, &str, u32)], addresses: &[(&str, Ipv4Addr, u32)]) -> Vec<u8> {
    let asked = Message::from_octets(inquiry.bytes()).expect("a message");
    let mut answer = MessageBuilder::new_vec().start_answer(&asked, Rcode::NOERROR).expect("begun");
    let name = |text: &str| OwnName::from_str(text).expect("a name");
    for (from, to, ttl) in aliases {
        answer.push((name(from), Ttl::from_secs(*ttl), domain::rdata::Cname::new(name(to)))).expect("pushed");
    }
    for (of, address, ttl) in addresses {
        answer.push((name(of), Ttl::from_secs(*ttl), A::new(*address))).expect("pushed");
    }
    answer.finish()
}

#[test]
fn aliases_are_followed_to_their_end_for_as_long_as_the_shortest_lasts() {
    let query = query(&asked("www.example.org", 1));
    let inquiry = Inquiry::addresses(&query, 7).expect("a question");
    let far = Ipv4Addr::new(203, 0, 113, 9);
    let aliases = [("WWW.example.org", "a.cdn.example", 30), ("a.cdn.example", "b.cdn.example", 300)];
    let addresses = [("b.cdn.example", far, 60), ("unasked.example", Ipv4Addr::LOCALHOST, 60)];
    let answer = upstream(&inquiry, &aliases, &addresses);
    assert_eq!(inquiry.check(&answer), Ok(()));
    assert_eq!(foreign::addresses(&answer, "www.example.org"), Some((Rcode::NOERROR, vec![(far, 30)])));
    let round = upstream(&inquiry, &[("www.example.org", "www.example.org", 30)], &[]);
    assert_eq!(foreign::addresses(&round, "www.example.org"), None);
}

#[test]
fn answers_to_something_else_are_not_taken() {
    let asked = asked("www.example.org", 1);
    let inquiry = Inquiry::verbatim(&asked, 0x1234).expect("a question");
    let good = upstream(&inquiry, &[], &[]);
    assert_eq!(inquiry.check(&good), Ok(()));
    for at in [0, 1, 14, 28] {
        let mut bad = good.clone();
        bad[at] ^= 0x01;
        assert_eq!(inquiry.check(&bad), Err(Unusable::Stray), "{at}");
    }
    assert_eq!(inquiry.check(&good[..20]), Err(Unusable::Stray));
    assert_eq!(inquiry.check(inquiry.bytes()), Err(Unusable::Stray));
    let mut cut = good.clone();
    cut[2] |= 2;
    assert_eq!(inquiry.check(&cut), Err(Unusable::CutOff));
    let passed = foreign::passed_on(&query(&asked), &good);
    assert_eq!((&passed[..2], &passed[2..]), (&[0xab, 0xcd][..], &good[2..]));
}

#[test]
fn what_is_passed_on_is_cut_to_what_the_asker_takes() {
    let asked = asked("many.example", 1);
    let inquiry = Inquiry::verbatim(&asked, 1).expect("a question");
    let many: Vec<_> = (0..100u8).map(|n| ("many.example", Ipv4Addr::new(203, 0, 113, n), 60)).collect();
    let mut answer = upstream(&inquiry, &[], &many);
    // As a server says it: recursion was available.
    answer[3] |= 0x80;
    let cut = read(&foreign::passed_on(&query(&asked), &answer));
    assert!(cut.is_cut && cut.answers.is_empty());
}

#[test]
fn an_answer_cut_flipped_anywhere_does_no_harm() {
    let query = query(&asked("www.example.org", 1));
    let inquiry = Inquiry::addresses(&query, 7).expect("a question");
    let far = Ipv4Addr::new(203, 0, 113, 9);
    let good = upstream(&inquiry, &[("www.example.org", "a.example", 30)], &[("a.example", far, 60)]);
    for length in 0..good.len() {
        let _ = (inquiry.check(&good[..length]), foreign::addresses(&good[..length], "www.example.org"));
    }
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let _ = foreign::addresses(&bad, "www.example.org");
            if inquiry.check(&bad).is_ok() {
                assert!(foreign::passed_on(&query, &bad).len() >= HEADER);
            }
        }
    }
}
