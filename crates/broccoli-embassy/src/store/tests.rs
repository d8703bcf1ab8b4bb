//! The store on a flash that loses power at any point.

use alloc::rc::Rc;
use alloc::string::ToString;
use core::cell::RefCell;

use broccoli_proto::module::Manifest;
use ed25519_dalek::SigningKey;
use embedded_storage::nor_flash::{ErrorType, ReadNorFlash};

use super::*;

const SECTOR: usize = 1_024;
const SECTORS: usize = 12;
const WORD: usize = 4;
const CODE_MAX: u32 = 8 << 10;

/// A NOR flash: an erase sets all bits of a sector, a write only clears some, in words.
#[derive(Clone, Debug)]
struct Nor {
    chip: Rc<RefCell<Chip>>,
    is_mapped: bool,
}

#[derive(Clone, Debug)]
struct Chip {
    bytes: Vec<u8>,
    /// Words and sectors that can be changed before the power is cut.
    left: usize,
    /// How much of the last change is done when the power is cut: nothing, a part, or all.
    last: Last,
    changes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Last {
    Nothing,
    Half,
    Whole,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut;

impl NorFlashError for Cut {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl ErrorType for Nor {
    type Error = Cut;
}

impl ReadNorFlash for Nor {
    const READ_SIZE: usize = WORD;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Cut> {
        assert!((offset as usize).is_multiple_of(WORD) && bytes.len().is_multiple_of(WORD));
        bytes.copy_from_slice(&self.chip.borrow().bytes[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        SECTORS * SECTOR
    }
}

impl NorFlash for Nor {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = SECTOR;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Cut> {
        assert!((from as usize).is_multiple_of(SECTOR) && (to as usize).is_multiple_of(SECTOR));
        for sector in (from as usize..to as usize).step_by(SECTOR) {
            // Half erased: some bits are set, others are not yet.
            self.chip.borrow_mut().change(sector, SECTOR, |at, byte| byte | [0xff, 0x5a][at % 2], |_, _| 0xff)?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Cut> {
        assert!((offset as usize).is_multiple_of(WORD) && bytes.len().is_multiple_of(WORD));
        for (number, word) in bytes.chunks(WORD).enumerate() {
            let half = |at: usize, byte| byte & (word[at] | [0x0f, 0xff][at % 2]);
            let start = offset as usize + number * WORD;
            self.chip.borrow_mut().change(start, WORD, half, |at, byte| byte & word[at])?;
        }
        Ok(())
    }
}

impl Flash for Nor {
    fn mapped(&self) -> Option<&[u8]> {
        // A test does not write while it reads, so a copy is enough.
        self.is_mapped.then(|| &*self.chip.borrow().bytes.clone().leak())
    }
}

impl Chip {
    fn change(
        &mut self,
        start: usize,
        len: usize,
        half: impl Fn(usize, u8) -> u8,
        whole: impl Fn(usize, u8) -> u8,
    ) -> Result<(), Cut> {
        let is_cut = self.left == 0;
        self.left = self.left.saturating_sub(1);
        self.changes += 1;
        let bytes = self.bytes[start..start + len].iter_mut().enumerate();
        match (is_cut, self.last) {
            (true, Last::Nothing) => {}
            (true, Last::Half) => bytes.for_each(|(at, byte)| *byte = half(at, *byte)),
            (false, _) | (true, Last::Whole) => bytes.for_each(|(at, byte)| *byte = whole(at, *byte)),
        }
        if is_cut { Err(Cut) } else { Ok(()) }
    }
}

impl Nor {
    /// A flash with arbitrary old content.
    fn new() -> Nor {
        let bytes = (0..SECTORS * SECTOR).map(|at| (at * 7) as u8).collect();
        let chip = Chip { bytes, left: usize::MAX, last: Last::Nothing, changes: 0 };
        Nor { chip: Rc::new(RefCell::new(chip)), is_mapped: false }
    }

    /// A copy that loses power after this many changes.
    fn cut_after(&self, left: usize, last: Last) -> Nor {
        let chip = Chip { left, last, changes: 0, ..self.chip.borrow().clone() };
        Nor { chip: Rc::new(RefCell::new(chip)), is_mapped: false }
    }

    /// Switches the power on again.
    fn restored(&self) -> Nor {
        self.cut_after(usize::MAX, Last::Nothing)
    }
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn public() -> DeployPublic {
    DeployPublic(key().verifying_key().to_bytes())
}

/// A module and its code.
fn module(version: u64, len: usize) -> (SignedManifest, Vec<u8>) {
    let code: Vec<u8> = (0..len).map(|at| (at as u64 * version) as u8).collect();
    (Manifest::new("m", version, &code, Vec::new().into()).expect("within limits").sign(&key()), code)
}

fn open(flash: &Nor) -> (Store<Nor>, Vec<u64>) {
    let mut versions = Vec::new();
    let mut store = Store::new(flash.clone(), CODE_MAX);
    store.find(&public(), |found| match found {
        Ok(signed) => versions.push(signed.manifest.version),
        Err(error) => panic!("{error}"),
    });
    versions.sort_unstable();
    (store, versions)
}

/// Reserves and installs a module, with its chunks out of order.
fn install(store: &mut Store<Nor>, module: &(SignedManifest, Vec<u8>)) -> Result<(), StoreError> {
    let (signed, code) = module;
    store.reserve(signed)?;
    for (index, chunk) in code.chunks(CHUNK_BYTES as usize).enumerate().rev() {
        store.put_chunk(signed.id, index as u32, chunk.to_vec())?;
    }
    store.check(signed)?;
    store.keep(signed)
}

fn assert_holds(store: &mut Store<Nor>, module: &(SignedManifest, Vec<u8>)) {
    let (signed, code) = module;
    assert_eq!(store.code(&signed.id).as_deref(), Ok(&code[..]));
    for (index, chunk) in code.chunks(CHUNK_BYTES as usize).enumerate() {
        assert_eq!(store.chunk(&signed.id, index as u32).as_deref(), Some(chunk));
    }
    assert_eq!(store.chunk(&signed.id, code.len().div_ceil(CHUNK_BYTES as usize) as u32), None);
}

/// Cuts the power at each change that `work` makes on a copy of `flash`. After each restart, one of `sets` must be
/// there completely, and `work` must succeed. Returns how often the power was cut.
fn cut_everywhere(
    flash: &Nor,
    work: impl Fn(&mut Store<Nor>) -> Result<(), StoreError>,
    sets: [&[&(SignedManifest, Vec<u8>)]; 2],
) -> usize {
    let versions = |set: &[&(SignedManifest, Vec<u8>)]| set.iter().map(|m| m.0.manifest.version).collect::<Vec<_>>();
    for left in 0.. {
        for last in [Last::Nothing, Last::Half, Last::Whole] {
            let cut = flash.cut_after(left, last);
            let worked = work(&mut open(&cut).0);
            if worked.is_ok() && cut.chip.borrow().changes <= left {
                return left;
            }
            let (mut store, there) = open(&cut.restored());
            let set = sets.iter().find(|set| versions(set) == there);
            let set = set.unwrap_or_else(|| panic!("{there:?} are there after {left} changes and {last:?}"));
            for module in set.iter() {
                assert_holds(&mut store, module);
            }
            work(&mut store).expect("there is power now");
            for module in sets[1].iter() {
                assert_holds(&mut store, module);
            }
        }
    }
    unreachable!("work ends")
}

#[test]
fn a_module_survives_a_restart_in_memory_or_mapped() {
    let flash = Nor::new();
    let modules = [module(1, 5_000), module(2, 2_048), module(3, 1)];
    let mut store = open(&flash).0;
    for module in &modules {
        install(&mut store, module).expect("there is room");
    }
    for is_mapped in [false, true] {
        let (mut store, versions) = open(&Nor { is_mapped, ..flash.clone() });
        assert_eq!(versions, [1, 2, 3]);
        for module in &modules {
            assert_holds(&mut store, module);
        }
    }
}

#[test]
fn whenever_the_power_is_cut_the_old_set_is_there_or_the_new_one() {
    let flash = Nor::new();
    let [old, new, newer] = [module(1, 2_500), module(2, 3_100), module(3, 2_100)];
    let mut store = open(&flash).0;
    install(&mut store, &old).expect("there is room");
    let cuts = cut_everywhere(&flash, |store| install(store, &new), [&[&old], &[&old, &new]]);
    assert!(cuts > 3_100 / WORD, "each word can be the last, not only {cuts}");
    install(&mut store, &new).expect("there is room");
    cut_everywhere(&flash, |store| store.remove(&old.0.id), [&[&old, &new], &[&new]]);
    store.remove(&old.0.id).expect("there is power");
    // Goes to the place of the module that was removed.
    cut_everywhere(&flash, |store| install(store, &newer), [&[&new], &[&new, &newer]]);
}

#[test]
fn removed_modules_make_room_and_a_full_flash_says_what_it_lacks() {
    let flash = Nor::new();
    let mut store = open(&flash).0;
    let modules: Vec<_> = (1..=5).map(|version| module(version, 3_500)).collect();
    for module in modules[..3].iter() {
        install(&mut store, module).expect("there is room");
    }
    let before = flash.chip.borrow().bytes.clone();
    let full = StoreError::Full { bytes: 4 << 10, free: 0 };
    assert_eq!(install(&mut store, &modules[3]), Err(full));
    assert_eq!(full.to_string(), "the module needs 4096 contiguous bytes of flash, 0 are free");
    assert_eq!(flash.chip.borrow().bytes, before, "nothing was erased");
    for version in 3..5 {
        store.remove(&modules[version - 3].0.id).expect("there is power");
        install(&mut store, &modules[version]).expect("there is room again");
    }
    assert_eq!(open(&flash).1, [3, 4, 5]);
    let large = module(6, CODE_MAX as usize + 1);
    assert_eq!(store.reserve(&large.0), Err(StoreError::TooLarge { bytes: CODE_MAX + 1, max: CODE_MAX }));
}

#[test]
fn what_is_not_as_it_was_signed_is_not_kept_and_not_found() {
    let flash = Nor::new();
    let mut store = open(&flash).0;
    let (signed, code) = module(1, 3_000);
    store.reserve(&signed).expect("there is room");
    store.put_chunk(signed.id, 0, code[..2_048].to_vec()).expect("there is power");
    assert_eq!(store.check(&signed), Err(StoreError::BadCode), "half of it");
    assert_eq!(store.put_chunk(signed.id, 1, alloc::vec![0; 953]), Err(StoreError::BadCode), "too long");
    assert_eq!(store.put_chunk(signed.id, u32::MAX, alloc::vec![0; 8]), Err(StoreError::BadCode), "far away");
    assert_eq!(store.put_chunk(module(2, 10).0.id, 0, Vec::new()), Err(StoreError::Missing));
    install(&mut store, &(signed.clone(), code)).expect("from the start");
    let found = |flash: &Nor, key: DeployPublic| {
        let mut all = Vec::new();
        Store::new(flash.clone(), CODE_MAX).find(&key, |found| all.push(found.err()));
        all
    };
    assert_eq!(found(&flash, public()), [None]);
    assert_eq!(found(&flash, DeployPublic([9; 32])), [Some(StoreError::BadManifest)]);
    let damaged = flash.restored();
    damaged.chip.borrow_mut().bytes[1_500] ^= 1;
    assert_eq!(found(&damaged, public()), [Some(StoreError::BadCode)]);
}
