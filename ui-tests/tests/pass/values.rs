//! Texts, lists and pointers, and structs with parameters, as a program uses them: what to write in place of `String`,
//! `Vec`, references and `Box`.
use dsm::typed::{SharedType, first_difference};
use dsm::{List, Pointer, ReadOnly, Session, Shared, Slice, Text};

#[dsm::shared]
struct Player {
    name: Text<24>,
    score: u32,
    trail: List<Pos, 8>,
    next: Pointer<Player>,
}

#[dsm::shared]
#[derive(Debug, Default, PartialEq)]
struct Pos {
    x: f32,
    y: f32,
}

/// Two of anything that can be shared.
#[dsm::shared]
#[derive(Debug, Default, PartialEq)]
struct Pair<T: dsm::SharedType> {
    one: T,
    other: T,
}

/// With a bound elsewhere, a default, and a constant.
#[dsm::shared(name = "Grid")]
struct Rows<T = u32, const N: usize = 2>
where
    T: SharedType + Copy,
{
    rows: [[T; N]; 2],
    best: Pointer<T>,
}

/// With a bound that says nothing of sharing: it is a shared type when its parameter is.
#[dsm::shared]
struct Loose<T: Copy> {
    inside: T,
}

/// The user's own types, called as those of std that cannot be shared.
#[dsm::shared]
struct Cell<const N: usize> {
    alive: [u8; N],
}

#[dsm::shared]
struct Vec<T: SharedType, const N: usize> {
    elements: [T; N],
}

mod own {
    #[dsm::shared]
    pub(super) struct Box<T: dsm::SharedType> {
        pub(super) inside: T,
    }
}

#[dsm::shared]
struct Own {
    cell: Cell<4>,
    vec: Vec<u32, 3>,
    boxed: own::Box<u64>,
}

#[expect(dead_code, reason = "that it compiles is the test")]
fn values(session: &Session) -> Result<String, std::boxed::Box<dyn std::error::Error>> {
    let players = session.array::<Player>("players", 4)?;
    let (first, second) = (players.at(0), players.at(1));
    first.name().set("Ada")?;
    first.trail().push(Pos { x: 1.0, y: 2.0 })?;
    first.trail().extend_from_slice(&[Pos::default(); 2])?;
    first.next().point_to(Some(second))?;
    if let Some(next) = first.next().follow()? {
        next.set_score(first.score() + 1);
    }
    let copy: Player = first.load();
    first.store(&Player { score: 3, ..copy });
    second.set_next(Pointer::null());
    let mut hole = second.hole()?;
    hole.name = Text::try_from("Bob")?;
    hole.trail.push(Pos::default())?;
    hole.fill()?;
    let reader: ReadOnly<'_, Player> = second.read_only();
    Ok(reader.name().get()?)
}

#[expect(dead_code, reason = "that it compiles is the test")]
fn parameters<'s>(
    numbers: Shared<'s, Pair<u32>>,
    nested: Shared<'s, Pair<Pair<Pos>>>,
    rows: Shared<'s, Rows<f64, 3>>,
    own: Shared<'s, Own>,
    loose: Shared<'s, Loose<u64>>,
) {
    numbers.set_one(numbers.other() + 1);
    numbers.update_other(|other| other * 2);
    let _: Pair<u32> = numbers.load();
    nested.one().other().set_x(1.0);
    nested.set_one(&Pair::default());
    nested.store(&Pair { one: nested.other().load(), ..nested.load() });
    let _: Slice<'s, [f64; 3]> = rows.rows();
    rows.rows().at(0).set(1, 0.5);
    let _: Shared<'s, Rows> = any_rows();
    own.cell().alive().set(0, 1);
    own.vec().elements().set(0, 1);
    own.boxed().set_inside(3);
    loose.set_inside(loose.inside() + Loose { inside: 3_u64 }.inside);
    let _ = Loose { inside: "not shared" };
}

fn any_rows<'s>() -> Shared<'s, Rows> {
    unreachable!("never called")
}

/// What can be done with a struct depends on what its parameter stands for.
#[expect(dead_code, reason = "that it compiles is the test")]
fn locked(pair: Shared<'_, Pair<dsm::field::Mutex<u64>>>, phases: Shared<'_, Pair<char>>) -> dsm::Result<char> {
    pair.one().lock()?.value().set(3);
    phases.set_one('a');
    Ok(phases.try_load()?.other)
}

/// Programs can be written for any type that can be shared.
#[expect(dead_code, reason = "that it compiles is the test")]
fn swap<T: dsm::typed::Plain>(pair: Shared<'_, Pair<T>>) {
    let Pair { one, other } = pair.load();
    pair.store(&Pair { one: other, other: one });
}

#[test]
fn structs_with_type_parameters_are_told_apart() {
    let (numbers, signed) = (Pair::<u32>::LAYOUT, Pair::<i32>::LAYOUT);
    assert_eq!((numbers.to_string(), signed.to_string()), ("Pair<u32>".to_owned(), "Pair<i32>".to_owned()));
    assert_ne!(numbers.fingerprint, signed.fingerprint);
    assert_eq!(
        first_difference(&numbers.describe(), &signed.describe()).unwrap(),
        "field `one` is `u32` here, but `i32` in the segment"
    );
    assert_eq!(Rows::<f64, 3>::LAYOUT.to_string(), "Grid<f64, 3>");
    assert_eq!((Pair::<Pair<Pos>>::LAYOUT.size, Pair::<Pair<Pos>>::LAYOUT.plain), (32, true));
    assert!(!Pair::<char>::LAYOUT.plain);
}

#[test]
fn handles_of_any_type_go_anywhere() {
    fn goes_anywhere<T: Copy + Send + Sync + std::fmt::Debug>() {}
    goes_anywhere::<Shared<'_, Pair<dsm::field::Mutex<u64>>>>();
    goes_anywhere::<Pair_Fields<'_, dsm::field::Mutex<u64>>>();
    goes_anywhere::<Pair_ReadFields<'_, dsm::field::Mutex<u64>>>();
}
