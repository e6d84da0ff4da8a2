//! The attribute in what other macros write, where types and names come in invisible groups.

macro_rules! table {
    ($vis:vis $name:ident { $($field:ident: $ty:ty = $doc:literal),* $(,)? } $len:literal of $element:ty) => {
        #[dsm::shared]
        #[derive(Debug)]
        $vis struct $name {
            $(#[doc = $doc] $vis $field: $ty,)*
            rest: [$element; $len],
        }
    };
}

table!(pub(crate) Table { number: u32 = "A number", speed: f32 = "A speed", list: [u64; 3] = "A list" } 4 of u64);

#[expect(dead_code, reason = "that it compiles is the test")]
fn table(table: dsm::typed::Shared<'_, Table>) {
    table.number_atomic().fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    table.set_speed(table.speed() * 2.0);
    table.list().set(0, table.rest().get(3));
}
