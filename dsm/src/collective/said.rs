//! What ranks say of their calls, and how it is seen whether they all make the same.

use super::operation::NAMES;
use dsm_core::limits::LINE;

/// The collectives.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum What {
    Barrier,
    Broadcast,
    Reduce,
    AllReduce,
    Gather,
    AllGather,
    Scatter,
    /// None: this rank has given up the call in which it was, after it had exchanged something.
    GaveUp,
}

const CALLS: [&str; 7] = ["barrier", "broadcast", "reduce", "all_reduce", "gather", "all_gather", "scatter"];

/// What a rank says of its call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Said {
    /// Calls of this rank before this one.
    pub(super) call: u64,
    /// Rounds of this rank before this one, and 1: nobody has said anything in a line of zeros.
    pub(super) round: u64,
    /// Which collective, which operation, which root.
    pub(super) what: u8,
    pub(super) operation: u8,
    pub(super) unused: [u8; 2],
    pub(super) root: u32,
    /// Elements.
    pub(super) len: u64,
    /// Type of an element.
    pub(super) fingerprint: u64,
    /// The process, for finding two of one rank.
    pub(super) process: u64,
}

const _: () = assert!(size_of::<Said>() <= LINE as usize);

/// Why these are not one call of all ranks, if so. All ranks come to the same result, unless two have the same number.
pub(super) fn compare(said: &[Said], rank: usize, own: &Said) -> Option<String> {
    if said.get(rank) != Some(own) {
        return Some(format!("another process has rank {rank}, too"));
    }
    let first = said.first()?;
    let step = |said: &Said| (said.call, said.round);
    if let Some((at, other)) = said.iter().enumerate().find(|(_, said)| step(said) != step(first)) {
        let count = |said: &Said| if said.round == 0 { "none".to_owned() } else { (said.call + 1).to_string() };
        return Some(format!(
            "the ranks are not in step: rank 0 is at call {}, rank {at} at {} (does every process have a rank of its \
             own, and did all begin together?)",
            count(first),
            count(other)
        ));
    }
    if let Some(at) = said.iter().position(|said| said.what == What::GaveUp as u8) {
        return Some(format!("rank {at} has given up call {} half way", first.call + 1));
    }
    let (at, other) = said.iter().enumerate().find(|(_, said)| Said { process: first.process, ..**said } != *first)?;
    let (one, two) = (describe(first), describe(other));
    let types = if one == two { " of another type" } else { "" };
    Some(format!("in call {}, rank 0 calls {one}, rank {at} calls {two}{types}", first.call + 1))
}

fn describe(said: &Said) -> String {
    let name = CALLS.get(usize::from(said.what)).copied().unwrap_or("something unknown");
    let root = match said.what {
        what if [What::Broadcast, What::Reduce, What::Gather, What::Scatter].iter().any(|w| *w as u8 == what) => {
            format!(" with root {}", said.root)
        }
        _ => String::new(),
    };
    let operation = match said.what {
        what if [What::Reduce, What::AllReduce].iter().any(|w| *w as u8 == what) => {
            format!(" by {}", NAMES.get(usize::from(said.operation)).copied().unwrap_or("something unknown"))
        }
        _ => String::new(),
    };
    match said.len {
        _ if said.what == What::Barrier as u8 => name.to_owned(),
        1 => format!("{name}{root}{operation} of 1 value"),
        len => format!("{name}{root}{operation} of {len} values"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(what: What, len: u64) -> Said {
        Said { call: 4, round: 9, what: what as u8, len, fingerprint: 7, ..Said::default() }
    }

    #[test]
    fn the_same_call_does_not_differ() {
        let all = [1, 2, 3].map(|process| Said { process, ..said(What::Gather, 3) });
        assert_eq!(compare(&all, 1, &all[1]), None);
    }

    #[test]
    fn differences_are_described() {
        let (gather, barrier) = (said(What::Gather, 3), said(What::Barrier, 0));
        let found = |one, two| compare(&[one, two], 0, &one).unwrap();
        assert_eq!(
            found(gather, barrier),
            "in call 5, rank 0 calls gather with root 0 of 3 values, rank 1 calls barrier"
        );
        let (sum, min) =
            (Said { operation: 1, ..said(What::AllReduce, 1) }, Said { operation: 2, ..said(What::AllReduce, 1) });
        assert_eq!(
            found(sum, min),
            "in call 5, rank 0 calls all_reduce by Sum of 1 value, rank 1 calls all_reduce by Min of 1 value"
        );
        assert!(found(sum, Said { fingerprint: 8, ..sum }).ends_with("of another type"));
        assert!(found(sum, Said { round: 8, ..sum }).contains("not in step"));
        assert!(found(sum, Said::default()).contains("rank 0 is at call 5, rank 1 at none"));
        assert_eq!(found(sum, Said { what: What::GaveUp as u8, ..sum }), "rank 1 has given up call 5 half way");
        assert_eq!(compare(&[sum, min], 0, &min).unwrap(), "another process has rank 0, too");
    }
}
