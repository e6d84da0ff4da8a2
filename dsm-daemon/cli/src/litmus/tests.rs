//! The litmus tests. What each may come to is not written here: the explorer says so.

use super::program::{Function, Loc, Op};

/// A test, before anything is decided about how its stores are made and where its threads run.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// As the literature has it.
    pub name: &'static str,
    /// The accesses of each thread; a load's register is its number among all that go to one.
    pub threads: &'static [&'static [Access]],
    /// Final values that belong to the outcome.
    pub finals: &'static [Loc],
    /// Cells in a machine word.
    pub grain: u8,
}

/// One access.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// A load.
    R(Loc),
    /// A store.
    W(Loc, u16),
    /// A locked instruction.
    A(Loc, Function, u16),
}

use Access::{A, R, W};

const X: Loc = Loc::cell(0);
const Y: Loc = Loc::cell(1);
const Z: Loc = Loc::cell(2);
/// A word, where halves are accessed: the lower half is `X`, the upper one `Y`. `NEXT` is another word.
const WORD: Loc = Loc::pair(0);
const NEXT: Loc = Loc::pair(2);

const fn test(name: &'static str, threads: &'static [&'static [Access]], finals: &'static [Loc]) -> Test {
    Test { name, threads, finals, grain: 1 }
}

const fn halves(name: &'static str, threads: &'static [&'static [Access]], finals: &'static [Loc]) -> Test {
    Test { name, threads, finals, grain: 2 }
}

/// All of them.
pub const TESTS: &[Test] = &[
    test("SB", &[&[W(X, 1), R(Y)], &[W(Y, 1), R(X)]], &[]),
    test("MP", &[&[W(X, 1), W(Y, 1)], &[R(Y), R(X)]], &[]),
    test("LB", &[&[R(X), W(Y, 1)], &[R(Y), W(X, 1)]], &[]),
    test("S", &[&[W(X, 2), W(Y, 1)], &[R(Y), W(X, 1)]], &[X]),
    test("R", &[&[W(X, 1), W(Y, 1)], &[W(Y, 2), R(X)]], &[Y]),
    test("2+2W", &[&[W(X, 1), W(Y, 2)], &[W(Y, 1), W(X, 2)]], &[X, Y]),
    test("CoRR", &[&[W(X, 1), W(X, 2)], &[R(X), R(X)]], &[]),
    test("CoWW", &[&[W(X, 1), W(X, 2)], &[R(X)]], &[X]),
    test("CoRW", &[&[R(X), W(X, 1)], &[W(X, 2)]], &[X]),
    test("CoWR", &[&[W(X, 1), R(X)], &[W(X, 2)]], &[X]),
    test("WRC", &[&[W(X, 1)], &[R(X), W(Y, 1)], &[R(Y), R(X)]], &[]),
    test("ISA2", &[&[W(X, 1), W(Y, 1)], &[R(Y), W(Z, 1)], &[R(Z), R(X)]], &[]),
    test("RWC", &[&[W(X, 1)], &[R(X), R(Y)], &[W(Y, 1), R(X)]], &[]),
    test("IRIW", &[&[W(X, 1)], &[W(Y, 1)], &[R(X), R(Y)], &[R(Y), R(X)]], &[]),
    // Own stores are read early.
    test("SB+rfi", &[&[W(X, 1), R(X), R(Y)], &[W(Y, 1), R(Y), R(X)]], &[]),
    // Locked instructions lose nothing, against each other and against stores.
    test("ADD", &[&[A(X, Function::Add, 1), A(X, Function::Add, 2)], &[A(X, Function::Add, 4), W(Y, 1), R(X)]], &[X]),
    test(
        "CAS",
        &[&[A(X, Function::CompareExchange(0), 1), R(X)], &[A(X, Function::CompareExchange(0), 2), R(X)]],
        &[X],
    ),
    test("ADD+W", &[&[W(X, 1), R(X)], &[A(X, Function::Add, 2), R(X)]], &[X]),
    // Halves of a word: forwarded, covered and applied byte by byte.
    halves("SB+halves", &[&[W(X, 1), R(WORD)], &[W(Y, 1), R(WORD)]], &[WORD]),
    halves("MP+halves", &[&[W(WORD, 0x0101), W(NEXT, 0x0101)], &[R(Loc::cell(3)), R(X), R(Y)]], &[]),
    halves("CoWW+halves", &[&[W(X, 1), W(WORD, 0x0202), R(WORD)], &[W(WORD, 0x0303), W(Y, 4)]], &[WORD]),
];

impl Test {
    /// The threads' operations, and how many registers they use.
    pub fn ops(&self) -> (Vec<Vec<Op>>, usize) {
        let mut registers = 0u8;
        let mut register = || {
            registers += 1;
            registers - 1
        };
        let mut op = |access: &Access| match *access {
            R(at) => Op::Load(at, register()),
            W(at, value) => Op::Store(at, value),
            A(at, function, value) => Op::Rmw(at, function, value, Some(register())),
        };
        let threads = self.threads.iter().map(|accesses| accesses.iter().map(&mut op).collect()).collect();
        (threads, usize::from(registers))
    }

    /// Cells that its accesses and final values reach.
    pub fn cells(&self) -> u8 {
        let at = |access: &Access| match access {
            R(at) | W(at, _) | A(at, ..) => *at,
        };
        let accessed =
            self.threads.iter().flat_map(|accesses| accesses.iter().map(at)).chain(self.finals.iter().copied());
        accessed.map(|at| at.start + at.len).max().unwrap_or(0).next_multiple_of(self.grain)
    }
}
