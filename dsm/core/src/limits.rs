//! A limit on everything. Sizes are in bytes unless the name says otherwise. Some are smaller under Miri, which looks at
//! every word of what is borrowed.

/// One cache line: the granule of the pending index for single stores; no store record crosses one.
pub const LINE: u64 = 64;
/// One page: the granule of bulk records, segments and mappings.
pub const PAGE: u64 = 4096;
/// The address range that a session reserves for its view, and again for its alias.
pub const SPACE: u64 = 1 << 40;
/// The largest single segment.
pub const SEGMENT: u64 = 1 << 39;
/// Segments in a session.
pub const SEGMENTS: usize = 4096;
/// Named semaphores, and named barriers, in a session.
pub const SYNC_OBJECTS: usize = 65_536;
/// Length of the name of a session, segment, semaphore or barrier.
pub const NAME: usize = 255;
/// Field descriptions that travel with a segment.
pub const FIELDS: usize = 4096;
/// Payload of one frame.
pub const FRAME: usize = 1 << 20;
/// Payload of one control message.
pub const CONTROL: usize = 1 << 19;
/// What an arbiter drains from the log into one frame. It is copied, checked, put in order and sent, each a pass over
/// it: all of them together stay in a core's own cache.
pub const BATCH: usize = 64 << 10;
/// What a snapshot sends at a time.
pub const SNAPSHOT_CHUNK: usize = 64 << 10;
/// Hosts in a session; identifiers are `1..=HOSTS`.
pub const HOSTS: u16 = 1024;
/// Processes of one session on one host; identifiers are `1..=PROCESSES`.
pub const PROCESSES: u16 = 1024;
/// Threads of one host that can wait for an answer at the same time.
pub const SLOTS: usize = if cfg!(miri) { 16 } else { 4096 };
/// Words (8 bytes) of the host log's ring.
pub const RING_WORDS: usize = if cfg!(miri) { 1 << 11 } else { 1 << 20 };
/// Entries of the pending index for lines and for pages.
pub const LINE_INDEX: usize = if cfg!(miri) { 64 } else { 1 << 15 };
/// Entries of the pending index for pages.
pub const PAGE_INDEX: usize = if cfg!(miri) { 4 } else { 1 << 12 };
/// The value that a semaphore can hold (as System V's SEMVMX).
pub const SEMAPHORE_VALUE: u32 = 32_767;
/// Parties of a barrier.
pub const PARTIES: u32 = 65_535;

const _: () = assert!(RING_WORDS.is_power_of_two() && LINE_INDEX.is_power_of_two() && PAGE_INDEX.is_power_of_two());
const _: () = assert!(SLOTS <= 1 << 16);
/// The longest path of a socket that the system takes, in bytes.
pub const SOCKET_PATH: usize = 107;

const _: () = assert!(BATCH <= FRAME && CONTROL <= FRAME && SNAPSHOT_CHUNK <= FRAME);
