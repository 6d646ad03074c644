//! Amounts of bytes as Kubernetes writes them
//! (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>).

use std::fmt;
use std::str::FromStr;

const BINARY: [(&str, u128); 6] =
    [("Ei", 1 << 60), ("Pi", 1 << 50), ("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];

const DECIMAL: [(&str, u128); 7] = [
    ("E", 1_000_000_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
    ("", 1),
];

/// A number of bytes, at least one: no filesystem means nothing by a size of 0, and tmpfs means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(u64);

impl Quantity {
    /// `count` times 2^20 bytes.
    pub const fn mebibytes(count: u32) -> Self {
        Self(if count == 0 { 1 } else { (count as u64) << 20 })
    }

    /// `count` times 2^30 bytes.
    pub const fn gibibytes(count: u32) -> Self {
        Self(if count == 0 { 1 } else { (count as u64) << 30 })
    }

    /// So many bytes; 0 becomes 1.
    pub const fn of(bytes: u64) -> Self {
        Self(if bytes == 0 { 1 } else { bytes })
    }

    /// The bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Quantity {
    type Err = String;

    /// Reads `64Mi`, `1G`, `1.5Gi`, `1e6`, `500k` or plain bytes; a broken byte counts whole, as it does
    /// for Kubernetes. The error says what to write instead.
    fn from_str(text: &str) -> Result<Self, String> {
        let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
        let (number, suffix) = text.split_at_checked(end).unwrap_or((text, ""));
        let (digits, places) = mantissa(number)?;
        let (factor, tenths) = unit(number, suffix)?;
        let too_much = || format!("is more than {} bytes", u64::MAX);
        let scale = |power: u32| 10_u128.checked_pow(power).ok_or_else(too_much);
        let whole = digits.checked_mul(factor).ok_or_else(too_much)?;
        let power = i64::from(tenths) - i64::from(places);
        let bytes = match u32::try_from(power) {
            Ok(up) => whole.checked_mul(scale(up)?).ok_or_else(too_much)?,
            Err(_) => whole.div_ceil(scale(u32::try_from(power.unsigned_abs()).unwrap_or(u32::MAX))?),
        };
        match u64::try_from(bytes).map_err(|_| too_much())? {
            0 => Err("is nothing; write at least 1".to_owned()),
            bytes => Ok(Self(bytes)),
        }
    }
}

/// The digits without their point, and how many stood behind it.
fn mantissa(number: &str) -> Result<(u128, u32), String> {
    const SHAPE: &str =
        "is not a size; write bytes, or a number with Ki, Mi, Gi, Ti, k, M, G or T, such as 64Mi";
    if number.starts_with('-') {
        return Err("is less than nothing; write at least 1".to_owned());
    }
    let unsigned = number.strip_prefix('+').unwrap_or(number);
    let (whole, broken) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits: String = [whole, broken].concat();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SHAPE.to_owned());
    }
    if digits.len() > 24 {
        return Err("has more than 24 digits; write it with Mi or Gi".to_owned());
    }
    let value = digits.parse().map_err(|_| SHAPE.to_owned())?;
    Ok((value, u32::try_from(broken.len()).unwrap_or(u32::MAX)))
}

/// What the suffix multiplies by, and the power of ten of an exponent.
fn unit(number: &str, suffix: &str) -> Result<(u128, i32), String> {
    if let Some((_, factor)) = BINARY.iter().chain(&DECIMAL).find(|(name, _)| *name == suffix) {
        return Ok((*factor, 0));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).and_then(|power| power.parse::<i32>().ok());
    if let Some(power) = exponent.filter(|power| power.abs() <= 24) {
        return Ok((1, power));
    }
    let write = match suffix.trim().to_lowercase().as_str() {
        // The classic slip: `m` is a thousandth in Kubernetes.
        "m" => format!("counts thousandths of a byte; write {number}Mi"),
        "k" | "kb" | "ki" | "kib" => format!("has an unknown unit; write {number}Ki (or {number}k)"),
        "mb" | "mi" | "mib" => format!("has an unknown unit; write {number}Mi (or {number}M)"),
        "g" | "gb" | "gi" | "gib" => format!("has an unknown unit; write {number}Gi (or {number}G)"),
        "t" | "tb" | "ti" | "tib" => format!("has an unknown unit; write {number}Ti (or {number}T)"),
        "b" => format!("has an unknown unit; write {number}"),
        _ => {
            "has an unknown unit; write bytes, or one of Ki, Mi, Gi, Ti, k, M, G, T, such as 64Mi".to_owned()
        }
    };
    Err(write)
}

impl fmt::Display for Quantity {
    /// In the largest binary unit that divides it, else in bytes; it reads back as the same amount.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = u128::from(self.0);
        match BINARY.iter().find(|(_, factor)| bytes.is_multiple_of(*factor)) {
            Some((suffix, factor)) => write!(f, "{}{suffix}", bytes / factor),
            None => write!(f, "{bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_kubernetes_reads_them() {
        let table = [
            ("1", 1),
            ("4096", 4096),
            ("64Mi", 64 << 20),
            ("1.5Gi", 3 << 29),
            ("1G", 1_000_000_000),
            ("500k", 500_000),
            ("1e6", 1_000_000),
            ("1E6", 1_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("25e-1", 3),
            ("0.5Ki", 512),
            (".5Ki", 512),
            ("1.Ki", 1024),
            ("+1Ki", 1024),
            ("0.0001Ki", 1),
            ("15Ei", 15 << 60),
            ("18446744073709551615", u64::MAX),
            ("0001", 1),
        ];
        for (text, bytes) in table {
            assert_eq!(text.parse(), Ok(Quantity(bytes)), "{text}");
        }
    }

    #[test]
    fn an_error_says_what_to_write() {
        let table = [
            ("64m", "counts thousandths of a byte; write 64Mi"),
            ("64MB", "has an unknown unit; write 64Mi (or 64M)"),
            ("64 Mi", "has an unknown unit; write 64Mi (or 64M)"),
            ("64K", "has an unknown unit; write 64Ki (or 64k)"),
            ("64gb", "has an unknown unit; write 64Gi (or 64G)"),
            ("64b", "has an unknown unit; write 64"),
            ("64u", "has an unknown unit; write bytes"),
            ("1e99", "has an unknown unit"),
            ("1e", "has an unknown unit"),
            ("0", "is nothing"),
            ("0Gi", "is nothing"),
            ("-1Gi", "is less than nothing"),
            ("", "is not a size"),
            ("Mi", "is not a size"),
            (".", "is not a size"),
            ("1.2.3Mi", "is not a size"),
            ("1-2", "is not a size"),
            ("16Ei", "is more than"),
            ("1e24", "is more than"),
            ("1234567890123456789012345", "has more than 24 digits"),
            ("٣Mi", "is not a size"),
        ];
        for (text, expect) in table {
            let why = text.parse::<Quantity>().unwrap_err();
            assert!(why.starts_with(expect), "{text}: {why}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bytes in 1..=u64::MAX, shift in 0..64_u32) {
            let quantity = Quantity((bytes >> shift).max(1) << (shift / 2).min((bytes >> shift).max(1).leading_zeros()));
            prop_assert_eq!(quantity.to_string().parse(), Ok(quantity));
        }

        #[test]
        fn junk_is_never_more_than_an_error(text in "[0-9.eE+\\-kKMGTPi ]{0,30}|\\PC{0,12}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
