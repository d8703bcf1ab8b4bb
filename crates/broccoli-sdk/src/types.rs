//! Which Rust types can be arguments and results, and what they are on the wire.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::marker::PhantomData;

use crate::host::die;
use crate::{Decoder, Encoder, FromCbor, ToCbor, TypeName};

/// Implements both traits for types that a decoder and an encoder method handle.
macro_rules! basic {
    ($($ty:ty, $name:literal, $decode:expr, $encode:expr;)*) => {$(
        impl FromCbor<'_> for $ty {
            const TYPE: TypeName = TypeName::new($name);

            fn decode(d: &mut Decoder<'_>) -> Self {
                $decode(d)
            }
        }

        impl ToCbor for $ty {
            const TYPE: TypeName = TypeName::new($name);

            fn encode(&self, e: &mut Encoder) {
                $encode(e, self)
            }
        }
    )*};
}

basic! {
    i8, "i8", |d: &mut Decoder<'_>| d.int() as i8, |e: &mut Encoder, n: &i8| e.int((*n).into());
    i16, "i16", |d: &mut Decoder<'_>| d.int() as i16, |e: &mut Encoder, n: &i16| e.int((*n).into());
    i32, "i32", |d: &mut Decoder<'_>| d.int() as i32, |e: &mut Encoder, n: &i32| e.int((*n).into());
    i64, "i64", Decoder::int, |e: &mut Encoder, n: &i64| e.int(*n);
    u8, "u8", |d: &mut Decoder<'_>| d.int() as u8, |e: &mut Encoder, n: &u8| e.uint((*n).into());
    u16, "u16", |d: &mut Decoder<'_>| d.int() as u16, |e: &mut Encoder, n: &u16| e.uint((*n).into());
    u32, "u32", |d: &mut Decoder<'_>| d.int() as u32, |e: &mut Encoder, n: &u32| e.uint((*n).into());
    u64, "u64", |d: &mut Decoder<'_>| d.int() as u64, |e: &mut Encoder, n: &u64| e.uint(*n);
    f32, "f32", |d: &mut Decoder<'_>| d.float() as f32, |e: &mut Encoder, x: &f32| e.float((*x).into());
    f64, "f64", Decoder::float, |e: &mut Encoder, x: &f64| e.float(*x);
    bool, "bool", |d: &mut Decoder<'_>| d.head().info == 21, |e: &mut Encoder, b: &bool| e.bool(*b);
    (), "null", |d: &mut Decoder<'_>| { d.null(); }, |e: &mut Encoder, _: &()| e.null();
    String, "str", |d: &mut Decoder<'_>| d.str().into(), |e: &mut Encoder, s: &String| e.str(s);
    Bytes, "bytes", |d: &mut Decoder<'_>| Bytes(d.bytes().into()), |e: &mut Encoder, b: &Bytes| e.bytes(&b.0);
}

/// A byte string that owns its bytes. `&[u8]` borrows them. A `Vec<u8>` is a list of integers.
///
/// ```
/// use broccoli_sdk::{Bytes, task};
///
/// #[task]
/// fn zeros(n: u8) -> Bytes {
///     Bytes(vec![0; n.into()])
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl<'a> FromCbor<'a> for &'a str {
    const TYPE: TypeName = TypeName::new("str");

    fn decode(d: &mut Decoder<'a>) -> Self {
        d.str()
    }
}

impl ToCbor for str {
    const TYPE: TypeName = TypeName::new("str");

    fn encode(&self, e: &mut Encoder) {
        e.str(self);
    }
}

impl<'a> FromCbor<'a> for &'a [u8] {
    const TYPE: TypeName = TypeName::new("bytes");

    fn decode(d: &mut Decoder<'a>) -> Self {
        d.bytes()
    }
}

impl ToCbor for [u8] {
    const TYPE: TypeName = TypeName::new("bytes");

    fn encode(&self, e: &mut Encoder) {
        e.bytes(self);
    }
}

impl<T: ToCbor + ?Sized> ToCbor for &T {
    const TYPE: TypeName = T::TYPE;

    fn encode(&self, e: &mut Encoder) {
        (**self).encode(e);
    }
}

impl<'a, T: FromCbor<'a>> FromCbor<'a> for Option<T> {
    const TYPE: TypeName = TypeName::new("?").then(&T::TYPE);

    fn decode(d: &mut Decoder<'a>) -> Self {
        if d.null() { None } else { Some(T::decode(d)) }
    }
}

