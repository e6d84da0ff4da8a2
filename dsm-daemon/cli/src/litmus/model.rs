//! The memory model, explored exhaustively: every outcome that it allows a small program to have.
//!
//! The rules, as a machine. A host has a replica, a list of own operations without acknowledgement, and a stream of
//! what the server sends. A store goes to the replica and to the list at once. The server takes the operations of each
//! host in their order and gives each its place; at that place it goes to every other host's stream, and to its own
//! as an acknowledgement, or for a locked instruction as its result. What comes from others is applied except where
//! an own store without acknowledgement lies, as that comes later in the order. A locked instruction is carried out at
//! its place, a fence is nothing but a place; both return when their answer has come, and with it all before it.
//!
//! All threads of a host share its replica, and each access to it is one step. The processor's own store buffers are
//! in front of it and add nothing: captured stores are made under the host's replica lock, whose locked instruction
//! drains what the last holder has stored before the next one stores or the arbiter applies anything. So a load that
//! overtakes its own thread's store can be placed before it or behind it: nothing is stored in between. In which of the
//! host's processes a thread runs makes no difference: they have mapped the same pages, lock and log, each at addresses
//! of its own, and it is the pages that the processor keeps coherent.
//!
//! A hole takes its twin when it is opened. What differs when it is filled is published at that place in the program;
//! in parts, and nothing is promised about their order. So each word of it is a store of its own here, in every order.

use super::program::{CELLS, Function, Loc, Op, Outcome, Program, VALUES};
use std::collections::{BTreeSet, HashSet};

/// What holds. Anything but [`Rules::DESIGN`] and [`Rules::SEQUENTIAL`] is wrong: for showing that it would be found.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Every access is carried out everywhere at once.
    pub sequential: bool,
    /// Remote stores leave out the bytes under own pending stores.
    pub minus_pending: bool,
    /// The server takes a host's operations in their order.
    pub own_order: bool,
    /// A fence waits for its answer.
    pub fences: bool,
    /// A locked instruction has one place in the order: otherwise it acts on what its host sees.
    pub one_place: bool,
}

impl Rules {
    /// The model that is promised.
    pub const DESIGN: Self =
        Self { sequential: false, minus_pending: true, own_order: true, fences: true, one_place: true };
    /// Sequential consistency.
    pub const SEQUENTIAL: Self = Self { sequential: true, ..Self::DESIGN };
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explored {
    /// All outcomes.
    pub outcomes: BTreeSet<Outcome>,
    /// Some execution ends with hosts that differ.
    pub diverged: bool,
    /// How many states were looked at.
    pub states: usize,
}

type Cells = [u8; CELLS];

/// Bytes for some cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Write {
    mask: u8,
    bytes: Cells,
}

impl Write {
    fn new(at: Loc, value: u16) -> Self {
        let mut this = Self::default();
        for (cell, byte) in (at.start..at.start + at.len).zip(value.to_le_bytes()) {
            this.mask |= 1 << cell;
            this.bytes[usize::from(cell)] = byte;
        }
        this
    }

    /// Without these cells.
    fn minus(self, covered: u8) -> Self {
        let mut this = Self { mask: self.mask & !covered, ..self };
        (0..CELLS).filter(|cell| this.mask >> cell & 1 == 0).for_each(|cell| this.bytes[cell] = 0);
        this
    }

    /// The cells in which it differs from `twin`.
    fn changed(self, twin: &Cells) -> Self {
        let same = (0..CELLS).filter(|cell| self.bytes[*cell] == twin[*cell]).fold(0, |mask, cell| mask | 1 << cell);
        self.minus(same)
    }

    fn overlay(self, cells: &mut Cells) {
        for (cell, byte) in cells.iter_mut().enumerate().filter(|(cell, _)| self.mask >> cell & 1 == 1) {
            *byte = self.bytes[cell];
        }
    }
}

fn read(cells: &Cells, at: Loc) -> u16 {
    let bytes = (at.start..at.start + at.len).rev().map(|cell| cells[usize::from(cell)]);
    bytes.fold(0, |value, byte| value << 8 | u16::from(byte))
}

fn apply(function: Function, old: u16, value: u16) -> u16 {
    match function {
        Function::Swap => value,
        Function::CompareExchange(expected) => {
            if old == expected {
                value
            } else {
                old
            }
        }
        Function::Add => {
            let sum = old.to_le_bytes().into_iter().zip(value.to_le_bytes());
            u16::from_le_bytes(std::array::from_fn(|at| sum.clone().nth(at).map_or(0, |(a, b)| a.wrapping_add(b))))
        }
    }
}

