//! What the bare machine does.

use super::median;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Instant;

/// Nanoseconds of a SIGSEGV whose handler does nothing but step over the store, `LENGTH` bytes of instruction: trap and
/// return. `store` stores to the address that it is given.
pub fn bare_trap<const LENGTH: i64>(rounds: usize, store: impl Fn(*mut libc::c_void)) -> f64 {
    extern "C" fn step_over<const LENGTH: i64>(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let context = context.cast::<libc::ucontext_t>();
        // SAFETY: the kernel's context, valid while the handler runs.
        let registers = unsafe { &mut (*context).uc_mcontext.gregs };
        registers[libc::REG_RIP as usize] += LENGTH;
    }
    let page = map_page();
    // SAFETY: all zeros is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = step_over::<LENGTH> as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: all ones is a valid set: the same mask as the library's.
    unsafe { (&raw mut action.sa_mask).cast::<u8>().write_bytes(0xff, size_of::<libc::sigset_t>()) };
    // SAFETY: all zeros is a valid `sigaction`.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the handler is async-signal-safe; it is replaced again below, and nothing else faults meanwhile.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut before) };
    let times = (0..5).map(|_| {
        let start = Instant::now();
        for _ in 0..rounds {
            store(page);
        }
        start.elapsed().as_nanos() as f64 / rounds as f64
    });
    let result = median(times.collect());
    // SAFETY: what was there before.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const before, std::ptr::null_mut()) };
    // SAFETY: our page.
    unsafe { libc::munmap(page, 4096) };
    result
}

fn map_page() -> *mut libc::c_void {
    // SAFETY: a fresh read-only page.
    unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) }
}

/// Nanoseconds of one locked instruction on a word that nobody else uses: the least that any lock costs.
pub fn locked(rounds: usize) -> f64 {
    let word = std::sync::atomic::AtomicU64::new(0);
    let times = (0..5).map(|_| {
        let start = Instant::now();
        for round in 0..rounds as u64 {
            let _ = std::hint::black_box(&word).compare_exchange(
                round,
                round + 1,
                std::sync::atomic::Ordering::AcqRel,
                std::sync::atomic::Ordering::Relaxed,
            );
            word.store(round + 1, std::sync::atomic::Ordering::Release);
        }
        word.store(0, std::sync::atomic::Ordering::Relaxed);
        start.elapsed().as_nanos() as f64 / rounds as f64
    });
    median(times.collect())
}

/// Nanoseconds a turn of two threads on two cores under one spin lock (test and test-and-set), each turn with the
/// memory accesses of a captured store: its record, its index entry, the word, two positions.
pub fn contended_lock(rounds: usize) -> f64 {
    #[repr(align(64))]
    #[derive(Default)]
    struct Line([AtomicU64; 8]);
    let (shared, index, word) = (Line::default(), Line::default(), Line::default());
    let ring: Vec<AtomicU64> = (0..1 << 20).map(|_| AtomicU64::new(0)).collect();
    let lock = &shared.0[0];
    let turn = |value: u64| {
        while lock.compare_exchange(0, 1, Acquire, Relaxed).is_err() {
            let mut round = 0;
            while lock.load(Relaxed) != 0 {
                round += 1;
                // The holder may have been scheduled out.
                if round < 100 { std::hint::spin_loop() } else { std::thread::yield_now() }
            }
        }
        let tail = shared.0[1].load(Relaxed);
        for at in 0..3 {
            ring[(tail + at) as usize & (ring.len() - 1)].store(value, Relaxed);
        }
        shared.0[2].store(tail + 1, Release);
        index.0[0].store(tail + 1, Relaxed);
        word.0[0].store(value, Relaxed);
        shared.0[1].store(tail + 3, Release);
        lock.store(0, Release);
    };
    two_threads(rounds, &turn, || ())
}

