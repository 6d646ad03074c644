//! What the value of an option may look like.

/// The shape of a value. Every one is a closed set or plain letters and digits, so that no value can carry
/// a separator or a path.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// No value.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// No value, or one of these words.
    FlagOr(&'static [&'static str]),
    /// Some of these words, joined by colons.
    Words(&'static [&'static str]),
    /// No value, or one of these words with an optional level from 1 to 15 behind a colon.
    Level(&'static [&'static str]),
    /// A whole number within these bounds.
    Number(u64, u64),
    /// Bytes within these bounds, with k, m or g.
    Size(u64, u64),
    /// Permissions in octal.
    Mode,
    /// A user's or group's id.
    Id,
    /// The name of a character set.
    Charset,
}

impl Shape {
    /// Checks a value; the error says what to write.
    pub(super) fn check(self, value: Option<&str>) -> Result<(), String> {
        if self.fits(value) { Ok(()) } else { Err(self.write()) }
    }

    fn fits(self, value: Option<&str>) -> bool {
        let Some(value) = value else {
            return matches!(self, Self::Flag | Self::FlagOr(_) | Self::Level(_));
        };
        match self {
            Self::Flag => false,
            Self::Word(words) | Self::FlagOr(words) => words.contains(&value),
            Self::Words(words) => value.split(':').all(|word| words.contains(&word)),
            Self::Level(words) => {
                let (word, level) = value.split_once(':').unwrap_or((value, "1"));
                words.contains(&word) && number(level).is_some_and(|n| (1..=15).contains(&n))
            }
            Self::Number(least, most) => number(value).is_some_and(|n| (least..=most).contains(&n)),
            Self::Size(least, most) => size(value).is_some_and(|n| (least..=most).contains(&n)),
            Self::Mode => (1..=4).contains(&value.len()) && value.bytes().all(|b| matches!(b, b'0'..=b'7')),
            Self::Id => number(value).is_some_and(|n| n < u64::from(u32::MAX)),
            Self::Charset => {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
                (1..=32).contains(&value.len())
                    && value.bytes().all(plain)
                    && value.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            }
        }
    }

    fn write(self) -> String {
        match self {
            Self::Flag => "write it without a value".to_owned(),
            Self::Word(words) => format!("write {}", words.join(" or ")),
            Self::FlagOr(words) => format!("write it without a value or with {}", words.join(" or ")),
            Self::Words(words) => format!("write some of {}, joined by colons", words.join(", ")),
            Self::Level(words) => format!(
                "write {}, with a level as in {}:3 or without",
                words.join(" or "),
                words.first().unwrap_or(&"")
            ),
            Self::Number(least, most) => format!("write a whole number from {least} to {most}"),
            Self::Size(least, most) => format!("write bytes from {least} to {most}, such as 64k or 1m"),
            Self::Mode => "write octal digits such as 0770".to_owned(),
            Self::Id => "write a number such as 1000".to_owned(),
            Self::Charset => "write a character set such as utf8".to_owned(),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    Some(text).filter(|t| t.bytes().all(|b| b.is_ascii_digit())).and_then(|t| t.parse().ok())
}

fn size(text: &str) -> Option<u64> {
    let units = [(['k', 'K'], 10), (['m', 'M'], 20), (['g', 'G'], 30)];
    let unit = units.into_iter().find_map(|(letter, shift)| Some((text.strip_suffix(letter)?, shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    number(digits)?.checked_mul(1 << shift)
}
