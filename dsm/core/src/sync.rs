//! The one place from which atomics come, so that the same code runs under loom (`--cfg loom`).

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// The two halves of an asymmetric store-load barrier.
///
/// The frequent side ([`Barrier::light`]) only stops the compiler; the rare side ([`Barrier::heavy`]) makes every
/// processor that runs a registered process execute a full barrier (`membarrier(2)`,
/// `MEMBARRIER_CMD_GLOBAL_EXPEDITED`). Together they give what two `SeqCst` fences would. Where the kernel has no
/// membarrier both sides are full fences.
#[derive(Clone, Copy, Debug)]
pub struct Barrier {
    asymmetric: bool,
}

impl Barrier {
    /// A barrier that trusts in `membarrier(2)` when `asymmetric`, else in full fences. All parties must agree.
    pub fn new(asymmetric: bool) -> Self {
        Self { asymmetric: asymmetric && cfg!(not(loom)) }
    }

    /// Is [`Barrier::light`] as good as free? (Under loom it is to seem so.)
    #[inline(always)]
    pub fn is_cheap(self) -> bool {
        self.asymmetric || cfg!(loom)
    }

    /// The cheap side: what precedes is ordered before what follows, as far as [`Barrier::heavy`]'s caller can see.
    #[inline(always)]
    pub fn light(self) {
        if self.asymmetric {
            compiler_fence();
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// The expensive side: returns after every registered processor has passed a full barrier.
    pub fn heavy(self) {
        fence(Ordering::SeqCst);
        #[cfg(not(loom))]
        if self.asymmetric {
            crate::sys::membarrier::everywhere();
        }
    }
}

/// One less, unless there is none. (The standard library's loop for such a step is about to change its name.)
pub(crate) fn count_down(count: &AtomicU32) {
    use Ordering::Relaxed;
    let mut seen = count.load(Relaxed);
    while let Some(less) = seen.checked_sub(1) {
        match count.compare_exchange_weak(seen, less, Relaxed, Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

/// Keeps the compiler from moving memory accesses across this point.
///
/// Enough for what only a takeover after a death reads: x86-64 makes stores visible in program order.
#[inline(always)]
pub fn compiler_fence() {
    #[cfg(loom)]
    fence(Ordering::SeqCst);
    #[cfg(not(loom))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// One round of a bounded spin.
#[inline(always)]
pub fn spin() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}
