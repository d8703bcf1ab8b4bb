//! Reads the sections of a Wasm binary without validating or instantiating it.

use alloc::vec::Vec;
use core::iter;

use broccoli_abi::{ABI_VERSION, Function, Functions, SECTION_ABI, SECTION_TASKS};

use crate::LoadError;

const HEADER: [u8; 8] = *b"\0asm\x01\0\0\0";
const ID_CUSTOM: u8 = 0;
const ID_START: u8 = 8;

/// The functions that a module describes. Reads nothing else, so [`Engine::load`](crate::Engine::load) may still refuse
/// the module.
///
/// # Errors
/// The file is not Wasm, has another ABI version, or has a malformed description.
pub fn functions(wasm: &[u8]) -> Result<Functions, LoadError> {
    Ok(Sections::read(wasm)?.functions)
}

/// Data of the sections that the Wasm engine does not read.
pub(crate) struct Sections {
    pub(crate) functions: Functions,
    pub(crate) has_start: bool,
}

impl Sections {
    pub(crate) fn read(wasm: &[u8]) -> Result<Self, LoadError> {
        // A linker joins the sections of several objects. Other tools may leave them separate.
        let (mut abi, mut tasks) = (Vec::new(), Vec::new());
        let mut has_start = false;
        for section in sections(wasm)? {
            let (id, mut content) = section?;
            has_start |= id == ID_START;
            if id == ID_CUSTOM {
                let name = sized(&mut content).ok_or(LoadError::Truncated)?;
                if name == SECTION_ABI.as_bytes() {
                    abi.extend_from_slice(content);
                } else if name == SECTION_TASKS.as_bytes() {
                    tasks.extend_from_slice(content);
                }
            }
        }
        match abi.iter().find(|&&version| version != ABI_VERSION) {
            Some(&version) => return Err(LoadError::AbiVersion(version)),
            None if abi.is_empty() => return Err(LoadError::MissingSection(SECTION_ABI)),
            None => {}
        }
        let functions = Function::decode_section(&tasks).map_err(LoadError::Describe)?;
        if functions.is_empty() {
            return Err(LoadError::MissingSection(SECTION_TASKS));
        }
        Ok(Self { functions, has_start })
    }
}

/// The ids and the contents of all sections.
pub(crate) fn sections(wasm: &[u8]) -> Result<impl Iterator<Item = Result<(u8, &[u8]), LoadError>>, LoadError> {
    let mut rest = wasm.strip_prefix(&HEADER).ok_or(LoadError::NotWasm)?;
    Ok(iter::from_fn(move || {
        let (&id, after) = rest.split_first()?;
        rest = after;
        let content = sized(&mut rest);
        if content.is_none() {
            rest = &[];
        }
        Some(content.map(|content| (id, content)).ok_or(LoadError::Truncated))
    }))
}

/// Takes a length and that many bytes off the front.
pub(crate) fn sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(leb_u32(rest)?).ok()?;
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

/// Takes an unsigned LEB128 number of at most 32 bits off the front.
pub(crate) fn leb_u32(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok();
        }
    }
    None
}
