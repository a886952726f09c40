//! Numbers as text: their digits, without what a double would make of them.
//!
//! A decimal text is a sign, its significant digits and a power of ten. Two texts mean the same number exactly if these
//! are equal, so whether a float or decimal holds what was written is a comparison of digits, never of rounded values.

use arrow::datatypes::i256;

/// Significant digits that always survive in a double and in a float (C's `DBL_DIG`, `FLT_DIG`).
const F64_DIGITS: usize = 15;
const F32_DIGITS: usize = 6;

/// Significant digits beyond which no double or float is meant any more (IEEE 754: 17 and 9 tell all of them apart).
const F64_DIGITS_MAX: usize = 17;
const F32_DIGITS_MAX: usize = 9;

/// A number as it is written: `digits × 10^exponent`, without leading and trailing zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecimalText {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl DecimalText {
    /// Parses `[+-]digits[.digits][e[+-]digits]`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let negative = text.starts_with('-');
        let text = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !are_digits(whole) || !are_digits(fraction) {
            return None;
        }
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0');
        let exponent = i64::from(exponent) - i64::try_from(fraction.len()).ok()?;
        let kept = digits.trim_end_matches('0');
        let exponent = exponent + i64::try_from(digits.len() - kept.len()).ok()?;
        let is_zero = kept.is_empty();
        Some(Self {
            negative: negative && !is_zero,
            digits: kept.to_owned(),
            exponent: if is_zero { 0 } else { exponent },
        })
    }

    /// Returns the number of significant digits; 0 for zero.
    pub fn significant(&self) -> usize {
        self.digits.len()
    }

    /// Returns precision and scale of the narrowest decimal that holds it, if any does.
    pub fn decimal_type(&self) -> Option<(u8, i8)> {
        let scale = i8::try_from((-self.exponent).max(0)).ok()?;
        let whole = i64::try_from(self.digits.len()).ok()? + self.exponent;
        let precision = u8::try_from(whole.max(0) + i64::from(scale)).ok()?.max(1);
        (precision <= arrow::datatypes::DECIMAL256_MAX_PRECISION).then_some((precision, scale))
    }

    /// Writes it without an exponent.
    pub fn plain(&self) -> String {
        let sign = if self.negative { "-" } else { "" };
        let Ok(exponent) = usize::try_from(self.exponent) else {
            let places = usize::try_from(-self.exponent).unwrap_or(usize::MAX);
            let padded = format!("{:0>width$}", self.digits, width = places + 1);
            let (whole, fraction) = padded.split_at(padded.len() - places);
            return format!("{sign}{whole}.{fraction}");
        };
        format!("{sign}{}{}", if self.digits.is_empty() { "0" } else { &self.digits }, "0".repeat(exponent))
    }

    /// Returns its digits at `scale`, if a decimal of `precision` holds all of them.
    fn scaled(&self, precision: u8, scale: i8) -> Option<String> {
        let zeros = self.exponent + i64::from(scale);
        if self.digits.is_empty() {
            return Some("0".to_owned());
        }
        let zeros = usize::try_from(zeros).ok()?;
        if self.digits.len().checked_add(zeros)? > usize::from(precision) {
            return None;
        }
        let sign = if self.negative { "-" } else { "" };
        Some(format!("{sign}{}{}", self.digits, "0".repeat(zeros)))
    }

    /// Returns the value of a DECIMAL128 of `precision` and `scale`, if it holds the number exactly.
    pub fn scaled_i128(&self, precision: u8, scale: i8) -> Option<i128> {
        self.scaled(precision, scale)?.parse().ok()
    }

    /// Returns the value of a DECIMAL256 of `precision` and `scale`, if it holds the number exactly.
    pub fn scaled_i256(&self, precision: u8, scale: i8) -> Option<i256> {
        i256::from_string(&self.scaled(precision, scale)?)
    }
}

/// Returns whether `value` is the double that `text` means: all of its digits are there when it is written again.
pub fn holds_f64(value: f64, text: &str) -> bool {
    // Most numbers are short, and fifteen digits always survive.
    if text.len() <= F64_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'-') {
        return true;
    }
    let written = |places| format!("{value:.places$e}");
    holds(value.is_finite(), value.is_infinite(), text, [F64_DIGITS, F64_DIGITS_MAX], written)
}

/// Returns whether `value` is the float that `text` means.
pub fn holds_f32(value: f32, text: &str) -> bool {
    let written = |places| format!("{value:.places$e}");
    holds(value.is_finite(), value.is_infinite(), text, [F32_DIGITS, F32_DIGITS_MAX], written)
}

fn holds(
    is_finite: bool,
    is_infinite: bool,
    text: &str,
    [always, most]: [usize; 2],
    written: impl Fn(usize) -> String,
) -> bool {
    let Some(number) = DecimalText::parse(text) else {
        // Words: NaN, inf, Infinity. A word is what it says.
        return !is_finite;
    };
    if is_infinite || !is_finite {
        return false;
    }
    let digits = number.significant();
    // Few digits always survive, but where the number is too small to have that many bits.
    if digits <= always && (-30..30).contains(&number.exponent) {
        return true;
    }
    let places = digits.clamp(1, most.max(digits)) - 1;
    DecimalText::parse(&written(places)).is_some_and(|again| again == number)
}

#[cfg(test)]
mod tests {
    use crate::domain::storage::number_text::{DecimalText, holds_f32, holds_f64};

    #[test]
    fn texts_are_digits_and_a_power_of_ten() {
        for (text, plain) in [
            ("0", "0"),
            ("-0.00", "0"),
            ("1.50", "1.5"),
            ("+007", "7"),
            ("1e3", "1000"),
            ("-1.25E-2", "-0.0125"),
            (".5", "0.5"),
            ("5.", "5"),
            ("9007199254740993.0", "9007199254740993"),
        ] {
            assert_eq!(DecimalText::parse(text).unwrap().plain(), plain, "{text}");
        }
        for wrong in ["", ".", "-", "1e", "1.2.3", "abc", "0x1", "1_000", "e5", "--1"] {
            assert_eq!(DecimalText::parse(wrong), None, "{wrong}");
        }
        assert_eq!(DecimalText::parse("12345678901234567.891").unwrap().decimal_type(), Some((20, 3)));
        assert_eq!(DecimalText::parse("0.001").unwrap().decimal_type(), Some((3, 3)));
        assert_eq!(DecimalText::parse("1e80").unwrap().decimal_type(), None);
    }

    #[test]
    fn floats_hold_what_they_write_again() {
        let f64_of = |text: &str| holds_f64(text.parse().unwrap(), text);
        for text in [
            "0.1",
            "1e300",
            "0.30000000000000004",
            "9007199254740992",
            "-0.0",
            "5e-324",
            "1.7976931348623157e308",
            "0.5000000000000000000000000",
        ] {
            assert!(f64_of(text), "{text}");
        }
        for text in ["9007199254740993", "0.1234567890123456789", "1e400", "1e-400", "123456789012345678"] {
            assert!(!f64_of(text), "{text}");
        }
        let f32_of = |text: &str| holds_f32(text.parse().unwrap(), text);
        assert!(f32_of("0.1") && f32_of("16777216") && f32_of("3.4028235e38") && f32_of("inf"));
        assert!(!f32_of("16777217") && !f32_of("0.30000000000000004") && !f32_of("1e39") && !f32_of("123456789"));
    }
}
