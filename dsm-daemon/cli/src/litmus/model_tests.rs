//! The explorer against what is known, and against a second one that states the rules in another way.

use super::super::program;
use super::super::tests::TESTS;
use super::super::variant::{Job, plan};
use super::*;

fn job(name: &str) -> Job {
    plan(&[name.to_owned()], 1).unwrap().swap_remove(0)
}

fn outcomes(name: &str, rules: Rules) -> BTreeSet<Vec<u16>> {
    let program = job(name).program();
    let found = explore(&program, rules);
    found.outcomes.iter().map(|outcome| outcome.0[..program.values()].to_vec()).collect()
}

#[track_caller]
fn allowed(name: &str, values: &[u16]) {
    let found = outcomes(name, Rules::DESIGN);
    assert!(found.contains(values), "{name} allows only {found:?}");
}

#[track_caller]
fn forbidden(name: &str, values: &[u16]) {
    let found = outcomes(name, Rules::DESIGN);
    assert!(!found.is_empty() && !found.contains(values), "{name} allows {found:?}");
}

#[test]
fn what_is_known_of_x86_tso() {
    allowed("SB/plain/0,1", &[0, 0]);
    for name in ["SB/plain+fence/0,1", "SB/accessor+locked/0,1", "SB/atomic/0,1", "SB/hole+fence/0,1"] {
        forbidden(name, &[0, 0]);
        allowed(name, &[0, 1]);
        allowed(name, &[1, 1]);
    }
    forbidden("MP/plain/0,1", &[1, 0]);
    forbidden("LB/plain/0,1", &[1, 1]);
    forbidden("S/plain/0,1", &[1, 2]);
    allowed("R/plain/0,1", &[0, 2]);
    forbidden("R/plain+fence/0,1", &[0, 2]);
    forbidden("2+2W/plain/0,1", &[1, 1]);
    allowed("2+2W/plain/0,1", &[2, 2]);
    forbidden("WRC/plain/0,1,2", &[1, 1, 0]);
    forbidden("ISA2/plain/0,1,2", &[1, 1, 0]);
    allowed("RWC/plain/0,1,2", &[1, 0, 0]);
    forbidden("RWC/plain+fence/0,1,2", &[1, 0, 0]);
    forbidden("IRIW/plain/0,1,2,3", &[1, 0, 1, 0]);
    allowed("IRIW/plain/0,1,2,3", &[1, 0, 0, 1]);
    allowed("SB+rfi/plain/0,1", &[1, 0, 1, 0]);
}

#[test]
fn what_is_known_of_coherence() {
    for values in [[1, 0], [2, 0], [2, 1]] {
        forbidden("CoRR/plain/0,1", &values);
    }
    let expected: BTreeSet<Vec<u16>> = [[0, 2], [1, 2], [2, 2]].iter().map(|values| values.to_vec()).collect();
    assert_eq!(outcomes("CoWW/plain/0,1", Rules::DESIGN), expected);
    forbidden("CoRW/plain/0,1", &[2, 2]);
    forbidden("CoRW/plain/0,1", &[1, 1]);
    forbidden("CoWR/plain/0,1", &[2, 1]);
    forbidden("CoWR/plain/0,1", &[0, 1]);
    allowed("CoWR/plain/0,1", &[1, 2]);
}

#[test]
fn locked_instructions_lose_nothing() {
    for name in ["ADD/plain/0,1", "ADD/plain/0,0"] {
        assert!(outcomes(name, Rules::DESIGN).iter().all(|values| values[4] == 7), "{name}");
    }
    for name in ["CAS/plain/0,1", "CAS/plain/0,0"] {
        let winners = outcomes(name, Rules::DESIGN);
        assert_eq!(winners, BTreeSet::from([vec![0, 1, 1, 1, 1], vec![2, 2, 0, 2, 2]]), "{name}");
    }
}

#[test]
fn a_host_is_one_store_buffer() {
    // Threads of one host see each other's stores at once, those of another later: each pair its own first.
    allowed("IRIW/plain/0,1,0,1", &[1, 0, 1, 0]);
    forbidden("IRIW/plain+fence/0,1,0,1", &[1, 0, 1, 0]);
    forbidden("IRIW/atomic/0,1,0,1", &[1, 0, 1, 0]);
    forbidden("SB/plain/0,0", &[0, 0]);
    for test in TESTS.iter().filter(|test| test.threads.len() == 2) {
        let name = format!("{}/plain/0,0", test.name);
        assert_eq!(outcomes(&name, Rules::DESIGN), outcomes(&name, Rules::SEQUENTIAL), "{name}");
    }
}

