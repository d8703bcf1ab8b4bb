//! The modules of a node in flash, each in its own row of sectors.
//!
//! ```text
//!   0      mark: erased while the module is there, anything else after it was removed
//!   32     magic, length of the manifest, its complement
//!   64     the signed manifest, CBOR
//!   then   the code, in the order of its chunks
//! ```
//!
//! Each part starts at a multiple of 32 bytes, and the whole at a sector. Chunks are written as they arrive. A sector
//! is erased before the first byte is written into it. The magic is written last, after the code in flash was checked.
//! So a module is there completely or not at all, whenever the power is cut. At the start of the node, a module counts
//! only after its signature and the hash of its code were checked. Everything else is free room.
//!
//! Room is taken from the start of the flash. The flash endures far more deployments than a cluster does.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

use broccoli_proto::module::{CHUNK_BYTES, DeployPublic, Hasher, SignedManifest};
use broccoli_proto::{Cbor, ModuleHash};
use embedded_storage::nor_flash::{NorFlash, NorFlashError, NorFlashErrorKind};

/// Alignment of the parts of a module, in bytes; a multiple of the flash's read and write sizes.
const UNIT: u32 = 32;
const HEADER_AT: u32 = UNIT;
const MANIFEST_AT: u32 = 2 * UNIT;
const MAGIC: [u8; 8] = *b"broccol1";
/// A manifest fits into a packet, in which it arrived.
const MANIFEST_BYTES_MAX: u32 = 4_096;
/// Code is checked in pieces of this size, in bytes.
const PIECE_BYTES: usize = 256;

/// The flash for modules: a part of the chip's flash, or another one. Calls may block: if the program runs from the
/// same flash, everything stops during a write anyway.
pub trait Flash: NorFlash {
    /// All bytes, if the chip maps them into its address space. Then code is loaded without a copy in memory.
    fn mapped(&self) -> Option<&[u8]> {
        None
    }
}

/// The modules of one node.
#[derive(Debug)]
pub(crate) struct Store<F> {
    flash: F,
    module_bytes_max: u32,
    whole: Vec<Place>,
    /// Modules that are being pulled.
    partial: Vec<Partial>,
}

/// Where a module is in flash.
#[derive(Clone, Copy, Debug)]
struct Place {
    id: ModuleHash,
    /// A multiple of the sector size, like `len`.
    start: u32,
    len: u32,
    code_at: u32,
    code_len: u32,
}

#[derive(Debug)]
struct Partial {
    place: Place,
    /// Which of its sectors were erased.
    erased: Vec<bool>,
}

/// Why a module cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreError {
    /// The code is larger than the limit.
    TooLarge { bytes: u32, max: u32 },
    /// There is not enough contiguous free flash.
    Full { bytes: u32, free: u32 },
    /// The module is not there.
    Missing,
    /// It is not signed with the cluster's deploy key, or it is not a manifest.
    BadManifest,
    /// The hash of the code differs from the one in the manifest.
    BadCode,
    /// The flash reports an error.
    Flash(NorFlashErrorKind),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::TooLarge { bytes, max } => write!(f, "the module has {bytes} bytes, the limit is {max}"),
            StoreError::Full { bytes, free } => {
                write!(f, "the module needs {bytes} contiguous bytes of flash, {free} are free")
            }
            StoreError::Missing => f.write_str("this node does not have the module any more"),
            StoreError::BadManifest => f.write_str("the manifest is not signed with this cluster's deploy key"),
            StoreError::BadCode => f.write_str("the code does not match the hash in its manifest"),
            StoreError::Flash(kind) => write!(f, "flash error: {kind}"),
        }
    }
}

impl core::error::Error for StoreError {}

fn flash_error(error: impl NorFlashError) -> StoreError {
    StoreError::Flash(error.kind())
}

impl Place {
    fn new<F: NorFlash>(id: ModuleHash, start: u32, manifest_len: u32, code_len: u32) -> Place {
        let code_at = start + MANIFEST_AT + manifest_len.next_multiple_of(UNIT);
        let len = (code_at + code_len - start).next_multiple_of(F::ERASE_SIZE as u32);
        Place { id, start, len, code_at, code_len }
    }

    fn end(&self) -> u32 {
        self.start + self.len
    }
}

/// Storing.
impl<F: Flash> Store<F> {
    /// A store that has not searched the flash yet: see [`Store::find`].
    pub(crate) fn new(flash: F, module_bytes_max: u32) -> Store<F> {
        const {
            assert!(UNIT.is_multiple_of(F::READ_SIZE as u32) && UNIT.is_multiple_of(F::WRITE_SIZE as u32));
            assert!((F::ERASE_SIZE as u32).is_multiple_of(UNIT));
        }
        Store { flash, module_bytes_max, whole: Vec::new(), partial: Vec::new() }
    }

