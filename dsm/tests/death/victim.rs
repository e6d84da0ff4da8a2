//! A child that is stepped through a store, an instruction at a time (ptrace).

/// Where the kernel keeps a tracee's instruction pointer.
const RIP: u64 = std::mem::offset_of!(libc::user_regs_struct, rip) as u64;

/// A child that waits to be stepped through its store.
pub(super) struct Victim {
    pid: libc::pid_t,
    /// To be delivered with the next step.
    pub(super) signal: libc::c_int,
}

pub(super) enum Now {
    Stopped,
    Ended,
}

impl Victim {
    /// `None` where tracing is not allowed.
    ///
    /// `before` is what it does before it waits.
    pub(super) fn new(before: impl FnOnce(), store: impl FnOnce()) -> Option<Self> {
        // SAFETY: the child stores, and ends without returning to the test harness.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            // SAFETY: asks to be killed with the parent.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // Not traced yet: every trap would stop it.
            before();
            // SAFETY: asks to be traced by the parent.
            let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } == 0;
            if !traced {
                // SAFETY: ends the child.
                unsafe { libc::_exit(77) };
            }
            // SAFETY: stops the child for its parent.
            unsafe { libc::raise(libc::SIGSTOP) };
            store();
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) };
        }
        let mut victim = Self { pid, signal: 0 };
        match victim.wait() {
            Now::Stopped => {
                victim.signal = 0;
                Some(victim)
            }
            Now::Ended => None,
        }
    }

    fn wait(&mut self) -> Now {
        let mut status = 0;
        // SAFETY: waits for our child.
        let waited = unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) };
        assert_eq!(waited, self.pid);
        if !libc::WIFSTOPPED(status) {
            self.pid = 0;
            assert!(libc::WIFEXITED(status) || libc::WTERMSIG(status) == libc::SIGKILL, "status {status:#x}");
            return Now::Ended;
        }
        // A fault is the child's to handle.
        self.signal = if libc::WSTOPSIG(status) == libc::SIGSEGV { libc::SIGSEGV } else { 0 };
        Now::Stopped
    }

    /// A request without memory of ours.
    fn request(&self, request: libc::c_uint, at: u64, data: i64) -> i64 {
        // SAFETY: our stopped child; no memory of ours is touched.
        unsafe { libc::ptrace(request, self.pid, at, data) }
    }

    /// Lets the child execute one instruction.
    pub(super) fn step(&mut self) -> Now {
        assert_eq!(self.request(libc::PTRACE_SINGLESTEP, 0, i64::from(self.signal)), 0);
        self.wait()
    }

    /// Address of the next instruction.
    pub(super) fn next(&self) -> u64 {
        self.request(libc::PTRACE_PEEKUSER, RIP, 0) as u64
    }

    /// Lets the child run up to the instruction at `address`, by a breakpoint in its copy of the code.
    pub(super) fn run_to(&mut self, address: u64) -> Now {
        let code = self.request(libc::PTRACE_PEEKTEXT, address, 0);
        self.request(libc::PTRACE_POKETEXT, address, code & !0xff | 0xcc);
        loop {
            assert_eq!(self.request(libc::PTRACE_CONT, 0, i64::from(self.signal)), 0);
            if matches!(self.wait(), Now::Ended) {
                return Now::Ended;
            }
            if self.signal == 0 && self.next() == address + 1 {
                self.request(libc::PTRACE_POKETEXT, address, code);
                self.request(libc::PTRACE_POKEUSER, RIP, address as i64);
                return Now::Stopped;
            }
        }
    }

    /// Lets it go from step `from`, where it is, to step `to`, if it has as many. `breakpoints`: steps, from 0 on, and the
    /// instructions that come next there for the first time.
    pub(super) fn go(&mut self, from: usize, to: usize, breakpoints: &[(usize, u64)]) {
        let (step, address) = breakpoints[breakpoints.partition_point(|(step, _)| *step <= to) - 1];
        let far = step > from;
        let mut now = if far { self.run_to(address) } else { Now::Stopped };
        for _ in if far { step } else { from }..to {
            if matches!(now, Now::Stopped) {
                now = self.step();
            }
        }
    }

    /// Kills it, and does not wait.
    pub(super) fn kill(&self) {
        if self.pid != 0 {
            // SAFETY: our child.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
        }
    }

    /// Lets it go on to its end.
    pub(super) fn release(mut self) {
        // Still traced: a trap that is left of the last step would end it.
        loop {
            assert_eq!(self.request(libc::PTRACE_CONT, 0, i64::from(self.signal)), 0);
            if matches!(self.wait(), Now::Ended) {
                return;
            }
        }
    }
}

/// Kills it.
impl Drop for Victim {
    fn drop(&mut self) {
        if self.pid != 0 {
            self.kill();
            let _ = self.wait();
        }
    }
}
