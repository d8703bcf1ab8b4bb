//! The example module `lights`: tasks that use the board of their node.
#![no_std]

use broccoli_sdk::board::{self, BoardError};
use broccoli_sdk::prelude::*;

/// Length of a dot; a dash takes three.
const DOT_MS: u32 = 100;

/// Morse code of the digits, and of the letters that the example knows.
const MORSE: [(char, &str); 13] = [
    ('0', "-----"),
    ('1', ".----"),
    ('2', "..---"),
    ('3', "...--"),
    ('4', "....-"),
    ('5', "....."),
    ('6', "-...."),
    ('7', "--..."),
    ('8', "---.."),
    ('9', "----."),
    ('E', "."),
    ('O', "---"),
    ('S', "..."),
];

/// Blinks digits and SOS in Morse code with the LED.
#[task]
fn morse(text: &str) -> Result<(), BoardError> {
    for letter in text.chars() {
        let code = MORSE.iter().find(|(known, _)| *known == letter).map_or("", |(_, code)| code);
        for sign in code.chars() {
            board::led(true)?;
            sleep_ms(if sign == '.' { DOT_MS } else { 3 * DOT_MS });
            board::led(false)?;
            sleep_ms(DOT_MS);
        }
        sleep_ms(2 * DOT_MS);
    }
    Ok(())
}

/// Makes one pin like another, and gives its level.
#[task]
fn copy_pin(from: u16, to: u16) -> Result<bool, BoardError> {
    let high = board::gpio_read(from)?;
    board::gpio_write(to, high)?;
    Ok(high)
}

/// Voltage of a channel in millivolts, and temperature in thousandths of a degree Celsius.
#[task]
fn measure(channel: u8) -> Result<(i32, i32), BoardError> {
    Ok((board::adc_read(channel)?, board::temperature()?))
}