/// Processes of a host share its replica: what is allowed in two of them is what is allowed in one.
#[test]
fn processes_of_a_host_are_one_store_buffer() {
    for (apart, together) in [
        ("SB/plain/0,0b", "SB/plain/0,0"),
        ("SB/atomic/alone:0,0b", "SB/atomic/0,0"),
        ("WRC/hole/0,1,0b", "WRC/hole/0,1,0"),
    ] {
        assert_eq!(outcomes(apart, Rules::DESIGN), outcomes(together, Rules::DESIGN), "{apart}");
    }
    forbidden("SB/plain/0,0b", &[0, 0]);
    // Readers beside the writers, in processes of their own: each pair has its own first.
    allowed("IRIW/plain/0,1,0b,1b", &[1, 0, 1, 0]);
    forbidden("IRIW/plain+fence/0,1,0b,1b", &[1, 0, 1, 0]);
    forbidden("WRC/plain/0,0b,1", &[1, 1, 0]);
    allowed("RWC/plain/0,0b,1", &[1, 0, 0]);
    forbidden("RWC/plain/0,1,0b", &[1, 0, 0]);
}

#[test]
fn halves_of_a_word_are_forwarded() {
    allowed("SB+halves/plain/0,1", &[0x0001, 0x0100, 0x0101]);
    forbidden("SB+halves/plain+fence/0,1", &[0x0001, 0x0100, 0x0101]);
    forbidden("MP+halves/plain/0,1", &[1, 0, 1]);
}

#[test]
fn a_hole_promises_no_order_within_itself() {
    allowed("MP/batch/0,1", &[1, 0]);
    forbidden("MP/hole/0,1", &[1, 0]);
}

#[test]
fn what_is_sequential_is_allowed() {
    for job in plan(&[], 1).unwrap() {
        let program = job.program();
        let (all, sequential) = (explore(&program, Rules::DESIGN), explore(&program, Rules::SEQUENTIAL));
        assert!(sequential.outcomes.is_subset(&all.outcomes) && !all.diverged, "{}", job.name());
        assert!(all.states < 200_000, "{} has {} states", job.name(), all.states);
    }
}

/// Every rule that is left out shows: a host that broke it would be found.
#[test]
fn broken_rules_show() {
    let shows = |name: &str, rules: Rules| {
        let (right, wrong) = (explore(&job(name).program(), Rules::DESIGN), explore(&job(name).program(), rules));
        let more = wrong.outcomes.difference(&right.outcomes).count();
        assert!(more > 0, "{name} does not show {rules:?}");
        wrong.diverged
    };
    let uncovered = Rules { minus_pending: false, ..Rules::DESIGN };
    assert!(shows("CoWR/plain/0,1", uncovered), "hosts end up with different values");
    assert!(shows("CoWW+halves/plain/0,1", uncovered));
    for name in ["MP/plain/0,1", "2+2W/plain/0,1", "S/accessor/0,1", "ISA2/plain/0,1,2", "CoWW/plain/0,1"] {
        shows(name, Rules { own_order: false, ..Rules::DESIGN });
    }
    for name in ["SB/plain+fence/0,1", "R/plain+fence/0,1", "RWC/plain+fence/0,1,2", "IRIW/hole+fence/0,1,0,1"] {
        shows(name, Rules { fences: false, ..Rules::DESIGN });
    }
    for name in ["SB/atomic/0,1", "ADD/plain/0,1", "CAS/accessor/0,1", "SB/plain+locked/0,1"] {
        shows(name, Rules { one_place: false, ..Rules::DESIGN });
    }
}

/// The rules as they are written: a replica is computed, not kept. It is the order so far as it has come, and on top of
/// it own stores that have no place in that yet.
mod declarative {
    use super::*;

    #[derive(Clone, PartialEq, Eq, Hash)]
    struct State {
        at: Vec<usize>,
        registers: [u16; VALUES],
        /// Of each host: thread and operation, in the order in which they were issued.
        issued: Vec<Vec<(usize, usize)>>,
        /// The total order: a host each, whose next operation it is.
        order: Vec<usize>,
        /// How far the order has come to each host.
        prefix: Vec<usize>,
    }

    impl State {
        /// The bytes after a prefix of the order, and what the last operation of it has found.
        fn ordered(&self, program: &Program, prefix: usize) -> (Cells, u16) {
            let (mut cells, mut found) = ([0; CELLS], 0);
            let mut next = vec![0; self.issued.len()];
            for host in &self.order[..prefix] {
                let (thread, at) = self.issued[*host][next[*host]];
                next[*host] += 1;
                match &program.threads[thread].ops[at] {
                    Op::Store(at, value) => Write::new(*at, *value).overlay(&mut cells),
                    Op::Rmw(at, function, value, _) => {
                        found = read(&cells, *at);
                        Write::new(*at, apply(*function, found, *value)).overlay(&mut cells);
                    }
                    _ => {}
                }
            }
            (cells, found)
        }

        fn placed(&self, host: usize, prefix: usize) -> usize {
            self.order[..prefix].iter().filter(|of| **of == host).count()
        }

