//! Instructions captured on a segment of a session, by the library, and what of them arrives on a second host.

use crate::bench::Reaped;
use crate::directory::Directory;
use crate::failure::{Failure, Result};
use dsm::prelude::*;
use dsm::{Barrier, Slice};
use dsm_capture::selftest::{Options, Report, Stage, prepare};
use std::io::{self, Read, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// The segment: three pages.
const BYTES: usize = 3 * 4096;
/// The longest that one meeting of the two hosts may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Compares on a session of its own, with another process as its second host.
pub fn run(options: Options) -> Result<Report> {
    // First the test's handlers, then, with the session, the library's.
    let ready = prepare().map_err(Failure::system("the comparison cannot run"))?;
    let dir = Directory::make()?;
    let session = Session::builder("selftest").runtime_dir(dir.host(0)).join()?;
    let mut worker = Command::new("/proc/self/exe");
    worker.args(["selftest", "mirror"]).env("DSM_RUNTIME_DIR", dir.host(1)).env("DSM_DAEMON", session.daemon());
    let worker = worker.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut worker = Reaped(worker.map_err(Failure::system("cannot start the second host"))?);
    let (Some(orders), Some(answers)) = (worker.0.stdin.take(), worker.0.stdout.take()) else {
        return Err(Failure::new("the second host has no pipes"));
    };
    let mut shared = Shared {
        bytes: session.array("selftest", BYTES)?,
        barrier: session.barrier("selftest", 2)?,
        orders,
        answers,
        there: vec![0; BYTES],
    };
    let report = ready.run_on(&mut shared, options).map_err(Failure::system("the comparison broke off"))?;
    // What did not trap was not captured, so that nothing is said of it.
    let trapped = session.status()?.trapped;
    if report.failures.is_empty() && trapped < report.compared / 2 {
        return Err(Failure::new(format!("only {trapped} stores were trapped of {} instructions", report.compared)));
    }
    Ok(report)
}

/// The segment, and the way to the second host.
struct Shared<'s> {
    bytes: Slice<'s, u8>,
    barrier: Barrier<'s>,
    orders: ChildStdin,
    answers: ChildStdout,
    there: Vec<u8>,
}

impl Stage for Shared<'_> {
    fn region(&self) -> (usize, usize) {
        (self.bytes.as_ptr().expose_provenance(), BYTES)
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.bytes.range(offset..offset + bytes.len()).copy_from_slice(bytes);
        Ok(())
    }

    fn settle(&mut self, expected: &[u8]) -> io::Result<Option<String>> {
        self.orders.write_all(&[1])?;
        // All that was stored before precedes the barrier in the session's order.
        self.barrier.wait_timeout(PATIENCE).map_err(io::Error::other)?;
        // The answer does not go through the session, which is under test.
        self.answers.read_exact(&mut self.there)?;
        let Some(at) = expected.iter().zip(&self.there).position(|(here, there)| here != there) else {
            return Ok(None);
        };
        let end = BYTES.min(at + 64);
        let (here, there) = (&expected[at..end], &self.there[at..end]);
        Ok(Some(format!("  on the second host, from {at:#x} on:\n    {there:02x?}, not\n    {here:02x?}\n")))
    }
}

/// The second host: whenever asked, meets the first and then shows what it has.
pub fn mirror() -> Result<()> {
    let broken = || Failure::system("the first host cannot be reached");
    let session = Session::builder("selftest").existing().join()?;
    let bytes = session.array::<u8>("selftest", BYTES)?;
    let barrier = session.barrier("selftest", 2)?;
    let (mut orders, mut answers) = (io::stdin().lock(), io::stdout().lock());
    while orders.read(&mut [0]).map_err(broken())? == 1 {
        barrier.wait_timeout(PATIENCE)?;
        answers.write_all(&bytes.to_vec()).map_err(broken())?;
        answers.flush().map_err(broken())?;
    }
    Ok(())
}
