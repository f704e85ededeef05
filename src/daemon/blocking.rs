//! Work that blocks, on threads beside the executor.
//!
//! What `smol::unblock` does, with one difference: a thread without work waits without a limit. Those
//! of the `blocking` crate wake twice a second, each, for as long as the daemon lives. A few threads
//! stay for the next work, the others end; work never waits for other work.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use log::warn;

/// Threads that stay when there is nothing to do: one transaction and one file at the same time.
const KEPT: usize = 2;

type Job = Box<dyn FnOnce() + Send>;

static POOL: Pool = Pool { queue: Mutex::new(Queue { jobs: VecDeque::new(), idle: 0 }), more: Condvar::new() };

struct Pool {
    queue: Mutex<Queue>,
    more: Condvar,
}

struct Queue {
    jobs: VecDeque<Job>,
    /// Threads that wait for a job, those included that have one in the queue and do not know it yet.
    idle: usize,
}

/// What `work` gives; it runs on a thread where it may block. It is not cancelled when the future is dropped.
pub(super) async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = smol::channel::bounded(1);
    POOL.take(Box::new(move || {
        // Whoever asked may be gone.
        let _ = sender.try_send(work());
    }));
    receiver.recv().await.expect("work has a result unless it panics, and a panic ends the process")
}

impl Pool {
    fn take(&'static self, job: Job) {
        let mut queue = self.queue();
        queue.jobs.push_back(job);
        if queue.jobs.len() <= queue.idle {
            return self.more.notify_one();
        }
        drop(queue);
        if let Err(e) = std::thread::Builder::new().name("blocking".into()).spawn(|| self.work()) {
            warn!("no thread for work that blocks, so everything waits for it: {e}");
            let job = self.queue().jobs.pop_front();
            job.into_iter().for_each(|job| job());
        }
    }

    /// One thread: whatever there is to do, until enough others wait for more.
    fn work(&self) {
        let mut queue = self.queue();
        loop {
            while let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                job();
                queue = self.queue();
            }
            if queue.idle >= KEPT {
                return;
            }
            queue.idle += 1;
            queue = self.more.wait_while(queue, |q| q.jobs.is_empty()).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No job runs while it is locked, so no panic leaves it half-changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier};

    #[test]
    fn work_never_waits_for_other_work() {
        const MANY: usize = 20;
        let all = Arc::new(Barrier::new(MANY));
        let works: Vec<_> = (0..MANY)
            .map(|number| {
                let all = all.clone();
                smol::spawn(unblock(move || {
                    // Passed only when all of them run at the same time.
                    all.wait();
                    number
                }))
            })
            .collect();
        let numbers = smol::block_on(async {
            let mut numbers = Vec::new();
            for work in works {
                numbers.push(work.await);
            }
            numbers
        });
        assert_eq!(numbers, (0..MANY).collect::<Vec<_>>());
    }

    #[test]
    fn few_threads_stay_and_they_are_used_again() {
        let names = || std::thread::current().id();
        let seen: std::collections::HashSet<_> = (0..50).map(|_| smol::block_on(unblock(names))).collect();
        assert!(seen.len() < 50, "each piece of work had a thread of its own");
        assert!(POOL.queue().idle <= KEPT);
    }
}
