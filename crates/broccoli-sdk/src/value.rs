//! Values of any type, kept as their encoded bytes.

use alloc::borrow::Cow;

use crate::codec::{ARRAY, BYTES, MAP, NEGATIVE, TAG, TEXT, UINT};
use crate::{Decoder, Encoder, FromCbor, ToCbor, TypeName};

/// Any value, as an argument or a result. It is decoded only when it is used.
///
/// ```
/// use broccoli_sdk::{Kind, Value, task};
///
/// #[task]
/// fn is_text(value: Value) -> bool {
///     matches!(value.kind(), Kind::Str(_))
/// }
///
/// assert!(is_text(Value::of(&"hello")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// One valid CBOR item.
    item: Cow<'a, [u8]>,
}

/// The content of a [`Value`]. Lists and maps return their items one by one.
#[derive(Clone, Debug)]
pub enum Kind<'a> {
    /// `null`
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i128),
    /// A float.
    Float(f64),
    /// A text.
    Str(&'a str),
    /// A byte string.
    Bytes(&'a [u8]),
    /// A list.
    List(Items<'a>),
    /// A map: its keys and values, alternating.
    Map(Items<'a>),
    /// A tagged value.
    Tag(u64, Value<'a>),
}

/// The items of a list, or the keys and values of a map, alternating.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    items: Decoder<'a>,
    left: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        Some(Value { item: Cow::Borrowed(self.items.item()) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Items<'_> {}

impl Value<'_> {
    /// Encodes a value.
    ///
    /// ```
    /// use broccoli_sdk::{Kind, Value};
    /// assert!(matches!(Value::of(&-3i64).kind(), Kind::Int(-3)));
    /// ```
    #[must_use]
    pub fn of(value: &(impl ToCbor + ?Sized)) -> Value<'static> {
        let mut e = Encoder::new();
        value.encode(&mut e);
        Value { item: Cow::Owned(e.into_bytes()) }
    }

    /// The content of the value.
    ///
    /// ```
    /// use broccoli_sdk::{Kind, Value};
    /// let value = Value::of(&vec!["a", "b"]);
    /// let Kind::List(items) = value.kind() else { panic!() };
    /// assert_eq!(items.len(), 2);
    /// ```
    #[must_use]
    pub fn kind(&self) -> Kind<'_> {
        let mut d = Decoder::new(&self.item);
        let mut rest = d.clone();
        let head = rest.head();
        match head.major {
            UINT => Kind::Int(head.arg.into()),
            NEGATIVE => Kind::Int(!i128::from(head.arg)),
            BYTES => Kind::Bytes(d.bytes()),
            TEXT => Kind::Str(d.str()),
            ARRAY => Kind::List(Items { items: rest, left: head.arg as usize }),
            MAP => Kind::Map(Items { items: rest, left: (head.arg as usize).saturating_mul(2) }),
            TAG => Kind::Tag(head.arg, Value { item: Cow::Borrowed(rest.item()) }),
            _ => match head.info {
                20 | 21 => Kind::Bool(head.info == 21),
                22 => Kind::Null,
                _ => Kind::Float(d.float()),
            },
        }
    }
}

impl<'a> FromCbor<'a> for Value<'a> {
    const TYPE: TypeName = TypeName::new("any");

    fn decode(d: &mut Decoder<'a>) -> Self {
        Self { item: Cow::Borrowed(d.item()) }
    }
}

impl ToCbor for Value<'_> {
    const TYPE: TypeName = TypeName::new("any");

    fn encode(&self, e: &mut Encoder) {
        e.raw(&self.item);
    }
}
