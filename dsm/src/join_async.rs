//! Joining without blocking the thread.

use crate::join::Builder;
use crate::start::Meeting;
use crate::sync::asynchronous::{by, not_ours};
use crate::wait::deadline;
use crate::{Error, Result, Session};
use async_io::{Async, Timer};
use std::future::{Future, poll_fn};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

/// Says, when it is dropped, that the thread is done; also where it panics.
struct Done(UnixStream);

impl Drop for Done {
    fn drop(&mut self) {
        // Not left to its being closed: a child of `fork` may have it, too.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A socket of this process. A child of `fork` shares it and the reactor: were it ended there, the parent's would be.
struct Ours {
    socket: Option<Async<UnixStream>>,
    process: u32,
}

impl Ours {
    /// Waits until the other end is closed.
    async fn end(&self) -> Result<()> {
        let Some(socket) = &self.socket else { unreachable!("it is taken when this is dropped") };
        let mut readable = pin!(socket.readable());
        poll_fn(|cx| {
            if self.process != std::process::id() {
                return Poll::Ready(Err(not_ours()));
            }
            readable.as_mut().poll(cx).map_err(Error::system("cannot wait for the thread that joins"))
        })
        .await
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            std::mem::forget(self.socket.take());
        }
    }
}

impl Builder {
    /// As [`Builder::join`], without blocking the thread; with [`Builder::expect`], too. A thread of its own does what
    /// would block, and ends with it.
    ///
    /// Nothing is done before the future is first polled. When it is dropped, so is the session, if need be as soon as
    /// that thread has joined: whoever else is expected does not meet this process.
    ///
    /// ```
    /// # fn main() -> dsm::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    /// use dsm::Session;
    /// use futures_lite::future::{block_on, zip};
    ///
    /// // Two "virtual hosts" of one machine. Neither could join first if that blocked the thread.
    /// let host = |name| Session::builder("game").runtime_dir(dir.path().join(name)).daemon(&address).expect(2);
    /// let (one, other) = block_on(zip(host("one").join_async(), host("other").join_async()));
    /// assert_eq!(one?.rank() + other?.rank(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Builder::join`]; [`Error::System`] when no thread can be started.
    pub async fn join_async(self) -> Result<Session> {
        // The thread that goes on with the session stores to it, maybe with SIGSEGV blocked until here.
        crate::signals::adopt()?;
        let cannot = Error::system;
        let (done, socket) = UnixStream::pair().map_err(cannot("cannot make a pair of sockets"))?;
        let socket = Async::new(socket).map_err(cannot("cannot wait for a thread"))?;
        let ended = Ours { socket: Some(socket), process: std::process::id() };
        // Goes with the future.
        let wanted = Arc::new(());
        let still = Arc::downgrade(&wanted);
        let joining = thread::Builder::new().name("dsm-join".to_owned()).spawn(move || {
            let _done = Done(done);
            self.enter(|| still.strong_count() == 0)
        });
        let joining = joining.map_err(cannot("cannot start a thread to join on"))?;
        if let Err(error) = ended.end().await {
            if ended.process != std::process::id() {
                // There is no such thread in a child.
                std::mem::forget(joining);
            }
            return Err(error);
        }
        drop((ended, wanted));
        // It has come to its end. (Where nobody takes the result, whoever is last drops it: the thread, or the future.)
        let (session, meeting) = joining.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        if let Some(meeting) = meeting {
            meeting.wait_async(&session).await?;
        }
        session.announce()?;
        Ok(session)
    }
}

impl Meeting {
    /// As [`Meeting::wait`].
    async fn wait_async(&self, session: &Session) -> Result<()> {
        let barrier = self.barrier(session)?;
        loop {
            let too_late = || Error::TimedOut(self.patience);
            let left = self.left().ok_or_else(too_late)?;
            match by(deadline(left), barrier.wait_async()).await {
                Some(Ok(_)) => return Ok(()),
                Some(Err(error)) => drop(Timer::after(self.again(error)?).await),
                None => return Err(too_late()),
            }
        }
    }
}