impl<T: ToCbor> ToCbor for Option<T> {
    const TYPE: TypeName = TypeName::new("?").then(&T::TYPE);

    fn encode(&self, e: &mut Encoder) {
        match self {
            Some(value) => value.encode(e),
            None => e.null(),
        }
    }
}

const fn list(item: &TypeName) -> TypeName {
    TypeName::new("[").then(item).then(&TypeName::new("]"))
}

impl<'a, T: FromCbor<'a>> FromCbor<'a> for Vec<T> {
    const TYPE: TypeName = list(&T::TYPE);

    fn decode(d: &mut Decoder<'a>) -> Self {
        let len = d.array();
        let mut items = Self::new();
        if items.try_reserve_exact(len).is_err() {
            die("out of memory", 0);
        }
        items.extend((0..len).map(|_| T::decode(d)));
        items
    }
}

impl<T: ToCbor> ToCbor for Vec<T> {
    const TYPE: TypeName = list(&T::TYPE);

    fn encode(&self, e: &mut Encoder) {
        e.array(self.len());
        for item in self {
            item.encode(e);
        }
    }
}

/// A list argument whose items are decoded one by one. It needs no memory, whatever its length.
///
/// ```
/// use broccoli_sdk::{List, task};
///
/// #[task]
/// fn longest(words: List<&str>) -> u64 {
///     words.map(str::len).max().unwrap_or(0) as u64
/// }
/// ```
#[derive(Clone, Debug)]
pub struct List<'a, T> {
    items: Decoder<'a>,
    len: usize,
    item: PhantomData<fn() -> T>,
}

impl<'a, T: FromCbor<'a>> FromCbor<'a> for List<'a, T> {
    const TYPE: TypeName = list(&T::TYPE);

    fn decode(d: &mut Decoder<'a>) -> Self {
        let mut items = Decoder::new(d.item());
        let len = items.array();
        Self { items, len, item: PhantomData }
    }
}

impl<'a, T: FromCbor<'a>> Iterator for List<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        Some(T::decode(&mut self.items))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl<'a, T: FromCbor<'a>> ExactSizeIterator for List<'a, T> {}

const fn map(value: &TypeName) -> TypeName {
    TypeName::new("{").then(value).then(&TypeName::new("}"))
}

impl<'a, T: FromCbor<'a>> FromCbor<'a> for BTreeMap<String, T> {
    const TYPE: TypeName = map(&T::TYPE);

    fn decode(d: &mut Decoder<'a>) -> Self {
        let len = d.map();
        (0..len).map(|_| (d.str().into(), T::decode(d))).collect()
    }
}

impl<T: ToCbor> ToCbor for BTreeMap<String, T> {
    const TYPE: TypeName = map(&T::TYPE);

    fn encode(&self, e: &mut Encoder) {
        e.map(self.len());
        for (key, value) in self {
            e.str(key);
            value.encode(e);
        }
    }
}

macro_rules! tuple {
    ($len:literal, $first:ident $(, $more:ident)*) => {
        impl<'a, $first: FromCbor<'a> $(, $more: FromCbor<'a>)*> FromCbor<'a>
            for ($first, $($more,)*)
        {
            const TYPE: TypeName = TypeName::new("(").then(&$first::TYPE)
                $(.then(&TypeName::new(",")).then(&$more::TYPE))*
                .then(&TypeName::new(")"));

            fn decode(d: &mut Decoder<'a>) -> Self {
                d.array();
                ($first::decode(d), $($more::decode(d),)*)
            }
        }

        impl<$first: ToCbor $(, $more: ToCbor)*> ToCbor for ($first, $($more,)*) {
            const TYPE: TypeName = TypeName::new("(").then(&$first::TYPE)
                $(.then(&TypeName::new(",")).then(&$more::TYPE))*
                .then(&TypeName::new(")"));

            #[allow(non_snake_case)]
            fn encode(&self, e: &mut Encoder) {
                let ($first, $($more,)*) = self;
                e.array($len);
                $first.encode(e);
                $($more.encode(e);)*
            }
        }
    };
}

tuple!(1, A);
tuple!(2, A, B);
tuple!(3, A, B, C);
tuple!(4, A, B, C, D);
tuple!(5, A, B, C, D, E);
tuple!(6, A, B, C, D, E, F);
