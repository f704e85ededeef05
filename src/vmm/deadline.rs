//! Waiting no longer than one is willing to. Here because this is the lower one of the two rooms, this
//! and `daemon`, that run on an executor.

use std::time::Duration;

use smol::Timer;
use smol::future::FutureExt;

/// What `future` gives, or `None` when `limit` passes first; the future is dropped then.
pub async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let given = async { Some(future.await) };
    let late = async {
        Timer::after(limit).await;
        None
    };
    given.or(late).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_given_even_when_there_is_no_time() {
        assert_eq!(smol::block_on(within(Duration::ZERO, async { 7 })), Some(7));
    }

    #[test]
    fn what_never_comes_is_not_waited_for() {
        let never = std::future::pending::<()>();
        assert_eq!(smol::block_on(within(Duration::from_millis(1), never)), None);
    }
}
