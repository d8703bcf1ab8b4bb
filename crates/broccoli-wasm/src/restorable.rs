//! Whether an instance of a module can be made fresh again from outside.
//!
//! Its memory can. Its globals can, if all are exported. What else instructions can change, tables and dropped
//! segments, is out of reach, so a module with such an instruction gets a new instance for each run.

use crate::section::{leb_u32, sections, sized};

const ID_GLOBAL: u8 = 6;
const ID_EXPORT: u8 = 7;
const ID_CODE: u8 = 10;

/// The kind of an exported global.
const KIND_GLOBAL: u8 = 3;

/// Whether the host can restore all that a run of this module can change. The module is valid.
pub(crate) fn is_restorable(wasm: &[u8]) -> bool {
    let (mut globals, mut exported) = (0, 0u64);
    let Ok(sections) = sections(wasm) else { return false };
    for section in sections {
        let Ok((id, mut content)) = section else { return false };
        match id {
            ID_GLOBAL => globals = leb_u32(&mut content).unwrap_or(u32::MAX),
            ID_EXPORT => exported = exported_globals(content).unwrap_or(0),
            ID_CODE if skip_functions(content).is_none() => return false,
            _ => {}
        }
    }
    // No global is imported, so these are all.
    exported.count_ones() == globals
}

/// The indices of the exported globals below 64, as bits.
fn exported_globals(mut exports: &[u8]) -> Option<u64> {
    let mut found = 0;
    for _ in 0..leb_u32(&mut exports)? {
        sized(&mut exports)?;
        let kind = byte(&mut exports)?;
        let index = leb_u32(&mut exports)?;
        if kind == KIND_GLOBAL {
            found |= 1u64.checked_shl(index).unwrap_or(0);
        }
    }
    Some(found)
}

/// Skips functions. None if one of their instructions is unknown, or changes what cannot be restored.
fn skip_functions(mut code: &[u8]) -> Option<()> {
    for _ in 0..leb_u32(&mut code)? {
        let mut body = sized(&mut code)?;
        for _ in 0..leb_u32(&mut body)? {
            // The number of these locals, and their type.
            skip_numbers(&mut body, 2)?;
        }
        while !body.is_empty() {
            skip_instruction(&mut body)?;
        }
    }
    Some(())
}

/// Skips an instruction. Types are as long as numbers.
fn skip_instruction(code: &mut &[u8]) -> Option<()> {
    let numbers = match byte(code)? {
        // Without operands: control, drop, select, numeric, ref.is_null.
        0x00 | 0x01 | 0x05 | 0x0b | 0x0f | 0x1a | 0x1b | 0x45..=0xc4 | 0xd1 => 0,
        // Blocks, branches, call; variables, table.get; memory.size and memory.grow, integers; ref.null, ref.func.
        0x02..=0x04 | 0x0c | 0x0d | 0x10 | 0x20..=0x25 | 0x3f..=0x42 | 0xd0 | 0xd2 => 1,
        // call_indirect, loads and stores.
        0x11 | 0x28..=0x3e => 2,
        // br_table, select with types.
        0x0e => leb_u32(code)?.checked_add(1)?,
        0x1c => leb_u32(code)?,
        // Floats.
        0x43 => return skip(code, 4),
        0x44 => return skip(code, 8),
        0xfc => match leb_u32(code)? {
            // Floats to integers, memory.copy, memory.fill, table.size.
            0x00..=0x07 => 0,
            0x0a => 2,
            0x0b | 0x10 => 1,
            // memory.init reads what data.drop drops. The others change tables.
            _ => return None,
        },
        // table.set, and what the engine does not have.
        _ => return None,
    };
    skip_numbers(code, numbers)
}

/// Skips this many LEB128 numbers.
fn skip_numbers(code: &mut &[u8], numbers: u32) -> Option<()> {
    for _ in 0..numbers {
        while byte(code)? & 0x80 != 0 {}
    }
    Some(())
}

fn skip(code: &mut &[u8], bytes: usize) -> Option<()> {
    *code = code.get(bytes..)?;
    Some(())
}

fn byte(code: &mut &[u8]) -> Option<u8> {
    let (&byte, after) = code.split_first()?;
    *code = after;
    Some(byte)
}
