//! Makes shared structs at random, each with an implementation of `Model` that uses its accessors: nested ones, tuples,
//! parameters, arrays of arrays, and every kind of field that there is, with the gaps filled. `DSM_SHAPES_SEED` chooses
//! which.

use std::fmt::Write;

/// How many structs are made, and how many enums for their fields.
const STRUCTS: usize = 24;
const ENUMS: usize = 4;
/// Fields of a struct at most, and its size in bytes: every operation is followed by a look at all of it.
const FIELDS: usize = 9;
const SIZE: usize = 1400;

/// Random numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// How a field is used: which macro of the library does it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Integer,
    Word,
    Checked,
    Atomic,
    Flag,
    Array,
    /// Stored by reference: structs, texts, lists.
    Named,
    Pointer,
    Versioned,
}

/// A type that a field can have.
#[derive(Clone, Debug)]
struct Type {
    name: String,
    size: usize,
    align: usize,
    kind: Kind,
    is_copy: bool,
    /// Any bytes make one.
    is_plain: bool,
}

impl Type {
    fn new(name: impl Into<String>, size: usize, kind: Kind) -> Self {
        let is_plain = !matches!(kind, Kind::Checked | Kind::Atomic | Kind::Flag);
        let is_copy = !matches!(kind, Kind::Atomic | Kind::Flag);
        Self { name: name.into(), size, align: size, kind, is_copy, is_plain }
    }

    fn array(&self, len: usize) -> Self {
        Self { name: format!("[{}; {len}]", self.name), size: self.size * len, kind: Kind::Array, ..self.clone() }
    }
}

/// A struct that has been written.
struct Made {
    ty: Type,
}

fn number(random: &mut Random) -> Type {
    let names = [("u8", 1), ("i8", 1), ("u16", 2), ("i16", 2), ("u32", 4), ("i32", 4), ("u64", 8), ("i64", 8)];
    let (name, size) = match random.below(10) {
        0 => ("u128", 16),
        1 => ("i128", 16),
        _ => random.pick(&names),
    };
    Type::new(name, size, Kind::Integer)
}

fn atomic(random: &mut Random) -> Type {
    let names = [("U8", 1), ("I8", 1), ("U16", 2), ("I16", 2), ("U32", 4), ("I32", 4), ("U64", 8), ("I64", 8)];
    let (name, size) = random.pick(&names);
    Type::new(format!("std::sync::atomic::Atomic{name}"), size, Kind::Atomic)
}

/// How many ways there are to choose a field's type.
const CHOICES: usize = 16;

/// A type for a field, of at most `room` bytes if that can be.
fn ty(random: &mut Random, choice: usize, enums: &[Type], made: &[Made], room: usize) -> Type {
    let found = match choice {
        0..=2 => number(random),
        3 => random.pick(&[("f32", 4), ("f64", 8)]).into_type(Kind::Word),
        4 => Type::new("bool", 1, Kind::Word),
        5 => Type::new("char", 4, Kind::Checked),
        6 => enums[random.below(enums.len())].clone(),
        7 => match random.below(3) {
            0 => Type::new("std::sync::atomic::AtomicBool", 1, Kind::Flag),
            _ => atomic(random),
        },
        8 => {
            let capacity = 1 + random.below(20);
            Type { align: 1, ..Type::new(format!("dsm::Text<{capacity}>"), capacity + 4, Kind::Named) }
        }
        9 => list(random, made),
        10 => Type::new("dsm::Pointer<u64>", 8, Kind::Pointer),
        11 => versioned(random, enums, made),
        12 | 13 if !made.is_empty() => made[random.below(made.len())].ty.clone(),
        _ => {
            let len = 1 + random.below(5);
            let choice = random.below(CHOICES);
            ty(random, choice, enums, made, room / len).array(len)
        }
    };
    if found.size <= room { found } else { number(random) }
}

trait IntoType {
    fn into_type(self, kind: Kind) -> Type;
}

impl IntoType for (&str, usize) {
    fn into_type(self, kind: Kind) -> Type {
        Type::new(self.0, self.1, kind)
    }
}

