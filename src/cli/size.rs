//! Sizes as people write and read them: `256MiB`, `8GiB`, `1GB`, or plain bytes.

use bytesize::ByteSize;

use crate::vocab::ByteCount;

/// What a size must be.
const RULE: &str = "a size such as 256MiB, 8GiB, 1GB, or a plain number of bytes";

/// A size that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value:?}, it must be {RULE}")]
pub struct SizeError {
    /// Which flag or configuration field.
    pub field: String,
    /// What it held.
    pub value: String,
}

/// A parser for one flag or field, as clap wants it: `#[arg(value_parser = size::parser("ram"))]`.
pub fn parser(field: &'static str) -> impl Fn(&str) -> Result<ByteCount, SizeError> + Clone + Send + Sync + 'static {
    move |text| parse(field, text)
}

/// Reads a size. Units are binary (`KiB`, `MiB`, `GiB`, `TiB`) or decimal (`kB`, `MB`, `GB`, `TB`), in any case.
///
/// # Errors
/// When it is not a size, is negative, or does not fit 64 bits.
pub fn parse(field: &str, text: &str) -> Result<ByteCount, SizeError> {
    let refuse = || SizeError { field: field.to_owned(), value: text.to_owned() };
    let size: ByteSize = text.trim().parse().map_err(|_| refuse())?;
    // What does not fit is saturated by bytesize: a silent change of what was asked.
    if size.0 == u64::MAX { Err(refuse()) } else { Ok(ByteCount(size.0)) }
}

/// A size for people: binary units, a decimal only where it is not whole.
#[must_use]
pub fn human(bytes: ByteCount) -> String {
    const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = (63 - bytes.0.max(1).leading_zeros() as usize) / 10;
    let scaled = |unit: usize| bytes.0 as f64 / (1_u64 << (10 * unit)) as f64;
    // 1023.97 MiB would read "1024.0 MiB".
    if unit > 0 && unit + 1 < UNITS.len() && scaled(unit) >= 1_023.95 {
        unit += 1;
    }
    let whole = bytes.0.is_multiple_of(1 << (10 * unit));
    format!("{:.*} {}", usize::from(!whole), scaled(unit), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        let cases = [
            ("256MiB", 256 << 20),
            ("8GiB", 8 << 30),
            ("64KiB", 64 << 10),
            ("1GB", 1_000_000_000),
            ("1.5 GiB", 3 << 29),
            ("8gib", 8 << 30),
            ("30TB", 30_000_000_000_000),
            ("4096", 4_096),
            ("512B", 512),
            ("0", 0),
            ("9007199254740993", 9_007_199_254_740_993),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse("ram", text), Ok(ByteCount(bytes)), "{text}");
        }
    }

    #[test]
    fn a_bad_size_names_field_value_and_rule() {
        let error = parser("ram")("12 parsecs").unwrap_err();
        assert_eq!(
            error.to_string(),
            "ram is \"12 parsecs\", it must be a size such as 256MiB, 8GiB, 1GB, or a plain number of bytes"
        );
        for text in ["", "-1", "GiB", "1.2.3MiB", "99999999EiB", "1e9", "NaN", "inf"] {
            assert!(parse("ram", text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_binary_units() {
        let cases = [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (1 << 10, "1 KiB"),
            (1_536, "1.5 KiB"),
            (256 << 20, "256 MiB"),
            ((1 << 30) - 1, "1.0 GiB"),
            (1_000_000_000, "953.7 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human(ByteCount(bytes)), text);
        }
    }

    #[test]
    fn whole_sizes_read_back() {
        for bytes in [1_u64 << 10, 3 << 20, 7 << 30, 5 << 40] {
            assert_eq!(parse("x", &human(ByteCount(bytes))), Ok(ByteCount(bytes)));
        }
    }
}
