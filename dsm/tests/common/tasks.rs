//! Tests of what is asynchronous.

use super::common::PATIENCE;
use futures_lite::future::or;

/// The result of a future, or a failure when that takes too long.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    async_io::block_on(or(async { Some(future.await) }, async {
        async_io::Timer::after(PATIENCE).await;
        None
    }))
    .expect("it never ends")
}