/// A list of numbers, or of structs of which any bytes make one.
fn list(random: &mut Random, made: &[Made]) -> Type {
    let structs: Vec<_> =
        made.iter().filter(|made| made.ty.is_plain && made.ty.align <= 16 && made.ty.size <= 60).collect();
    let item = if structs.is_empty() || random.one_in(2) {
        number(random)
    } else {
        structs[random.below(structs.len())].ty.clone()
    };
    let capacity = 1 + random.below(6);
    Type {
        name: format!("dsm::List<{}, {capacity}>", item.name),
        size: 16 + capacity * item.size,
        align: item.align,
        kind: Kind::Named,
        is_copy: true,
        is_plain: true,
    }
}

fn versioned(random: &mut Random, enums: &[Type], made: &[Made]) -> Type {
    let fits =
        |ty: &Type| ty.is_copy && ty.align <= 16 && (2 * ty.size).is_multiple_of(ty.align.max(8)) && ty.size <= 200;
    let mut all: Vec<_> = made.iter().map(|made| made.ty.clone()).filter(fits).collect();
    all.push(Type::new("u64", 8, Kind::Integer));
    all.push(Type::new("char", 4, Kind::Checked).array(3));
    all.extend(enums.iter().map(|ty| ty.array(4)).filter(fits));
    let inner = all[random.below(all.len())].clone();
    Type {
        name: format!("dsm::Versioned<{}>", inner.name),
        size: 16 + 2 * inner.size,
        align: inner.align.max(8),
        kind: Kind::Versioned,
        is_copy: false,
        is_plain: false,
    }
}

/// Writes an enum; one of its values is always 0, so that what is new is valid.
fn enumeration(random: &mut Random, number: usize, out: &mut String) -> Type {
    let (repr, size) = random.pick(&[("u8", 1), ("i8", 1), ("u16", 2), ("i32", 4), ("u64", 8), ("i64", 8)]);
    let count = 1 + random.below(5);
    let values: Vec<usize> = (0..count).map(|at| at * (1 + 100 / count)).collect();
    let name = format!("Choice{number}");
    let variants: String = values.iter().map(|value| format!("V{value} = {value}, ")).collect();
    let all: String = values.iter().map(|value| format!("Self::V{value}, ")).collect();
    write!(
        out,
        "#[dsm::shared]\n#[derive(Debug, PartialEq, Eq)]\n#[repr({repr})]\npub enum {name} {{ {variants} }}\n\
         crate::checked!({name}, random => random.pick(&[{all}]));\n\n"
    )
    .unwrap();
    Type::new(name, size, Kind::Checked)
}

/// A field of a struct that is being made.
struct Field {
    ty: Type,
    /// The type as it stands in the struct.
    written: String,
    /// Its name in the struct, and that of its accessors; `None` if it has none.
    member: String,
    base: Option<String>,
    is_read_only: bool,
    is_aligned: bool,
    attributes: Vec<String>,
}