/// An own operation without acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pending {
    Store(Write),
    Locked(u8),
    Fence(u8),
}

/// What the server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum News {
    Apply(Write),
    Ack,
    Result(Write, u16),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Host {
    replica: Cells,
    pending: Vec<Pending>,
    /// How many of them have their place.
    ordered: usize,
    stream: Vec<News>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Thread {
    at: u8,
    waiting: bool,
    /// Of an open hole: stores that are still to be published, and the twin.
    unpublished: u8,
    twin: Cells,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    threads: Vec<Thread>,
    hosts: Vec<Host>,
    /// The server's.
    memory: Cells,
    registers: [u16; VALUES],
}

/// All that the program can come to.
pub fn explore(program: &Program, rules: Rules) -> Explored {
    let threads = vec![Thread::default(); program.threads.len()];
    let hosts = vec![Host::default(); program.hosts()];
    let start = State { threads, hosts, memory: [0; CELLS], registers: [0; VALUES] };
    let mut found = Explored { outcomes: BTreeSet::new(), diverged: false, states: 0 };
    let (mut todo, mut next) = (vec![start.clone()], Vec::new());
    let mut seen = HashSet::from([start]);
    while let Some(state) = todo.pop() {
        found.states += 1;
        state.successors(program, rules, &mut next);
        if next.is_empty() {
            found.diverged |= state.hosts.iter().any(|host| host.replica != state.memory);
            found.outcomes.insert(state.outcome(program));
        }
        for state in next.drain(..) {
            if !seen.contains(&state) {
                seen.insert(state.clone());
                todo.push(state);
            }
        }
    }
    found
}

impl State {
    fn outcome(&self, program: &Program) -> Outcome {
        let mut values = self.registers;
        for (value, at) in values[program.registers..].iter_mut().zip(&program.finals) {
            *value = read(&self.memory, *at);
        }
        Outcome(values)
    }

    fn successors(&self, program: &Program, rules: Rules, next: &mut Vec<Self>) {
        // What comes to a host whose threads are done can be seen by nobody: its order against other steps is all one.
        let done = |host: usize| {
            let mut here = program.threads.iter().zip(&self.threads).filter(|(of, _)| usize::from(of.host) == host);
            here.all(|(of, thread)| usize::from(thread.at) == of.ops.len())
        };
        let idle = (0..self.hosts.len()).find(|host| !self.hosts[*host].stream.is_empty() && done(*host));
        if let Some(host) = idle {
            return next.push(self.after(|state| state.receive(host, program, rules)));
        }
        for (number, thread) in self.threads.iter().enumerate() {
            if let Some(op) = program.threads[number].ops.get(usize::from(thread.at))
                && !thread.waiting
            {
                self.perform(number, usize::from(program.threads[number].host), op, rules, next);
            }
        }
        for (number, host) in self.hosts.iter().enumerate() {
            let candidates = host.ordered..if rules.own_order { host.ordered + 1 } else { host.pending.len() };
            for which in candidates.take_while(|which| *which < host.pending.len()) {
                next.push(self.after(|state| state.order(number, which, program)));
            }
            if !host.stream.is_empty() {
                next.push(self.after(|state| state.receive(number, program, rules)));
            }
        }
    }

    fn after(&self, step: impl FnOnce(&mut Self)) -> Self {
        let mut state = self.clone();
        step(&mut state);
        state
    }

    /// All that a thread's next operation can do.
    fn perform(&self, number: usize, host: usize, op: &Op, rules: Rules, next: &mut Vec<Self>) {
        let step = |action: &dyn Fn(&mut Self)| {
            self.after(|state| {
                state.threads[number].at += 1;
                action(state);
            })
        };
        let wait = |entry: Pending| {
            self.after(|state| {
                state.threads[number].waiting = true;
                state.hosts[host].pending.push(entry);
            })
        };
        match op {
            Op::Load(at, register) => {
                next.push(step(&|state| {
                    state.registers[usize::from(*register)] = read(&state.hosts[host].replica, *at);
                }));
            }
            Op::Store(at, value) => next.push(step(&|state| state.store(host, Write::new(*at, *value), rules))),
            Op::Rmw(at, function, value, register) if rules.sequential || !rules.one_place => {
                next.push(step(&|state| {
                    let old = read(&state.hosts[host].replica, *at);
                    state.store(host, Write::new(*at, apply(*function, old, *value)), rules);
                    if let Some(register) = register {
                        state.registers[usize::from(*register)] = old;
                    }
                }))
            }
            Op::Rmw(..) => next.push(wait(Pending::Locked(number as u8))),
            Op::Fence if rules.sequential || !rules.fences => next.push(step(&|_| ())),
            Op::Fence => next.push(wait(Pending::Fence(number as u8))),
            Op::Fill(stores) => self.fill(number, host, stores, rules, next),
        }
    }

    fn fill(&self, number: usize, host: usize, stores: &[(Loc, u16)], rules: Rules, next: &mut Vec<Self>) {
        let unpublished = self.threads[number].unpublished;
        if unpublished == 0 {
            return next.push(self.after(|state| {
                let twin = state.hosts[host].replica;
                let thread = &mut state.threads[number];
                (thread.unpublished, thread.twin) = ((1 << stores.len()) - 1, twin);
            }));
        }
        for (which, (at, value)) in stores.iter().enumerate().filter(|(which, _)| unpublished >> which & 1 == 1) {
            next.push(self.after(|state| {
                let thread = &mut state.threads[number];
                let changed = Write::new(*at, *value).changed(&thread.twin);
                thread.unpublished &= !(1 << which);
                if thread.unpublished == 0 {
                    thread.twin = [0; CELLS];
                    thread.at += 1;
                }
                state.store(host, changed, rules);
            }));
        }
    }

    fn store(&mut self, host: usize, write: Write, rules: Rules) {
        if write.mask == 0 {
            return;
        }
        if rules.sequential {
            write.overlay(&mut self.memory);
            self.hosts.iter_mut().for_each(|host| write.overlay(&mut host.replica));
            return;
        }
        let host = &mut self.hosts[host];
        write.overlay(&mut host.replica);
        host.pending.push(Pending::Store(write));
    }

    /// The server gives an operation of `host` its place.
    fn order(&mut self, host: usize, which: usize, program: &Program) {
        let own = &mut self.hosts[host];
        own.pending.swap(own.ordered, which);
        let entry = own.pending[own.ordered];
        own.ordered += 1;
        let (write, answer) = match entry {
            Pending::Store(write) => (write, News::Ack),
            Pending::Fence(_) => (Write::default(), News::Ack),
            Pending::Locked(thread) => {
                let at = usize::from(self.threads[usize::from(thread)].at);
                let Op::Rmw(at, function, value, _) = program.threads[usize::from(thread)].ops[at] else {
                    unreachable!("a thread that waits for a locked instruction stands at it")
                };
                let old = read(&self.memory, at);
                let write = Write::new(at, apply(function, old, value));
                (write, News::Result(write, old))
            }
        };
        write.overlay(&mut self.memory);
        for (number, to) in self.hosts.iter_mut().enumerate() {
            if number == host {
                to.stream.push(answer);
            } else if write.mask != 0 {
                to.stream.push(News::Apply(write));
            }
        }
    }

    /// `host` takes the next thing from its stream.
    fn receive(&mut self, number: usize, program: &Program, rules: Rules) {
        let host = &mut self.hosts[number];
        let news = host.stream.remove(0);
        let answered = match news {
            News::Apply(_) => None,
            News::Ack | News::Result(..) => {
                host.ordered -= 1;
                Some(host.pending.remove(0))
            }
        };
        if let News::Apply(write) | News::Result(write, _) = news {
            let covered = host.pending.iter().fold(0, |mask, entry| match entry {
                Pending::Store(write) => mask | write.mask,
                _ => mask,
            });
            write.minus(if rules.minus_pending { covered } else { 0 }).overlay(&mut host.replica);
        }
        if let Some(Pending::Locked(thread) | Pending::Fence(thread)) = answered {
            let of = &program.threads[usize::from(thread)];
            let thread = &mut self.threads[usize::from(thread)];
            if let (News::Result(_, old), Op::Rmw(.., Some(register))) = (news, &of.ops[usize::from(thread.at)]) {
                self.registers[usize::from(*register)] = old;
            }
            thread.waiting = false;
            thread.at += 1;
        }
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