/// Nanoseconds a call when two threads call at once, `rounds` times each: the median of some rounds, before each of
/// which `before` is called.
pub fn two_threads(rounds: usize, call: &(impl Fn(u64) + Sync), before: impl Fn()) -> f64 {
    let times = (0..9).map(|_| {
        before();
        let start = std::sync::Barrier::new(2);
        let run = || {
            start.wait();
            let begun = Instant::now();
            (0..rounds as u64).for_each(call);
            (begun, Instant::now())
        };
        let (one, two) = std::thread::scope(|scope| {
            let other = scope.spawn(run);
            (run(), other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        one.1.max(two.1).duration_since(one.0.min(two.0)).as_nanos() as f64 / (2 * rounds) as f64
    });
    median(times.collect())
}

/// Two connected TCP sockets over loopback.
pub fn sockets() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let (two, _) = listener.accept()?;
    one.set_nodelay(true)?;
    two.set_nodelay(true)?;
    Ok((one, two))
}

/// Nanoseconds one way of a bare exchange of 64 bytes over loopback TCP between two threads that poll, giving the
/// processor away in between: the same way of waiting as ours.
pub fn tcp_one_way(rounds: usize) -> std::io::Result<f64> {
    let (mut here, mut there) = sockets()?;
    here.set_nonblocking(true)?;
    there.set_nonblocking(true)?;
    let poll = |socket: &mut TcpStream, buffer: &mut [u8; 64]| -> std::io::Result<()> {
        let mut at = 0;
        while at < buffer.len() {
            match socket.read(&mut buffer[at..]) {
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => at += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while poll(&mut there, &mut buffer).is_ok() && there.write_all(&buffer).is_ok() {}
    });
    let mut buffer = [0; 64];
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = Instant::now();
        here.write_all(&buffer)?;
        poll(&mut here, &mut buffer)?;
        times.push(start.elapsed().as_nanos() as f64 / 2.0);
    }
    drop(here);
    let _ = echo.join();
    Ok(median(times))
}

/// Nanoseconds of the same exchange when the one who asks has no socket of its own: it leaves its request in memory for
/// a thread that has, as a process does for its arbiter. Three threads that poll, giving the processor away in between.
pub fn relayed_round_trip(rounds: usize) -> std::io::Result<f64> {
    const IDLE: u64 = 0;
    const ASKED: u64 = 1;
    const ANSWERED: u64 = 2;
    const OVER: u64 = 3;
    let (here, mut there) = sockets()?;
    here.set_nonblocking(true)?;
    there.set_nonblocking(true)?;
    /// Whether 64 bytes have come; what is sent in one piece over loopback comes in one.
    fn arrived(socket: &mut TcpStream) -> std::io::Result<bool> {
        match socket.read(&mut [0; 64]) {
            Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
    let state = AtomicU64::new(IDLE);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok(arrived) = arrived(&mut there) {
                if !arrived {
                    std::thread::yield_now();
                } else if there.write_all(&[0; 64]).is_err() {
                    break;
                }
            }
        });
        scope.spawn(|| {
            let mut here = here;
            loop {
                match state.load(Acquire) {
                    ASKED => {
                        state.store(IDLE, Relaxed);
                        if here.write_all(&[0; 64]).is_err() {
                            break;
                        }
                    }
                    OVER => break,
                    _ => {}
                }
                match arrived(&mut here) {
                    Ok(true) => state.store(ANSWERED, Release),
                    Ok(false) => std::thread::yield_now(),
                    Err(_) => break,
                }
            }
            state.store(OVER, Release);
        });
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let start = Instant::now();
            state.store(ASKED, Release);
            loop {
                match state.load(Acquire) {
                    ANSWERED => break,
                    OVER => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                    _ => std::thread::yield_now(),
                }
            }
            times.push(start.elapsed().as_nanos() as f64);
        }
        state.store(OVER, Release);
        Ok(median(times))
    })
}

/// Bytes per second of loopback TCP from one thread to another, in writes of `piece` bytes.
pub fn tcp_bandwidth(piece: usize, total: usize) -> std::io::Result<f64> {
    let (mut here, mut there) = sockets()?;
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        let mut left = total;
        while left > 0 {
            match there.read(&mut buffer) {
                Ok(count) if count > 0 => left = left.saturating_sub(count),
                _ => return,
            }
        }
        let _ = there.write_all(&[1]);
    });
    let data = vec![1; piece];
    let start = Instant::now();
    let mut left = total;
    while left > 0 {
        let now = left.min(piece);
        here.write_all(&data[..now])?;
        left -= now;
    }
    here.read_exact(&mut [0])?;
    let rate = total as f64 / start.elapsed().as_secs_f64();
    let _ = reader.join();
    Ok(rate)
}

/// Bytes per second of copying `size` bytes of private memory, until `total` are copied.
pub fn memcpy_bandwidth(size: usize, total: usize) -> f64 {
    let (from, mut to) = (vec![1u8; size], vec![0u8; size]);
    let rounds = (total / size).max(1);
    let start = Instant::now();
    for _ in 0..rounds {
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
    }
    (rounds * size) as f64 / start.elapsed().as_secs_f64()
}