fn structure(random: &mut Random, number: usize, enums: &[Type], made: &[Made], out: &mut String) -> Type {
    let name = format!("Shape{number}");
    let (is_tuple, is_generic) = (random.one_in(4), random.one_in(4));
    // The parameter, if there is one, has this value wherever the struct is used.
    let parameter = 1 + random.below(4);
    let (mut fields, mut end, mut align): (Vec<Field>, usize, usize) = (Vec::new(), 0, 1);
    let member = |fields: &[Field], letter: char| {
        if is_tuple { fields.len().to_string() } else { format!("{letter}{}", fields.len()) }
    };
    let pad = |fields: &mut Vec<Field>, gap: usize| {
        if gap > 0 {
            let ty = Type { align: 1, ..Type::new("u8", 1, Kind::Integer).array(gap) };
            let member = if is_tuple { fields.len().to_string() } else { format!("_pad{}", fields.len()) };
            let attributes = if is_tuple { vec!["skip_accessors".to_owned()] } else { vec![] };
            fields.push(Field {
                written: ty.name.clone(),
                ty,
                member,
                base: None,
                is_read_only: false,
                is_aligned: false,
                attributes,
            });
        }
    };
    for at in 0..1 + random.below(FIELDS) {
        // The first structs have a field of every kind, whatever the seed.
        let choice = if number < CHOICES { (number + at) % CHOICES } else { random.below(CHOICES) };
        let mut ty = ty(random, choice, enums, made, SIZE.saturating_sub(end) / 2);
        let mut written = ty.name.clone();
        if is_generic && at == 0 {
            ty = self::number(random);
            written = format!("[{}; N]", ty.name);
            ty = ty.array(parameter);
        }
        let is_aligned = random.one_in(12) && end < SIZE / 2 && ty.align <= 64 && !written.contains("; N]");
        let (size, field_align) = if is_aligned { (ty.size.next_multiple_of(64), 64) } else { (ty.size, ty.align) };
        let gap = end.next_multiple_of(field_align) - end;
        pad(&mut fields, gap);
        end += gap + size;
        align = align.max(field_align);
        let member = member(&fields, 'f');
        let mut base = if is_tuple { format!("field_{member}") } else { member.clone() };
        let mut attributes = Vec::new();
        if is_aligned {
            attributes.push("align = 64".to_owned());
        }
        if random.one_in(8) {
            base = format!("renamed_{member}");
            attributes.push(format!("rename = \"{base}\""));
        }
        let is_read_only = random.one_in(12);
        if is_read_only {
            attributes.push("read_only".to_owned());
        }
        fields.push(Field { ty, written, member, base: Some(base), is_read_only, is_aligned, attributes });
    }
    pad(&mut fields, end.next_multiple_of(align) - end);
    let ty = Type {
        name: if is_generic { format!("{name}<{parameter}>") } else { name.clone() },
        size: end.next_multiple_of(align),
        align,
        kind: Kind::Named,
        is_copy: fields.iter().all(|field| field.ty.is_copy),
        is_plain: fields.iter().all(|field| field.ty.is_plain),
    };
    write_struct(&name, is_tuple, is_generic, &fields, out);
    write_model(&name, &ty, &fields, out);
    ty
}

fn write_struct(name: &str, is_tuple: bool, is_generic: bool, fields: &[Field], out: &mut String) {
    let generics = if is_generic { "<const N: usize>" } else { "" };
    let (open, close) = if is_tuple { ("(", ");") } else { (" {", "}") };
    writeln!(out, "#[dsm::shared]\npub struct {name}{generics}{open}").unwrap();
    for field in fields {
        if !field.attributes.is_empty() {
            writeln!(out, "    #[dsm({})]", field.attributes.join(", ")).unwrap();
        }
        let label = if is_tuple { String::new() } else { format!("{}: ", field.member) };
        writeln!(out, "    pub {label}{},", field.written).unwrap();
    }
    writeln!(out, "{close}\n").unwrap();
}

/// Writes the private struct that it must behave like, and how.
fn write_model(name: &str, ty: &Type, fields: &[Field], out: &mut String) {
    let used: Vec<(&Field, &str)> = fields.iter().filter_map(|field| Some((field, field.base.as_deref()?))).collect();
    let value = format!("{name}Value");
    let mut lines = [const { String::new() }; 7];
    let [members, random, read, look, put, take, operate] = &mut lines;
    for (at, (field, base)) in used.iter().enumerate() {
        let (name, reference) = (&field.ty.name, if field.is_aligned { "&mut *" } else { "&mut " });
        writeln!(members, "    pub {base}: <{name} as Model>::Value,").unwrap();
        writeln!(random, "            {base}: <{name} as Model>::random(random),").unwrap();
        writeln!(read, "            {base}: {},", read_by(field, base)).unwrap();
        writeln!(look, "            {base}: <{name} as Model>::look(at.{base}_ref(), context),").unwrap();
        writeln!(put, "        <{name} as Model>::put({reference}native.{}, &value.{base}, context);", field.member)
            .unwrap();
        writeln!(
            take,
            "        <{name} as Model>::take({reference}native.{}, &mut value.{base}, context);",
            field.member
        )
        .unwrap();
        writeln!(operate, "            {at} => {},", operate_by(field, base)).unwrap();
    }
    let whole = match (ty.is_copy, ty.is_plain) {
        (true, true) => "crate::plain_value(at, model, random, context)",
        (true, false) => "crate::copied_value(at, model, random, context)",
        _ => "crate::value_in_a_hole(at, model, random, context)",
    };
    let bulk = match (ty.is_copy, ty.is_plain) {
        (true, true) => "crate::plain_slice(slice, model, random, context)",
        (true, false) => "crate::copied_slice(slice, model, random, context)",
        _ => "crate::any_slice(slice, model, random, context)",
    };
    let (full, count) = (&ty.name, used.len());
    write!(
        out,
        "#[derive(Clone, Debug, PartialEq)]
pub struct {value} {{
{members}}}

impl Model for {full} {{
    type Value = {value};

    fn random(random: &mut Random) -> {value} {{
        {value} {{
{random}        }}
    }}

    fn read(at: Shared<'_, Self>, context: &Context<'_>) -> {value} {{
        {value} {{
{read}        }}
    }}

    fn look(at: ReadOnly<'_, Self>, context: &Context<'_>) -> {value} {{
        {value} {{
{look}        }}
    }}

    fn put(native: &mut Self, value: &{value}, context: &Context<'_>) {{
{put}    }}

    fn take(native: &mut Self, value: &mut {value}, context: &Context<'_>) {{
{take}    }}

    fn operate(at: Shared<'_, Self>, model: &mut {value}, random: &mut Random, context: &Context<'_>) {{
        match random.below({count} + 2) {{
{operate}            _ => {whole},
        }}
    }}

    fn bulk(slice: Slice<'_, Self>, model: &mut [{value}], random: &mut Random, context: &Context<'_>) {{
        {bulk}
    }}
}}

