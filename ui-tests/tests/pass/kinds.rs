//! Every kind of thing that may be shared, and every option, as a program uses them.
use dsm::typed::{
    Assign, Atomic, AtomicFlag, InvalidValue, Kind, Line, Plain, ReadOnly, ReadOnlySlice, Shared, SharedType, Slice,
    first_difference,
};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI16, AtomicU8, AtomicU64};

/// What is going on.
#[dsm::shared]
#[derive(Debug, PartialEq)]
#[repr(u8)]
enum Phase {
    Idle = 0,
    Play = 1,
    Over = 7,
}

#[dsm::shared]
#[derive(Debug, Default, PartialEq)]
struct Point(f32, f32);

#[dsm::shared]
struct Flags {
    is_over: bool,
    phase: Phase,
    marks: [bool; 2],
    symbol: char,
    symbols: [char; 2],
    phases: [Phase; 4],
}

#[dsm::shared]
struct Counters {
    hits: AtomicU64,
    moves: [AtomicU64; 2],
    level: AtomicI16,
    bytes: [AtomicU8; 5],
    stop: AtomicBool,
}

/// A type of its own, in which the attribute cannot see the atomics.
#[dsm::shared]
struct Outer {
    counters: Counters,
    number: u64,
}

#[dsm::shared]
#[derive(Debug, PartialEq)]
struct Table<const N: usize> {
    rows: [[u32; N]; 2],
    points: [Point; N],
}

#[dsm::shared(name = "Job", version = 3)]
struct Options {
    #[dsm(align = 64)]
    turn: u32,
    #[dsm(align = 64, rename = "where_to")]
    position: Point,
    #[dsm(skip_accessors)]
    load: u32,
    #[dsm(read_only)]
    limit: u32,
    #[dsm(read_only)]
    scores: [u64; 2],
    #[dsm(rename = "stored", read_only)]
    store: Point,
    rest: [u64; 4],
}

#[expect(dead_code, reason = "that it compiles is the test")]
fn accessors<'s>(
    flags: Shared<'s, Flags>,
    counters: Shared<'s, Counters>,
    outer: Shared<'s, Outer>,
    table: Shared<'s, Table<3>>,
    options: Shared<'s, Options>,
) -> dsm::Result<()> {
    flags.set_is_over(!flags.is_over());
    flags.update_is_over(|is_over| !is_over);
    let _: Result<Phase, InvalidValue> = flags.phase();
    flags.set_phase(Phase::Over);
    let _: Result<char, InvalidValue> = flags.symbol();
    flags.set_symbol('#');
    flags.marks().fill(true);
    let _: Vec<bool> = flags.marks().to_vec();
    let _: char = flags.symbols().try_get(1)?;
    flags.phases().set(2, Phase::Play);
    let copy: Flags = flags.try_load()?;
    flags.store(&Flags { is_over: true, ..copy });
    flags.hole()?.phase = Phase::Idle;

    let _: Atomic<'s, u64> = counters.hits();
    counters.hits().fetch_add(1, SeqCst);
    let _: &'s AtomicU64 = counters.hits_ref().as_std();
    let _: Atomic<'s, u64> = counters.moves().at(1).atomic();
    let _: i16 = counters.level().swap(-1, SeqCst);
    let _: AtomicFlag<'s> = counters.stop();
    *counters.hole()?.hits.get_mut() += 1;
    outer.counters().hits().fetch_max(outer.number(), SeqCst);

    let _: Slice<'s, [u32; 3]> = table.rows();
    table.points().at(2).set_field_0(1.5);
    table.points().at(0).update_field_1(|y| y * 2.0);
    let _: Table<3> = table.load();

    options.set_turn(options.turn() + 1);
    options.turn_atomic().fetch_add(1, SeqCst);
    options.where_to().set_field_1(0.0);
    options.update_where_to(|point| Point(point.1, point.0));
    let _: u32 = options.limit();
    let _: ReadOnlySlice<'s, u64> = options.scores();
    let _: ReadOnly<'s, Point> = options.stored();
    let _: f32 = options.stored().field_0();
    let mut hole = options.hole()?;
    *hole.turn += 1;
    hole.position.0 = 1.0;
    hole.fill()
}

