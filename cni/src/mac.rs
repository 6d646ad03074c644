//! A hardware address that a link may have.

use std::fmt;
use std::str::FromStr;

/// Six bytes: never a multicast address and never all zero, neither of which a link can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac([u8; 6]);

impl Mac {
    /// The bytes, first on the wire first.
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&pairs.join(":"))
    }
}

impl FromStr for Mac {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const SHAPE: &str = "six pairs of hex digits with `:` between them";
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut parts = text.split(separator);
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let pair = parts.next().ok_or(SHAPE)?;
            // `from_str_radix` alone would take a sign.
            if pair.len() != 2 || !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(SHAPE);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| SHAPE)?;
        }
        let [first, ..] = bytes;
        match () {
            () if parts.next().is_some() => Err(SHAPE),
            () if first & 1 == 1 => Err("it is a multicast address"),
            () if bytes == [0; 6] => Err("it is all zero"),
            () => Ok(Self(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_and_what_no_link_can_take_is_refused() {
        for (text, shown) in
            [("0a:58:0a:00:00:01", "0a:58:0a:00:00:01"), ("0A-58-0A-00-00-FF", "0a:58:0a:00:00:ff")]
        {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "0a:58:0a:00:00",
            "0a:58:0a:00:00:01:02",
            "+a:58:0a:00:00:01",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
