//! What one question gets: an answer from the zone, a refusal, or what the host's servers say, of which a
//! guest that may go to some names gets what is granted, after the way there was opened.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, warn};

use super::directory::{self, Guest};
use crate::daemon::Daemon;
use crate::model::egress::Opening;
use crate::model::scope::is_public;
use crate::model::{OpId, Reach, Subnet};
use crate::net::dns::foreign::{self, Given, Inquiry};
use crate::net::dns::{Answer, Carrier, Kind, Query, Unread};

use crate::protocol::root::RootRequest;

/// Shortest time for which an address is open: whoever looked a name up must get to connecting.
const SHORTEST: u32 = 5;

/// How long, in seconds, a guest may keep where the host of a secret is.
const DIVERTED: u32 = 60;

/// What comes next.
pub(super) enum Next {
    /// Nothing.
    Silence,
    /// This goes back.
    Answer(Vec<u8>),
    /// The host's servers must be asked.
    Ask(Box<Question>),
}

/// A question that the host's servers must answer.
pub(super) struct Question {
    guest: Arc<Guest>,
    subnet: Subnet,
    asker: Ipv4Addr,
    asked: Vec<u8>,
    query: Query,
}

/// Looks at what arrived from `asker`.
pub(super) async fn begin(
    daemon: &Arc<Daemon>,
    subnet: Subnet,
    asker: Ipv4Addr,
    asked: &[u8],
    carrier: Carrier,
) -> Next {
    let query = match Query::read(asked, carrier) {
        Ok(query) => query,
        Err(Unread::Silence) => return Next::Silence,
        Err(Unread::Refusal(refusal)) => return Next::Answer(refusal),
    };
    let directory = match directory::present(daemon, subnet).await {
        Ok(directory) => directory,
        Err(fault) => {
            warn!("a question of {asker} cannot be answered: {fault}");
            return Next::Answer(query.reply(&Answer::failed()));
        }
    };
    let guest = directory.guest(asker);
    if guest.is_some_and(|guest| !guest.machine.outward().may_ask(Instant::now())) {
        return Next::Silence;
    }
    if let Some(answer) = directory.zone.answer(&query) {
        return Next::Answer(query.reply(&answer));
    }
    // The host has servers of its own.
    let Some(guest) = guest else { return Next::Answer(query.reply(&Answer::refused())) };
    if query.host_name().is_some_and(|name| guest.has_secret_for(name)) {
        return Next::Answer(query.reply(&diverted(guest, &query, subnet.gateway())));
    }
    if !is_granted(guest, &query) {
        guest.machine.outward().refuse_name(&query.name);
        return Next::Answer(query.reply(&Answer::blocked()));
    }
    if guest.egress.reach == Reach::Granted && !matches!(query.kind, Kind::Address | Kind::Any) {
        return Next::Answer(query.reply(&Answer::nothing()));
    }
    Next::Ask(Box::new(Question { guest: guest.clone(), subnet, asker, asked: asked.to_vec(), query }))
}

/// The host of a secret is where the secret is put in: at the daemon's own door.
fn diverted(guest: &Guest, query: &Query, gateway: Ipv4Addr) -> Answer {
    match query.kind {
        Kind::Address | Kind::Any => {
            guest.machine.outward().note_name(&query.name, [gateway].into_iter());
            Answer::address(gateway, DIVERTED)
        }
        Kind::Pointer | Kind::Authority | Kind::Other => Answer::nothing(),
    }
}

fn is_granted(guest: &Guest, query: &Query) -> bool {
    let names = || query.host_name().is_some_and(|name| !guest.egress.ports_of(name).is_empty());
    guest.egress.reach.is_everywhere() || names()
}

/// The answer.
pub(super) async fn finish(daemon: &Arc<Daemon>, question: Question) -> Vec<u8> {
    let Question { guest, subnet, asker, asked, query } = question;
    let id = (crate::os::random::number() & 0xffff) as u16;
    if guest.egress.reach.is_everywhere() {
        let Some(inquiry) = Inquiry::verbatim(&asked, id) else { return query.reply(&Answer::failed()) };
        return match daemon.dns.upstream.ask(&inquiry).await {
            Some(answer) => {
                note_names(&guest, &query, &answer);
                foreign::passed_on(&query, &answer)
            }
            None => query.reply(&Answer::failed()),
        };
    }
    let Some(inquiry) = Inquiry::addresses(&query, id) else { return query.reply(&Answer::failed()) };
    let answered = daemon.dns.upstream.ask(&inquiry).await;
    let Some((code, given)) = answered.and_then(|answer| foreign::addresses(&answer, &query.name)) else {
        return query.reply(&Answer::failed());
    };
    // While others thought, it may have been taken back.
    let _unchanged = guest.machine.passage.lock().await;
    let present = directory::present(daemon, subnet).await.ok().and_then(|present| present.guest(asker).cloned());
    let Some(guest) = present.filter(|present| present.id == guest.id && is_granted(present, &query)) else {
        return query.reply(&Answer::blocked());
    };
    let (passed, withheld): (Vec<Given>, Vec<Given>) =
        given.into_iter().partition(|(address, _)| is_public(*address) || guest.egress.names_address(*address));
    let passed = passed.into_iter().take(Opening::MAX_AT_ONCE / 4).collect::<Vec<_>>();
    if !withheld.is_empty() {
        guest.machine.outward().filter_name(&query.name);
    }
    if !open(daemon, &guest, &query.name, &passed).await {
        return query.reply(&Answer::failed());
    }
    query.reply(&foreign::answer(&query, code, &passed, withheld.len()))
}

/// Remembers what a name led to, so that people read names and not numbers.
fn note_names(guest: &Guest, query: &Query, answer: &[u8]) {
    let Some((_, given)) = foreign::addresses(answer, &query.name) else { return };
    guest.machine.outward().note_name(&query.name, given.iter().map(|(address, _)| *address));
}

/// Opens the way to `given` before the guest hears of it; whether that went well.
async fn open(daemon: &Arc<Daemon>, guest: &Guest, name: &str, given: &[Given]) -> bool {
    let ports = guest.egress.ports_of(name);
    let opening = |(address, seconds): &Given| {
        let seconds = (*seconds).clamp(SHORTEST, Opening::MAX_SECONDS);
        let address = *address;
        ports.iter().map(move |port| Opening { address, port: *port, seconds }).collect::<Vec<_>>()
    };
    let public = given.iter().filter(|(address, _)| is_public(*address));
    let wanted: Vec<Opening> = public.flat_map(opening).take(Opening::MAX_AT_ONCE).collect();
    let now = Instant::now();
    guest.machine.outward().note_name(name, given.iter().map(|(address, _)| *address));
    let openings = guest.machine.outward().not_open(&wanted, now);
    if openings.is_empty() {
        return true;
    }
    let request = RootRequest::OpenAddresses { id: guest.id.clone(), openings: openings.clone() };
    match daemon.helper.call_again(OpId::BACKGROUND, request).await {
        Ok(_) => {
            debug!("{name} is open to VM {}", guest.id);
            // From before it was asked for: it is never believed open for longer than it is.
            guest.machine.outward().note_open(&openings, now - Duration::from_secs(1));
            true
        }
        Err(fault) => {
            warn!("{name} cannot be opened to VM {}: {fault}", guest.id);
            false
        }
    }
}