        fn replica(&self, program: &Program, host: usize) -> Cells {
            let mut cells = self.ordered(program, self.prefix[host]).0;
            for (thread, at) in &self.issued[host][self.placed(host, self.prefix[host])..] {
                if let Op::Store(at, value) = program.threads[*thread].ops[*at] {
                    Write::new(at, value).overlay(&mut cells);
                }
            }
            cells
        }
    }

    pub(super) fn explore(program: &Program) -> BTreeSet<Outcome> {
        let (threads, hosts) = (program.threads.len(), program.hosts());
        let start = State {
            at: vec![0; threads],
            registers: [0; VALUES],
            issued: vec![Vec::new(); hosts],
            order: Vec::new(),
            prefix: vec![0; hosts],
        };
        let (mut seen, mut todo, mut found) = (HashSet::from([start.clone()]), vec![start], BTreeSet::new());
        while let Some(state) = todo.pop() {
            let mut next = Vec::new();
            let waits = |host: usize, thread: usize, at: usize| {
                let number = state.issued[host].iter().position(|entry| *entry == (thread, at));
                number.is_some_and(|number| number >= state.placed(host, state.prefix[host]))
                    && !matches!(program.threads[thread].ops[at], Op::Store(..))
            };
            for thread in 0..threads {
                let (host, at) = (usize::from(program.threads[thread].host), state.at[thread]);
                if at == program.threads[thread].ops.len() || at > 0 && waits(host, thread, at - 1) {
                    continue;
                }
                let mut after = state.clone();
                after.at[thread] += 1;
                match &program.threads[thread].ops[at] {
                    Op::Load(from, register) => {
                        after.registers[usize::from(*register)] = read(&state.replica(program, host), *from);
                    }
                    _ => after.issued[host].push((thread, at)),
                }
                next.push(after);
            }
            for host in 0..hosts {
                let placed = state.placed(host, state.order.len());
                if let Some((thread, at)) = state.issued[host].get(placed) {
                    let mut after = state.clone();
                    after.order.push(host);
                    if let Op::Rmw(.., Some(register)) = program.threads[*thread].ops[*at] {
                        let found = after.ordered(program, after.order.len()).1;
                        after.registers[usize::from(register)] = found;
                    }
                    next.push(after);
                }
                if state.prefix[host] < state.order.len() {
                    let mut after = state.clone();
                    after.prefix[host] += 1;
                    next.push(after);
                }
            }
            if next.is_empty() {
                let mut values = state.registers;
                let cells = state.ordered(program, state.order.len()).0;
                for (value, at) in values[program.registers..].iter_mut().zip(&program.finals) {
                    *value = read(&cells, *at);
                }
                found.insert(Outcome(values));
            }
            for state in next {
                if seen.insert(state.clone()) {
                    todo.push(state);
                }
            }
        }
        found
    }
}

fn random_program(random: &mut impl FnMut(u64) -> u64) -> Program {
    let mut registers = 0;
    let mut program = Program { threads: Vec::new(), registers: 0, finals: Vec::new(), grain: 1, cells: 2 };
    for thread in 0..2 + random(2) {
        let mut ops = Vec::new();
        for _ in 0..if thread < 2 { 2 + random(2) } else { 1 } {
            let start = random(2) as u8;
            let at = Loc { start, len: if start == 0 && random(3) == 0 { 2 } else { 1 } };
            let value = (1 + random(3)) as u16 * if at.len == 2 { 0x0101 } else { 1 };
            let register = registers as u8;
            let function = [Function::Add, Function::Swap, Function::CompareExchange(0)][random(3) as usize];
            ops.push(match random(10) {
                4..=7 if registers < 5 => Op::Load(at, register),
                8 if registers < 5 => Op::Rmw(at, function, value, Some(register)),
                9 => Op::Fence,
                _ => Op::Store(at, value),
            });
            registers += usize::from(matches!(ops.last(), Some(Op::Load(..) | Op::Rmw(..))));
        }
        let host = if thread == 2 { random(3) as u8 } else { thread as u8 };
        program.threads.push(program::Thread { host, ops });
    }
    (program.registers, program.finals) = (registers, vec![Loc::cell(0), Loc::cell(1)]);
    program
}

#[test]
fn both_ways_to_state_the_rules_allow_the_same() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    let mut more = 0;
    for number in 0..300 {
        let program = random_program(&mut random);
        let found = explore(&program, Rules::DESIGN);
        assert!(!found.diverged, "program {number}: {program:?}");
        assert_eq!(found.outcomes, declarative::explore(&program), "program {number}: {program:?}");
        more += usize::from(found.outcomes != explore(&program, Rules::SEQUENTIAL).outcomes);
    }
    assert!(more > 10, "only {more} programs came to more than sequential consistency allows");
}
