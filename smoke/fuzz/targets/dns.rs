//! DNS messages of guests and of servers, and what people and nft write about destinations.
#![no_main]

use banger::model::egress::Grant;
use banger::net::dns::foreign::{self, Inquiry};
use banger::net::dns::zone::Zone;
use banger::net::dns::{Answer, Carrier, Query};
use banger::net::{listing, resolvers};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for carrier in [Carrier::Udp, Carrier::Tcp] {
        let Ok(query) = Query::read(bytes, carrier) else { continue };
        let mut zone = Zone { subnet: "172.30.7.0/24".parse().ok(), ..Zone::default() };
        zone.add("box", [172, 30, 7, 2].into());
        let answer = zone.answer(&query).unwrap_or_else(Answer::blocked);
        assert!(query.reply(&answer).len() >= 12);
        let inquiry = Inquiry::verbatim(bytes, 7).expect("it was read as a question");
        assert!(inquiry.check(inquiry.bytes()).is_err(), "a question is no answer");
        let _ = foreign::addresses(bytes, &query.name);
    }
    let _ = foreign::addresses(bytes, "www.example.org");
    let _ = resolvers::servers(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = (listing::traffic(text), listing::filter_chains(text));
    if let Ok(grant) = text.parse::<Grant>() {
        assert_eq!(grant.to_string().parse::<Grant>().as_ref(), Ok(&grant));
    }
});
