//! The struct stays the user's: its derives, its attributes, and what can be done with it.

#[dsm::shared]
#[derive(Debug, Default, PartialEq)]
struct Plain {
    number: u64,
}

#[dsm::shared]
#[derive(Clone, PartialEq, Debug)]
struct WithClone {
    number: u64,
}

#[dsm::shared]
#[derive(std::clone::Clone, core::marker::Copy)]
#[repr(C)]
struct WithBoth {
    number: u64,
}

#[dsm::shared]
#[repr(C, align(64))]
struct Aligned {
    numbers: [u64; 8],
}

#[derive(Debug)]
#[dsm::shared]
struct DerivedAbove {
    number: u64,
}

#[test]
fn structs_stay_plain() {
    let plain = Plain { number: 3 };
    let copy = plain;
    assert_eq!((copy, Plain::default().number), (Plain { number: 3 }, 0));
    let with_clone = WithClone { number: 4 };
    let copy = with_clone;
    assert_eq!(copy, with_clone);
    let with_both = WithBoth { number: 5 };
    let WithBoth { number } = with_both;
    assert_eq!(number, with_both.number);
    assert_eq!(align_of::<Aligned>(), 64);
    assert_eq!(Aligned { numbers: [1; 8] }.numbers.len(), 8);
    assert_eq!(format!("{:?}", DerivedAbove { number: 6 }), "DerivedAbove { number: 6 }");
}
