//! What a litmus test consists of: threads on hosts, each a short program of accesses to named cells.

/// Cells of the memory that a test can have.
pub const CELLS: usize = 8;
/// Values that an outcome can have: registers, then final values.
pub const VALUES: usize = 8;

/// One or two neighbouring cells, accessed by one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Loc {
    /// The first cell.
    pub start: u8,
    /// How many.
    pub len: u8,
}

impl Loc {
    /// A cell.
    pub const fn cell(start: u8) -> Self {
        Self { start, len: 1 }
    }

    /// Two cells.
    pub const fn pair(start: u8) -> Self {
        Self { start, len: 2 }
    }
}

/// What a locked instruction does with the value that it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// Adds to every cell.
    Add,
    /// Puts another value in its place.
    Swap,
    /// Puts another value in its place if it is this one.
    CompareExchange(u16),
}

/// One instruction, or what a program makes of several: a hole. A value holds one cell in each byte, the first lowest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A load into a register.
    Load(Loc, u8),
    /// A store.
    Store(Loc, u16),
    /// A locked instruction; the value that it found goes to a register, where one is wanted.
    Rmw(Loc, Function, u16, Option<u8>),
    /// `Session::fence`.
    Fence,
    /// A hole in which these are stored, and which is filled.
    Fill(Vec<(Loc, u16)>),
}

/// A thread and the host on which it runs. In which process of that host it runs is no matter: all see one replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Thread {
    /// The host.
    pub host: u8,
    /// The program.
    pub ops: Vec<Op>,
}

/// A whole test in the form in which it is run and explored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    /// The threads.
    pub threads: Vec<Thread>,
    /// How many registers there are.
    pub registers: usize,
    /// What is looked at when all is done, on all hosts.
    pub finals: Vec<Loc>,
    /// Cells in a machine word: 2 when halves of words are accessed.
    pub grain: u8,
    /// How many cells there are.
    pub cells: u8,
}

impl Program {
    /// How many hosts it takes.
    pub fn hosts(&self) -> usize {
        self.threads.iter().map(|thread| usize::from(thread.host) + 1).max().unwrap_or(0)
    }

    /// Machine words that it takes.
    pub fn words(&self) -> usize {
        usize::from(self.cells.div_ceil(self.grain))
    }

    /// How many values an outcome has.
    pub fn values(&self) -> usize {
        self.registers + self.finals.len()
    }
}

/// What one execution came to: the registers, then the final values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Outcome(pub [u16; VALUES]);