"
    )
    .unwrap();
}

/// An expression that reads the field by its getter.
fn read_by(field: &Field, base: &str) -> String {
    let name = &field.ty.name;
    match field.ty.kind {
        Kind::Integer | Kind::Word => format!("at.{base}()"),
        Kind::Checked => format!("at.{base}().unwrap()"),
        _ if field.is_read_only => format!("<{name} as Model>::look(at.{base}_ref(), context)"),
        Kind::Atomic | Kind::Flag => format!("at.{base}().load(SeqCst)"),
        Kind::Array => format!("crate::read_slice(at.{base}(), context)"),
        Kind::Named | Kind::Pointer | Kind::Versioned => format!("<{name} as Model>::read(at.{base}(), context)"),
    }
}

/// A macro of the library that does something with the field by all its accessors.
fn operate_by(field: &Field, base: &str) -> String {
    let name = &field.ty.name;
    let by = |which: &str, names: &str| {
        format!("crate::{which}!(at, model, random, context, {base}: {name}, {base}_ref{names})")
    };
    let (set, update) = (format!(", set_{base}"), format!(", set_{base}, update_{base}"));
    if field.is_read_only {
        return by("read_only_field", "");
    }
    match field.ty.kind {
        Kind::Integer => by("integer_field", &format!("{update}, {base}_atomic")),
        Kind::Word => by("word_field", &update),
        Kind::Checked => by("checked_field", &set),
        Kind::Atomic | Kind::Flag => by("atomic_field", ""),
        Kind::Array if field.ty.is_copy => by("copied_field", &format!("{set}, array_field")),
        Kind::Array => by("array_field", ""),
        Kind::Pointer => by("pointer_field", &update),
        Kind::Named if field.ty.is_plain => by("plain_field", &update),
        Kind::Named if field.ty.is_copy => by("copied_field", &format!("{set}, field")),
        Kind::Named | Kind::Versioned => by("field", ""),
    }
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DSM_SHAPES_SEED");
    let seed: u64 =
        std::env::var("DSM_SHAPES_SEED").map_or(1, |seed| seed.parse().expect("DSM_SHAPES_SEED is a number"));
    println!("cargo::rustc-env=DSM_SHAPES_SEED={seed}");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    (0..8).for_each(|_| _ = random.below(2));
    let mut out = String::new();
    let enums: Vec<_> = (0..ENUMS).map(|number| enumeration(&mut random, number, &mut out)).collect();
    let mut made = Vec::new();
    for number in 0..STRUCTS {
        let ty = structure(&mut random, number, &enums, &made, &mut out);
        made.push(Made { ty });
    }
    writeln!(
        out,
        "/// Calls a macro with all of them.\n#[macro_export]\nmacro_rules! each_shape {{\n    ($run:ident) => {{{{"
    )
    .unwrap();
    for made in &made {
        writeln!(out, "        $run!($crate::shapes::{});", made.ty.name).unwrap();
    }
    writeln!(out, "    }}}};\n}}").unwrap();
    let path = std::path::Path::new(&std::env::var_os("OUT_DIR").expect("cargo sets it")).join("shapes.rs");
    std::fs::write(path, out).expect("the build directory can be written to");
}
