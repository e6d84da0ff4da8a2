// What the attribute makes of a struct: see `src/expand/tests.rs`.
#[repr(C)]
/// The state of a game.
#[derive(Debug)]
pub struct Board<T: dsm::SharedType> {
    /// Whose turn it is.
    pub turn: u32,
    phase: Phase,
    pub scores: [u64; 64],
    pub best: T,
    pub hits: ::dsm::__private::Line<
        u64,
        { ::dsm::__private::pad(::core::mem::size_of::<u64>()) },
    >,
}
#[automatically_derived]
impl<T: dsm::SharedType> ::core::clone::Clone for Board<T>
where
    for<'x> u32: ::core::marker::Copy,
    for<'x> Phase: ::core::marker::Copy,
    for<'x> u64: ::core::marker::Copy,
    for<'x> T: ::core::marker::Copy,
{
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}
#[automatically_derived]
impl<T: dsm::SharedType> ::core::marker::Copy for Board<T>
where
    for<'x> u32: ::core::marker::Copy,
    for<'x> Phase: ::core::marker::Copy,
    for<'x> u64: ::core::marker::Copy,
    for<'x> T: ::core::marker::Copy,
{}
///The accessors of the fields of a shared [`Board`]: what its handle, `Shared<Board>`, dereferences to.
#[repr(transparent)]
pub struct Board_Fields<'s, T: dsm::SharedType>(::dsm::__private::Shared<'s, Board<T>>);
#[automatically_derived]
impl<'s, T: dsm::SharedType> ::core::clone::Clone for Board_Fields<'s, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}
#[automatically_derived]
impl<'s, T: dsm::SharedType> ::core::marker::Copy for Board_Fields<'s, T> {}
#[automatically_derived]
impl<'s, T: dsm::SharedType> ::core::fmt::Debug for Board_Fields<'s, T> {
    #[inline]
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        f.debug_tuple("Board_Fields").field(&self.0).finish()
    }
}
#[automatically_derived]
impl<'s, T: dsm::SharedType> Board_Fields<'s, T> {
    /// Whose turn it is.
    #[inline]
    #[must_use]
    pub fn turn(self) -> u32 {
        <u32 as ::dsm::__private::SharedType>::get_field(
            <u32 as ::dsm::__private::SharedType>::field_of::<Board<T>, 0>(self.0),
        )
    }
    ///Stores `turn`: other hosts see it after all that this one stored before. Panics when the session has ended.
    ///
    /// Whose turn it is.
    #[inline]
    pub fn set_turn(self, value: u32) {
        <u32 as ::dsm::__private::Assign>::set_field(
            <u32 as ::dsm::__private::SharedType>::field_of::<Board<T>, 0>(self.0),
            value,
        );
    }
    ///The handle of `turn`.
    ///
    /// Whose turn it is.
    #[inline]
    #[must_use]
    pub fn turn_ref(self) -> ::dsm::__private::Shared<'s, u32> {
        <u32 as ::dsm::__private::SharedType>::field_of::<Board<T>, 0>(self.0)
    }
    ///`turn`, for operations that are atomic on all hosts.
    ///
    /// Whose turn it is.
    #[inline]
    #[must_use]
    pub fn turn_atomic(self) -> ::dsm::__private::Atomic<'s, u32> {
        <u32 as ::dsm::__private::SharedType>::field_of::<Board<T>, 0>(self.0).atomic()
    }
    ///Loads `turn` and stores what `change` makes of it; not atomic: see `Shared::update`.
    ///
    /// Whose turn it is.
    #[inline]
    pub fn update_turn(self, change: impl ::core::ops::FnOnce(u32) -> u32) {
        <u32 as ::dsm::__private::SharedType>::field_of::<Board<T>, 0>(self.0)
            .update(change);
    }
    ///`phase`, as its type gives it: the value of a number or an enum, the handle of anything larger.
    #[inline]
    #[must_use]
    fn phase(self) -> <Phase as ::dsm::__private::SharedType>::ReadGetter<'s> {
        <Phase as ::dsm::__private::SharedType>::read_field(
            <Phase as ::dsm::__private::SharedType>::field_of::<Board<T>, 1>(self.0)
                .read_only(),
        )
    }
    ///The handle of `phase`, which only reads.
    #[inline]
    #[must_use]
    fn phase_ref(self) -> ::dsm::__private::ReadOnly<'s, Phase> {
        <Phase as ::dsm::__private::SharedType>::field_of::<Board<T>, 1>(self.0)
            .read_only()
    }
    ///The elements of `scores`.
    #[inline]
    #[must_use]
    pub fn scores(self) -> ::dsm::__private::Slice<'s, u64> {
        <[u64; 64] as ::dsm::__private::SharedType>::get_field(
            <[u64; 64] as ::dsm::__private::SharedType>::field_of::<Board<T>, 2>(self.0),
        )
    }
    ///Stores `scores`: other hosts see it after all that this one stored before. Panics when the session has ended.
    #[inline]
    pub fn set_scores(self, value: &[u64; 64]) {
        <[u64; 64] as ::dsm::__private::Assign>::set_field(
            <[u64; 64] as ::dsm::__private::SharedType>::field_of::<Board<T>, 2>(self.0),
            value,
        );
    }
    ///The handle of `scores`.
    #[inline]
    #[must_use]
    pub fn scores_ref(self) -> ::dsm::__private::Shared<'s, [u64; 64]> {
        <[u64; 64] as ::dsm::__private::SharedType>::field_of::<Board<T>, 2>(self.0)
    }
    ///`best`, as its type gives it: the value of a number or an enum, the handle of anything larger.
    #[inline]
    #[must_use]
    pub fn best(self) -> <T as ::dsm::__private::SharedType>::Getter<'s> {
        <T as ::dsm::__private::SharedType>::get_field(
            <T as ::dsm::__private::SharedType>::field_of::<Board<T>, 3>(self.0),
        )
    }
    ///Stores `best`: other hosts see it after all that this one stored before. Panics when the session has ended.
    #[inline]
    pub fn set_best(self, value: <T as ::dsm::__private::Assign>::Setter<'_>)
    where
        for<'x> T: ::dsm::__private::Assign,
    {
        <T as ::dsm::__private::Assign>::set_field(
            <T as ::dsm::__private::SharedType>::field_of::<Board<T>, 3>(self.0),
            value,
        );
    }
    ///The handle of `best`.
    #[inline]
    #[must_use]
    pub fn best_ref(self) -> ::dsm::__private::Shared<'s, T> {
        <T as ::dsm::__private::SharedType>::field_of::<Board<T>, 3>(self.0)
    }
    ///Loads `best` and stores what `change` makes of it; not atomic: see `Shared::update`.
    #[inline]
    pub fn update_best(self, change: impl ::core::ops::FnOnce(T) -> T)
    where
        for<'x> T: ::dsm::__private::Plain,
    {
        <T as ::dsm::__private::SharedType>::field_of::<Board<T>, 3>(self.0)
            .update(change);
    }
    ///The value of `hits`: a plain load.
    #[inline]
    #[must_use]
    pub fn hits(self) -> u64 {
        <u64 as ::dsm::__private::SharedType>::get_field(
            <u64 as ::dsm::__private::SharedType>::field_of::<Board<T>, 4>(self.0),
        )
    }
    ///Stores `hits`: other hosts see it after all that this one stored before. Panics when the session has ended.
    #[inline]
    pub fn set_hits(self, value: u64) {
        <u64 as ::dsm::__private::Assign>::set_field(
            <u64 as ::dsm::__private::SharedType>::field_of::<Board<T>, 4>(self.0),
            value,
        );
    }
    ///The handle of `hits`.
    #[inline]
    #[must_use]
    pub fn hits_ref(self) -> ::dsm::__private::Shared<'s, u64> {
        <u64 as ::dsm::__private::SharedType>::field_of::<Board<T>, 4>(self.0)
    }
    ///`hits`, for operations that are atomic on all hosts.
    #[inline]
    #[must_use]
    pub fn hits_atomic(self) -> ::dsm::__private::Atomic<'s, u64> {
        <u64 as ::dsm::__private::SharedType>::field_of::<Board<T>, 4>(self.0).atomic()
    }
    ///Loads `hits` and stores what `change` makes of it; not atomic: see `Shared::update`.
    #[inline]
    pub fn update_hits(self, change: impl ::core::ops::FnOnce(u64) -> u64) {
        <u64 as ::dsm::__private::SharedType>::field_of::<Board<T>, 4>(self.0)
            .update(change);
    }
}
///The accessors of the fields of a shared [`Board`]: what its handle, `ReadOnly<Board>`, dereferences to.
#[repr(transparent)]
pub struct Board_ReadFields<'s, T: dsm::SharedType>(
    ::dsm::__private::ReadOnly<'s, Board<T>>,
);
#[automatically_derived]
impl<'s, T: dsm::SharedType> ::core::clone::Clone for Board_ReadFields<'s, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}
#[automatically_derived]
impl<'s, T: dsm::SharedType> ::core::marker::Copy for Board_ReadFields<'s, T> {}
#[automatically_derived]
impl<'s, T: dsm::SharedType> ::core::fmt::Debug for Board_ReadFields<'s, T> {
    #[inline]
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        f.debug_tuple("Board_ReadFields").field(&self.0).finish()
    }
}
#[automatically_derived]
impl<'s, T: dsm::SharedType> Board_ReadFields<'s, T> {
    /// Whose turn it is.
    #[inline]
    #[must_use]
    pub fn turn(self) -> u32 {
        <u32 as ::dsm::__private::SharedType>::read_field(
            <u32 as ::dsm::__private::SharedType>::read_field_of::<Board<T>, 0>(self.0),
        )
    }
    ///The handle of `turn`, which only reads.
    ///
    /// Whose turn it is.
    #[inline]
    #[must_use]
    pub fn turn_ref(self) -> ::dsm::__private::ReadOnly<'s, u32> {
        <u32 as ::dsm::__private::SharedType>::read_field_of::<Board<T>, 0>(self.0)
    }
    ///`phase`, as its type gives it: the value of a number or an enum, the handle of anything larger.
    #[inline]
    #[must_use]
    fn phase(self) -> <Phase as ::dsm::__private::SharedType>::ReadGetter<'s> {
        <Phase as ::dsm::__private::SharedType>::read_field(
            <Phase as ::dsm::__private::SharedType>::read_field_of::<Board<T>, 1>(self.0),
        )
    }
    ///The handle of `phase`, which only reads.
    #[inline]
    #[must_use]
    fn phase_ref(self) -> ::dsm::__private::ReadOnly<'s, Phase> {
        <Phase as ::dsm::__private::SharedType>::read_field_of::<Board<T>, 1>(self.0)
    }
    ///The elements of `scores`.
    #[inline]
    #[must_use]
    pub fn scores(self) -> ::dsm::__private::ReadOnlySlice<'s, u64> {
        <[u64; 64] as ::dsm::__private::SharedType>::read_field(
            <[u64; 64] as ::dsm::__private::SharedType>::read_field_of::<
                Board<T>,
                2,
            >(self.0),
        )
    }
    ///The handle of `scores`, which only reads.
    #[inline]
    #[must_use]
    pub fn scores_ref(self) -> ::dsm::__private::ReadOnly<'s, [u64; 64]> {
        <[u64; 64] as ::dsm::__private::SharedType>::read_field_of::<Board<T>, 2>(self.0)
    }
    ///`best`, as its type gives it: the value of a number or an enum, the handle of anything larger.
    #[inline]
    #[must_use]
    pub fn best(self) -> <T as ::dsm::__private::SharedType>::ReadGetter<'s> {
        <T as ::dsm::__private::SharedType>::read_field(
            <T as ::dsm::__private::SharedType>::read_field_of::<Board<T>, 3>(self.0),
        )
    }
    ///The handle of `best`, which only reads.
    #[inline]
    #[must_use]
    pub fn best_ref(self) -> ::dsm::__private::ReadOnly<'s, T> {
        <T as ::dsm::__private::SharedType>::read_field_of::<Board<T>, 3>(self.0)
    }
    ///The value of `hits`: a plain load.
    #[inline]
    #[must_use]
    pub fn hits(self) -> u64 {
        <u64 as ::dsm::__private::SharedType>::read_field(
            <u64 as ::dsm::__private::SharedType>::read_field_of::<Board<T>, 4>(self.0),
        )
    }
    ///The handle of `hits`, which only reads.
    #[inline]
    #[must_use]
    pub fn hits_ref(self) -> ::dsm::__private::ReadOnly<'s, u64> {
        <u64 as ::dsm::__private::SharedType>::read_field_of::<Board<T>, 4>(self.0)
    }
}
#[automatically_derived]
unsafe impl<T: dsm::SharedType> ::dsm::__private::SharedType for Board<T> {
    const LAYOUT: &'static ::dsm::__private::Layout = &::dsm::__private::structure_with::<
        Self,
    >(
            "Board",
            const {
                &[
                    ::dsm::__private::Field::followed_at(
                        ::dsm::__private::Field::new(
                            "turn",
                            ::core::mem::offset_of!(Board < T >, turn),
                            <u32 as ::dsm::__private::SharedType>::LAYOUT,
                        ),
                        ::core::mem::offset_of!(Board < T >, phase),
                    ),
                    ::dsm::__private::Field::followed_at(
                        ::dsm::__private::Field::new(
                            "phase",
                            ::core::mem::offset_of!(Board < T >, phase),
                            <Phase as ::dsm::__private::SharedType>::LAYOUT,
                        ),
                        ::core::mem::offset_of!(Board < T >, scores),
                    ),
                    ::dsm::__private::Field::followed_at(
                        ::dsm::__private::Field::new(
                            "scores",
                            ::core::mem::offset_of!(Board < T >, scores),
                            <[u64; 64] as ::dsm::__private::SharedType>::LAYOUT,
                        ),
                        ::core::mem::offset_of!(Board < T >, best),
                    ),
                    ::dsm::__private::Field::followed_at(
                        ::dsm::__private::Field::new(
                            "best",
                            ::core::mem::offset_of!(Board < T >, best),
                            <T as ::dsm::__private::SharedType>::LAYOUT,
                        ),
                        ::core::mem::offset_of!(Board < T >, hits),
                    ),
                    ::dsm::__private::Field::followed_at(
                        ::dsm::__private::Field::new(
                            "hits",
                            ::core::mem::offset_of!(Board < T >, hits),
                            <::dsm::__private::Line<
                                u64,
                                { ::dsm::__private::pad(::core::mem::size_of::<u64>()) },
                            > as ::dsm::__private::SharedType>::LAYOUT,
                        ),
                        ::core::mem::size_of::<Board<T>>(),
                    ),
                ]
            },
            const {
                &[
                    ::dsm::__private::Argument::Type(
                        <T as ::dsm::__private::SharedType>::LAYOUT,
                    ),
                ]
            },
        )
        .with_version(2);
    type Fields<'s> = Board_Fields<'s, T>;
    type ReadFields<'s> = Board_ReadFields<'s, T>;
    type Getter<'s> = ::dsm::__private::Shared<'s, Self>;
    type ReadGetter<'s> = ::dsm::__private::ReadOnly<'s, Self>;
    #[inline]
    fn get_field(
        field: ::dsm::__private::Shared<'_, Self>,
    ) -> ::dsm::__private::Shared<'_, Self> {
        field
    }
    #[inline]
    fn read_field(
        field: ::dsm::__private::ReadOnly<'_, Self>,
    ) -> ::dsm::__private::ReadOnly<'_, Self> {
        field
    }
}
#[automatically_derived]
impl<T: dsm::SharedType> ::dsm::__private::Assign for Board<T>
where
    for<'x> u32: ::core::marker::Copy,
    for<'x> Phase: ::core::marker::Copy,
    for<'x> u64: ::core::marker::Copy,
    for<'x> T: ::core::marker::Copy,
{
    type Setter<'a> = &'a Self;
    #[inline]
    fn set_field(field: ::dsm::__private::Shared<'_, Self>, value: &Self) {
        field.store(value);
    }
}
#[automatically_derived]
unsafe impl<T: dsm::SharedType> ::dsm::__private::Plain for Board<T>
where
    for<'x> u32: ::dsm::__private::Plain,
    for<'x> Phase: ::dsm::__private::Plain,
    for<'x> u64: ::dsm::__private::Plain,
    for<'x> T: ::dsm::__private::Plain,
{}
