//! Words that the kernel marks when a thread ends, however it ends: `set_robust_list(2)`.
//!
//! The kernel offers this for mutexes that survive their owner. Here the "mutex" is a word that says that the arbiter
//! lives: whoever reads it knows of a `kill -9` by the next instruction, without a system call.

use crate::sync::{AtomicU32, AtomicU64};

/// Set by the kernel in the word of a thread that has ended (`FUTEX_OWNER_DIED`).
pub const DIED: u32 = 1 << 30;
/// A bit that the owner may use for itself, and that the kernel keeps (`FUTEX_WAITERS`).
pub const FREE: u32 = 1 << 31;

/// A word and its place in the list of the thread that owns it. The word holds the thread's number, and perhaps
/// [`FREE`].
#[derive(Debug)]
#[repr(C)]
pub struct Mark {
    /// Address of the next one's. Written by the owner only; the kernel follows it in the owner's address space.
    next: AtomicU64,
    /// The word.
    pub word: AtomicU32,
    _padding: AtomicU32,
}

impl Mark {
    /// A word that holds `value`, in no list.
    pub fn new(value: u32) -> Self {
        Self { next: AtomicU64::new(0), word: AtomicU32::new(value), _padding: AtomicU32::new(0) }
    }
}

#[cfg(not(loom))]
pub use list::{forget, mark};

#[cfg(not(loom))]
mod list {
    use super::{DIED, Mark};
    use std::cell::RefCell;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::{Relaxed, Release};

    /// `struct robust_list_head`.
    #[repr(C)]
    struct Head {
        next: AtomicU64,
        offset: i64,
        pending: AtomicU64,
    }

    /// A thread's list, and who is in it, the first last.
    struct List {
        head: &'static Head,
        /// Whose it is: a child of `fork` has the memory, and not the kernel's knowledge of it.
        thread: i32,
        marks: Vec<*const Mark>,
    }

    thread_local! {
        static LIST: RefCell<Option<List>> = const { RefCell::new(None) };
    }

    impl List {
        /// Replaces the list that the C library has for this thread, which is for robust mutexes of its own kind.
        fn register(thread: i32) -> Option<Self> {
            const OFFSET: i64 = std::mem::offset_of!(Mark, word) as i64;
            // Never freed: the kernel reads it after everything of this thread has been destroyed.
            let head: &'static Head =
                Box::leak(Box::new(Head { next: AtomicU64::new(0), offset: OFFSET, pending: AtomicU64::new(0) }));
            head.next.store(std::ptr::from_ref(head).addr() as u64, Relaxed);
            // SAFETY: the head lives for ever, is empty, and has the size that is said.
            let result =
                unsafe { libc::syscall(libc::SYS_set_robust_list, std::ptr::from_ref(head), size_of::<Head>()) };
            (result == 0).then_some(Self { head, thread, marks: Vec::new() })
        }
    }

    /// Puts this thread's number into the word of `mark`, and has the kernel set [`DIED`] there when the thread ends.
    /// Where the kernel cannot, the word stays as it is.
    ///
    /// # Safety
    /// The mark stays where it is, and mapped, until [`forget`] is called for it in the same thread.
    pub unsafe fn mark(mark: &Mark) {
        LIST.with_borrow_mut(|list| {
            // SAFETY: takes nothing.
            let thread = unsafe { libc::gettid() };
            if list.as_ref().is_none_or(|list| list.thread != thread) {
                *list = List::register(thread);
            }
            let Some(list) = list else { return };
            mark.word.fetch_or(thread as u32 & (DIED - 1), Relaxed);
            // Whole at any instant: first it leads to the others, then the head leads to it.
            mark.next.store(list.head.next.load(Relaxed), Relaxed);
            list.marks.push(mark);
            // Release: behind the store before, for the kernel, which may come between any two instructions.
            list.head.next.store(std::ptr::from_ref(mark).addr() as u64, Release);
        });
    }

    /// Takes a mark out of this thread's list.
    pub fn forget(mark: &Mark) {
        LIST.with_borrow_mut(|list| {
            let Some(list) = list else { return };
            let Some(at) = list.marks.iter().position(|known| std::ptr::eq(*known, mark)) else { return };
            // Not from the mark itself, which others can write to.
            let head = std::ptr::from_ref(list.head).addr() as u64;
            let next = at.checked_sub(1).map_or(head, |before| list.marks[before].addr() as u64);
            match list.marks.get(at + 1) {
                // SAFETY: in the list, so mapped by the contract of `mark`.
                Some(behind) => unsafe { &**behind }.next.store(next, Relaxed),
                None => list.head.next.store(next, Relaxed),
            }
            list.marks.remove(at);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    #[cfg_attr(miri, ignore = "what the kernel does at the end of a thread")]
    fn the_words_of_a_thread_that_ends_are_marked_and_no_others() {
        let marks: &[Mark; 4] = Box::leak(Box::new(std::array::from_fn(|_| Mark::new(0))));
        std::thread::spawn(|| {
            // SAFETY: never freed.
            marks.iter().for_each(|each| unsafe { mark(each) });
            assert!(marks.iter().all(|each| each.word.load(Relaxed) != 0));
            marks[3].word.fetch_or(FREE, Relaxed);
            // The first in the list, and one in the middle.
            forget(&marks[2]);
            forget(&marks[1]);
        })
        .join()
        .unwrap();
        let died = |at: usize| marks[at].word.load(Relaxed) & DIED != 0;
        assert_eq!([0, 1, 2, 3].map(died), [true, false, false, true]);
        assert_eq!(marks[3].word.load(Relaxed), FREE | DIED);
    }
}
