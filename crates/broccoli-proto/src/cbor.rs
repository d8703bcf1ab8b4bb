//! Opaque CBOR values (RFC 8949), and the few operations on them that the canvas needs.
//!
//! A [`Cbor`] is one item that has already been validated. Joining and prepending work on the encoded bytes, so
//! results are never decoded on their way through a node.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

use minicbor::{Decode, Decoder, Encode, Encoder};

/// From this length on, clones share the bytes.
const SHARED_LEN: usize = 1 << 10;

/// One well-formed CBOR item: an argument list, an argument, or a result.
///
/// On the wire it is inside a byte string, so a reader can skip it without parsing it. Cloning a large one costs
/// nothing.
#[derive(Clone)]
pub struct Cbor(Bytes);

#[derive(Clone)]
enum Bytes {
    Owned(Vec<u8>),
    Shared(Arc<Vec<u8>>),
}

impl Cbor {
    /// Takes bytes that are known to be one item: encoded by this program, or checked by
    /// [`broccoli_abi::validate_item`].
    pub fn from_encoded(bytes: Vec<u8>) -> Cbor {
        Cbor(if bytes.len() < SHARED_LEN { Bytes::Owned(bytes) } else { Bytes::Shared(Arc::new(bytes)) })
    }

    /// Checks bytes from outside: one definite-length item, UTF-8 text, bounded depth.
    pub fn parse(bytes: &[u8]) -> Option<Cbor> {
        broccoli_abi::validate_item(bytes).ok()?;
        Some(Cbor::from_encoded(bytes.to_vec()))
    }

    /// Encodes any value that can be encoded.
    pub fn encode<T: Encode<()>>(value: &T) -> Cbor {
        let mut bytes = Vec::new();
        Encoder::new(&mut bytes).encode(value).expect("writing to a Vec cannot fail");
        Cbor::from_encoded(bytes)
    }

    /// Decodes the whole item as `T`, or `None` if it is something else.
    pub fn decode<'b, T: Decode<'b, ()>>(&'b self) -> Option<T> {
        let mut decoder = Decoder::new(self.as_bytes());
        let value = decoder.decode().ok()?;
        (decoder.position() == self.as_bytes().len()).then_some(value)
    }

    /// The array `[items…]` of items that are already encoded.
    pub fn array<'a, I>(items: I) -> Cbor
    where
        I: ExactSizeIterator<Item = &'a [u8]> + Clone,
    {
        let bytes = items.clone().map(<[u8]>::len).sum::<usize>();
        let mut out = Vec::with_capacity(bytes + 9);
        put_array_header(&mut out, items.len());
        for item in items {
            out.extend_from_slice(item);
        }
        Cbor::from_encoded(out)
    }

    /// The empty array.
    pub fn empty_array() -> Cbor {
        Cbor::from_encoded(alloc::vec![0x80])
    }

    /// The empty map.
    pub fn empty_map() -> Cbor {
        Cbor::from_encoded(alloc::vec![0xa0])
    }

    /// `null`.
    pub fn null() -> Cbor {
        Cbor::from_encoded(alloc::vec![0xf6])
    }

    /// The encoded item.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Owned(bytes) => bytes,
            Bytes::Shared(bytes) => bytes,
        }
    }

    /// The encoded item, owned.
    pub fn into_bytes(self) -> Vec<u8> {
        match self.0 {
            Bytes::Owned(bytes) => bytes,
            Bytes::Shared(bytes) => Arc::unwrap_or_clone(bytes),
        }
    }

    /// The encoded elements of a definite-length array, or `None` if this is not one.
    pub fn elements(&self) -> Option<Vec<&[u8]>> {
        let mut decoder = Decoder::new(self.as_bytes());
        let len = usize::try_from(decoder.array().ok()??).ok()?;
        let mut out = Vec::with_capacity(len.min(self.as_bytes().len()));
        for _ in 0..len {
            let start = decoder.position();
            decoder.skip().ok()?;
            out.push(self.as_bytes().get(start..decoder.position())?);
        }
        Some(out)
    }

    /// How many elements an array has, or `None` if this is not an array.
    pub fn array_len(&self) -> Option<usize> {
        usize::try_from(Decoder::new(self.as_bytes()).array().ok()??).ok()
    }

    /// The array `[first, …self]`. This puts the result of a parent before a task's own arguments.
    ///
    /// `self` must be an array; anything else is left as it is.
    pub fn prepend(&self, first: &[u8]) -> Cbor {
        let mut decoder = Decoder::new(self.as_bytes());
        let Ok(Some(len)) = decoder.array() else {
            return self.clone();
        };
        let rest = &self.as_bytes()[decoder.position()..];
        let mut out = Vec::with_capacity(first.len() + rest.len() + 9);
        put_array_header(&mut out, len as usize + 1);
        out.extend_from_slice(first);
        out.extend_from_slice(rest);
        Cbor::from_encoded(out)
    }
}

/// Writes the header of a definite-length array.
pub fn put_array_header(out: &mut Vec<u8>, len: usize) {
    Encoder::new(out).array(len as u64).expect("writing to a Vec cannot fail");
}

/// Writes the header of a definite-length map.
pub fn put_map_header(out: &mut Vec<u8>, len: usize) {
    Encoder::new(out).map(len as u64).expect("writing to a Vec cannot fail");
}

/// Writes a text.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    Encoder::new(out).str(text).expect("writing to a Vec cannot fail");
}

impl<C> Encode<C> for Cbor {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(self.as_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Cbor {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Cbor, minicbor::decode::Error> {
        decoder.bytes().map(|bytes| Cbor::from_encoded(bytes.to_vec()))
    }
}

impl PartialEq for Cbor {
    fn eq(&self, other: &Cbor) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Cbor {}

impl PartialOrd for Cbor {
    fn partial_cmp(&self, other: &Cbor) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Cbor {
    fn cmp(&self, other: &Cbor) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

/// RFC 8949 diagnostic notation.
impl fmt::Debug for Cbor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", minicbor::display(self.as_bytes()))
    }
}

impl fmt::Display for Cbor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepending_and_joining_work_on_encoded_items() {
        let args = Cbor::encode(&(2u8, "x"));
        assert_eq!(args.prepend(Cbor::encode(&1u8).as_bytes()), Cbor::encode(&(1u8, 2u8, "x")));
        let items = [Cbor::encode(&1u8), Cbor::encode(&"y")];
        let joined = Cbor::array(items.iter().map(Cbor::as_bytes));
        assert_eq!(joined, Cbor::encode(&(1u8, "y")));
        assert_eq!(joined.elements().map(|e| e.len()), Some(2));
        assert_eq!(Cbor::null().elements(), None);
    }

    #[test]
    fn a_large_value_is_the_same_whoever_holds_it() {
        let large = Cbor::encode(&"x".repeat(SHARED_LEN));
        let clone = large.clone();
        assert!(core::ptr::eq(large.as_bytes(), clone.as_bytes()), "its bytes are shared");
        let bytes = large.as_bytes().to_vec();
        assert_eq!((large.into_bytes(), clone.into_bytes()), (bytes.clone(), bytes));
    }

    #[test]
    fn a_long_array_gets_a_longer_header() {
        let long: Vec<u8> = (0..23).collect();
        let array = Cbor::encode(&long).prepend(&[0x17]);
        assert_eq!(array.array_len(), Some(24));
        assert_eq!(array.elements().map(|e| e.len()), Some(24));
    }
}
