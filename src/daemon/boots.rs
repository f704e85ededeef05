//! Who boots now, and who waits: a boot keeps a processor busy, and many at once starve each other
//! until none is ready in time.
//!
//! First come, first served. Only boots wait, and only for boots: a VM that is up has left the queue,
//! and one that does not come up holds nobody up for long.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event as Wake;

use super::operation::Op;
use crate::model::choice::Accel;
use crate::protocol::Fault;
use crate::vmm::deadline::within;

/// Boots at once for each of the host's processors where it virtualises: they mostly wait for disks.
const PER_CPU_ON_KVM: usize = 4;

/// A boot that takes longer is stuck, or needs no whole processor.
const LONGEST: Duration = Duration::from_secs(30);

/// The boots under way and waiting.
pub(super) struct Boots {
    cpus: usize,
    longest: Duration,
    queue: Mutex<Queue>,
    changed: Wake,
}

#[derive(Default)]
struct Queue {
    last: u64,
    /// In the order they came; those in front boot.
    tickets: VecDeque<Ticket>,
}

struct Ticket {
    number: u64,
    /// When it began to boot.
    began: Option<Instant>,
}

/// The right to boot, and to have others wait, until dropped.
pub(super) struct Turn<'a> {
    boots: &'a Boots,
    number: u64,
}

impl Boots {
    /// Nobody boots, on a host of `cpus` processors.
    pub(super) fn on(cpus: usize) -> Self {
        Self { cpus: cpus.max(1), longest: LONGEST, queue: Mutex::default(), changed: Wake::new() }
    }

    /// Waits for the turn of one more boot, telling how many must be done before.
    pub(super) async fn turn(&self, op: &Op, accel: Accel) -> Result<Turn<'_>, Fault> {
        let turn = self.come();
        loop {
            let listener = self.changed.listen();
            match turn.still_before(self.at_once(accel)) {
                0 => return Ok(turn.begun()),
                1 => op.stage("waiting for 1 VM to boot first"),
                more => op.stage(&format!("waiting for {more} VMs to boot first")),
            }
            // Also looks again when nothing changes: somebody may have taken too long meanwhile.
            let changed = within(self.longest, listener);
            op.unless_cancelled(changed).await.ok_or_else(Op::cancelled)?;
        }
    }

    /// In software a boot is one busy processor.
    fn at_once(&self, accel: Accel) -> usize {
        match accel {
            Accel::Tcg => self.cpus,
            Accel::Kvm => self.cpus * PER_CPU_ON_KVM,
        }
    }

    fn come(&self) -> Turn<'_> {
        let mut queue = self.queue();
        queue.last += 1;
        let number = queue.last;
        queue.tickets.push_back(Ticket { number, began: None });
        Turn { boots: self, number }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Plain data, right after every statement.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// How many must leave the queue before this one is among the first `at_once`.
    fn still_before(&self, at_once: usize) -> usize {
        let queue = self.boots.queue();
        let earlier = queue.tickets.iter().take_while(|t| t.number != self.number);
        let in_time = |t: &&Ticket| t.began.is_none_or(|began| began.elapsed() < self.boots.longest);
        (earlier.filter(in_time).count() + 1).saturating_sub(at_once)
    }

    fn begun(self) -> Self {
        let now = Some(Instant::now());
        self.boots.queue().tickets.iter_mut().filter(|t| t.number == self.number).for_each(|t| t.began = now);
        self
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.boots.queue().tickets.retain(|t| t.number != self.number);
        self.boots.changed.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OpId;
    use crate::protocol::{Event, FaultKind};
    use smol::future::{block_on, poll_once};
    use std::pin::pin;

    fn stages(events: &smol::channel::Receiver<Event>) -> Vec<String> {
        let stage = |event| match event {
            Event::Stage { name } => name,
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| events.try_recv().ok()).map(stage).collect()
    }

    #[test]
    fn as_many_boot_as_there_are_processors_and_the_rest_is_told_for_how_many_it_waits() {
        let boots = Boots::on(2);
        let now = || block_on(poll_once(boots.turn(&Op::background(), Accel::Tcg))).map(|turn| turn.expect("a turn"));
        let (first, second) = (now().expect("free"), now().expect("free"));
        let (sender, events) = smol::channel::bounded(8);
        let op = Op::asked(OpId::BACKGROUND, sender);
        let mut third = pin!(boots.turn(&op, Accel::Tcg));
        let mut fourth = pin!(boots.turn(&op, Accel::Tcg));
        assert!(block_on(poll_once(&mut third)).is_none());
        assert!(block_on(poll_once(&mut fourth)).is_none());
        assert_eq!(stages(&events), ["waiting for 1 VM to boot first", "waiting for 2 VMs to boot first"]);
        drop(second);
        assert!(block_on(poll_once(&mut fourth)).is_none(), "it came later");
        let third = block_on(poll_once(&mut third)).expect("its turn");
        assert!(third.is_ok());
        drop((first, third));
        assert!(block_on(poll_once(&mut fourth)).is_some_and(|turn| turn.is_ok()));
    }

    #[test]
    fn whoever_gives_up_leaves_the_queue() {
        let boots = Boots::on(1);
        let first = block_on(boots.turn(&Op::background(), Accel::Tcg)).expect("free");
        let op = Op::background();
        let mut waiting = Box::pin(boots.turn(&op, Accel::Tcg));
        assert!(block_on(poll_once(&mut waiting)).is_none());
        op.cancel.set();
        let given_up = block_on(&mut waiting).map(drop).expect_err("cancelled");
        assert_eq!(given_up.kind, FaultKind::Cancelled);
        drop((waiting, first));
        assert!(boots.queue().tickets.is_empty());
    }

    #[test]
    fn a_boot_that_takes_too_long_holds_nobody_up() {
        let boots = Boots { longest: Duration::ZERO, ..Boots::on(1) };
        let stuck = block_on(boots.turn(&Op::background(), Accel::Tcg)).expect("free");
        block_on(boots.turn(&Op::background(), Accel::Tcg)).map(drop).expect("its turn all the same");
        drop(stuck);
    }

    #[test]
    fn on_the_processor_itself_more_boot_at_once() {
        let boots = Boots::on(1);
        let on_kvm = || block_on(poll_once(boots.turn(&Op::background(), Accel::Kvm)));
        let booting: Vec<_> = (0..PER_CPU_ON_KVM).map(|_| on_kvm().expect("free")).collect();
        assert!(on_kvm().is_none());
        drop(booting);
    }
}