    /// Searches the flash for modules. Passes each one, or why it cannot be used, to `found` at once: together they may
    /// be large.
    pub(crate) fn find(&mut self, key: &DeployPublic, mut found: impl FnMut(Result<SignedManifest, StoreError>)) {
        let (mut at, end) = (0, self.capacity());
        while at < end {
            let looked = self.look(at, key);
            at += F::ERASE_SIZE as u32;
            match looked {
                Ok(None) => {}
                Ok(Some((place, manifest))) => {
                    at = place.end();
                    self.whole.push(place);
                    found(Ok(manifest));
                }
                Err(error) => {
                    found(Err(error));
                    if matches!(error, StoreError::Flash(_)) {
                        break;
                    }
                }
            }
        }
    }

    /// Reserves room for a module before it is pulled. Nothing is written.
    ///
    /// # Errors
    /// There is no room. The error contains the size.
    pub(crate) fn reserve(&mut self, signed: &SignedManifest) -> Result<(), StoreError> {
        let (bytes, max) = (signed.manifest.size, self.module_bytes_max);
        let manifest_len = Cbor::encode(signed).as_bytes().len() as u32;
        if bytes > max || manifest_len > MANIFEST_BYTES_MAX {
            return Err(StoreError::TooLarge { bytes: bytes.max(manifest_len), max });
        }
        self.partial.retain(|partial| partial.place.id != signed.id);
        let place = self.room(Place::new::<F>(signed.id, 0, manifest_len, bytes))?;
        let erased = alloc::vec![false; place.len as usize / F::ERASE_SIZE];
        self.partial.push(Partial { place, erased });
        Ok(())
    }

    /// Writes a chunk of a module that has reserved room.
    ///
    /// # Errors
    /// The flash reports an error.
    pub(crate) fn put_chunk(&mut self, module: ModuleHash, index: u32, bytes: Vec<u8>) -> Result<(), StoreError> {
        let at = self.partial.iter().position(|partial| partial.place.id == module).ok_or(StoreError::Missing)?;
        let (place, offset) = (self.partial[at].place, index.saturating_mul(CHUNK_BYTES));
        if offset.saturating_add(bytes.len() as u32) > place.code_len {
            return Err(StoreError::BadCode);
        }
        self.write(at, place.code_at + offset, bytes)
    }

    /// Checks the code of a module in flash after all its chunks were written.
    ///
    /// # Errors
    /// It does not match the manifest.
    pub(crate) fn check(&mut self, signed: &SignedManifest) -> Result<(), StoreError> {
        let partial = self.partial.iter().find(|partial| partial.place.id == signed.id);
        let place = partial.ok_or(StoreError::Missing)?.place;
        if self.hash(&place)? == signed.manifest.hash { Ok(()) } else { Err(StoreError::BadCode) }
    }

    /// Makes a checked module permanent.
    ///
    /// # Errors
    /// The flash reports an error.
    pub(crate) fn keep(&mut self, signed: &SignedManifest) -> Result<(), StoreError> {
        let at = self.partial.iter().position(|partial| partial.place.id == signed.id).ok_or(StoreError::Missing)?;
        let place = self.partial[at].place;
        let manifest = Cbor::encode(signed).into_bytes();
        let len = manifest.len() as u32;
        self.write(at, place.start + MANIFEST_AT, manifest)?;
        let header = [&MAGIC[..], &len.to_le_bytes(), &(!len).to_le_bytes()].concat();
        self.write(at, place.start + HEADER_AT, header)?;
        self.partial.remove(at);
        self.whole.push(place);
        Ok(())
    }

    /// Removes a module. Its room becomes free.
    ///
    /// # Errors
    /// The flash reports an error.
    pub(crate) fn remove(&mut self, module: &ModuleHash) -> Result<(), StoreError> {
        self.partial.retain(|partial| partial.place.id != *module);
        let Some(at) = self.whole.iter().position(|place| place.id == *module) else { return Ok(()) };
        let place = self.whole.remove(at);
        self.flash.write(place.start, &[0; UNIT as usize]).map_err(flash_error)
    }

    /// A chunk of a complete module.
    pub(crate) fn chunk(&mut self, module: &ModuleHash, index: u32) -> Option<Vec<u8>> {
        let place = *self.whole.iter().find(|place| place.id == *module)?;
        let offset = index.saturating_mul(CHUNK_BYTES);
        let len = place.code_len.checked_sub(offset).filter(|left| *left > 0)?.min(CHUNK_BYTES);
        self.read(place.code_at + offset, len).ok()
    }

    /// Length of a module's code in bytes, complete or not.
    pub(crate) fn code_len(&self, module: &ModuleHash) -> Option<u32> {
        self.place(module).map(|place| place.code_len)
    }

    /// Whether [`Store::code`] needs no memory.
    pub(crate) fn is_mapped(&self) -> bool {
        self.flash.mapped().is_some()
    }