#[expect(dead_code, reason = "that it compiles is the test")]
fn reading<'s>(flags: ReadOnly<'s, Flags>, outer: ReadOnly<'s, Outer>, table: ReadOnly<'s, Table<2>>) -> bool {
    let _: Result<Phase, InvalidValue> = flags.phase();
    let _: ReadOnlySlice<'s, bool> = flags.marks();
    let _: u64 = outer.counters().hits();
    let _: ReadOnly<'s, u64> = outer.number_ref();
    let _: f32 = table.points().at(1).field_1();
    outer.counters().stop()
}

#[test]
fn structs_with_parameters_are_told_apart() {
    let (two, three) = (Table::<2>::LAYOUT, Table::<3>::LAYOUT);
    assert_eq!((two.to_string(), three.to_string()), ("Table<2>".to_owned(), "Table<3>".to_owned()));
    assert_ne!(two.fingerprint, three.fingerprint);
    assert_eq!(three.size, size_of::<Table<3>>());
}

#[test]
fn lines_are_whole() {
    assert_eq!((size_of::<Options>(), align_of::<Options>()), (192, 64));
    let options = Options {
        turn: 3.into(),
        position: Line::new(Point(1.0, 2.0)),
        load: 0,
        limit: 1,
        scores: [0; 2],
        store: Point(0.0, 0.0),
        rest: [0; 4],
    };
    assert_eq!((*options.turn, options.position.1), (3, 2.0));
    assert_eq!(Options::LAYOUT.to_string(), "Job");
    let described = Options::LAYOUT.describe();
    assert_eq!((described[0].ty.as_str(), described[0].size), ("Job version 3", 192));
    assert!(described.iter().any(|field| field.path == "where_to" && field.offset == 64));
}

#[test]
fn versions_and_variants_count() {
    mod other {
        #[dsm::shared(name = "Job")]
        pub(super) struct Versionless {
            _number: u64,
        }
        #[dsm::shared(name = "Job", version = 2)]
        pub(super) struct Second {
            _number: u64,
        }
        #[dsm::shared]
        #[repr(u8)]
        pub(super) enum Phase {
            Idle = 0,
            Play = 1,
            Over = 8,
        }
    }
    assert_ne!(other::Versionless::LAYOUT.fingerprint, other::Second::LAYOUT.fingerprint);
    assert_ne!(Phase::LAYOUT.fingerprint, other::Phase::LAYOUT.fingerprint);
    assert_eq!(
        first_difference(&Phase::LAYOUT.describe(), &other::Phase::LAYOUT.describe()).unwrap(),
        "the type is `Phase as u8 { Idle = 0, Play = 1, Over = 7 }` here, but \
         `Phase as u8 { Idle = 0, Play = 1, Over = 8 }` in the segment"
    );
}

/// An integer by another name is no reason to read a variant's number wrong.
#[test]
fn numbers_of_variants_are_those_of_the_compiler() {
    #![expect(non_camel_case_types, dead_code, reason = "it is what this is about")]
    type u16 = u8;
    type i128 = u8;
    #[dsm::shared]
    #[repr(u16)]
    enum Far {
        Away = 300,
    }
    let Kind::Enum { variants, .. } = Far::LAYOUT.kind else { panic!("{:?}", Far::LAYOUT) };
    assert_eq!(variants[0].value, 300);
    assert!(Far::LAYOUT.check(&mut [44, 0]).is_err() && Far::LAYOUT.check(&mut [44, 1]).is_ok());
}

#[test]
fn what_can_be_done_depends_on_the_fields() {
    fn plain<T: Plain>() {}
    fn assign<T: Assign>() {}
    fn copy<T: Copy + SharedType>() {}
    plain::<Point>();
    plain::<Table<3>>();
    plain::<Options>();
    copy::<Flags>();
    assign::<Flags>();
    assert_eq!([Flags::LAYOUT.plain, Counters::LAYOUT.plain, Point::LAYOUT.plain], [false, false, true]);
}