    /// The code of a module with all its chunks.
    ///
    /// # Errors
    /// The module is not there, or the flash reports an error.
    pub(crate) fn code(&mut self, module: &ModuleHash) -> Result<Cow<'_, [u8]>, StoreError> {
        let Place { code_at, code_len, .. } = *self.place(module).ok_or(StoreError::Missing)?;
        if self.flash.mapped().is_none() {
            return self.read(code_at, code_len).map(Cow::Owned);
        }
        let range = code_at as usize..(code_at + code_len) as usize;
        self.flash.mapped().and_then(|bytes| bytes.get(range)).map(Cow::Borrowed).ok_or(StoreError::Missing)
    }
}

/// Room in the flash.
impl<F: Flash> Store<F> {
    /// Only whole sectors are used.
    fn capacity(&self) -> u32 {
        (self.flash.capacity() / F::ERASE_SIZE * F::ERASE_SIZE) as u32
    }

    fn place(&self, module: &ModuleHash) -> Option<&Place> {
        let places = self.whole.iter().chain(self.partial.iter().map(|partial| &partial.place));
        places.into_iter().find(|place| place.id == *module)
    }

    /// Moves `place` to the first gap that is large enough.
    fn room(&self, place: Place) -> Result<Place, StoreError> {
        let mut taken: Vec<(u32, u32)> = self.whole.iter().map(|place| (place.start, place.end())).collect();
        taken.extend(self.partial.iter().map(|partial| (partial.place.start, partial.place.end())));
        taken.push((self.capacity(), self.capacity()));
        taken.sort_unstable();
        let (mut start, mut largest) = (0, 0);
        for (from, to) in taken {
            if from - start >= place.len {
                return Ok(Place { start, code_at: start + place.code_at - place.start, ..place });
            }
            largest = largest.max(from - start);
            start = to;
        }
        Err(StoreError::Full { bytes: place.len, free: largest })
    }

    /// The module that starts at a sector, if there is one.
    fn look(&mut self, start: u32, key: &DeployPublic) -> Result<Option<(Place, SignedManifest)>, StoreError> {
        let head = self.read(start, MANIFEST_AT)?;
        let (mark, header) = head.split_at(UNIT as usize);
        let word = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let (len, complement) = (word(MAGIC.len()), word(MAGIC.len() + 4));
        let is_header = header.starts_with(&MAGIC) && complement == !len && len <= MANIFEST_BYTES_MAX;
        if !is_header || mark.iter().any(|byte| *byte != 0xff) || start + MANIFEST_AT + len > self.capacity() {
            return Ok(None);
        }
        let signed = Cbor::from_encoded(self.read(start + MANIFEST_AT, len)?).decode::<SignedManifest>();
        let signed = signed.filter(|signed| signed.verify(key).is_ok()).ok_or(StoreError::BadManifest)?;
        let place = Place::new::<F>(signed.id, start, len, signed.manifest.size);
        if place.end() > self.capacity() || self.hash(&place)? != signed.manifest.hash {
            return Err(StoreError::BadCode);
        }
        Ok(self.place(&signed.id).is_none().then_some((place, signed)))
    }
}

/// Access to the flash.
impl<F: Flash> Store<F> {
    /// Writes into the room of a module that is being pulled. Its sectors are erased before.
    fn write(&mut self, partial: usize, at: u32, mut bytes: Vec<u8>) -> Result<(), StoreError> {
        let Partial { place, erased } = &mut self.partial[partial];
        bytes.resize(bytes.len().next_multiple_of(F::WRITE_SIZE), 0xff);
        let sector = F::ERASE_SIZE as u32;
        let (first, end) = ((at - place.start) / sector, (at - place.start + bytes.len() as u32).div_ceil(sector));
        for (number, erased) in (first..end).zip(&mut erased[first as usize..]).filter(|(_, erased)| !**erased) {
            let from = place.start + number * sector;
            self.flash.erase(from, from + sector).map_err(flash_error)?;
            *erased = true;
        }
        self.flash.write(at, &bytes).map_err(flash_error)
    }

    fn read(&mut self, at: u32, len: u32) -> Result<Vec<u8>, StoreError> {
        let mut bytes = alloc::vec![0; (len as usize).next_multiple_of(F::READ_SIZE)];
        self.flash.read(at, &mut bytes).map_err(flash_error)?;
        bytes.truncate(len as usize);
        Ok(bytes)
    }

    fn hash(&mut self, place: &Place) -> Result<ModuleHash, StoreError> {
        let (mut hasher, mut piece) = (Hasher::default(), [0; PIECE_BYTES]);
        let (mut at, end) = (place.code_at, place.code_at + place.code_len);
        while at < end {
            let len = PIECE_BYTES.min((end - at) as usize);
            self.flash.read(at, &mut piece[..len.next_multiple_of(F::READ_SIZE)]).map_err(flash_error)?;
            hasher.update(&piece[..len]);
            at += len as u32;
        }
        Ok(hasher.finish())
    }
}

#[cfg(test)]
mod tests;
