//! JSON as Go's encoding/json reads and writes it: what it refuses, in its own words.

use std::collections::BTreeMap;
use std::fmt::Write;

/// A JSON value. An object keeps its keys in the order of the text, repeated ones too.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it was written.
    Number(String),
    /// A string, its escapes resolved.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

/// Go stops at 10,000; a test's thread has less stack than a goroutine.
const DEPTH: usize = 500;

/// One JSON value and nothing but white space around it, or Go's words for what is wrong.
pub fn parse(text: &[u8]) -> Result<Json, String> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    reader.space();
    let value = reader.value()?;
    reader.space();
    match reader.peek() {
        None => Ok(value),
        Some(byte) => Err(invalid(byte, "after top-level value")),
    }
}

/// The object of a map of strings: sorted keys, and `<`, `>`, `&` escaped as HTML needs it.
pub fn object(map: &BTreeMap<String, String>) -> String {
    let pairs = map.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value)));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a string grows");
            }
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

fn invalid(byte: u8, context: &str) -> String {
    let shown = match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        // Go shows the byte as the code point of its number.
        _ => format!("'{}'", char::from(byte)),
    };
    format!("invalid character {shown} {context}")
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, String> {
        let byte = self.peek().ok_or_else(|| "unexpected end of JSON input".to_owned())?;
        self.at += 1;
        Ok(byte)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Result<Json, String> {
        match self.next()? {
            b'{' => self.nested(Self::object),
            b'[' => self.nested(Self::array),
            b'"' => self.string().map(Json::Text),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'n' => self.word("null", Json::Null),
            byte @ (b'-' | b'0'..=b'9') => self.number(byte),
            byte => Err(invalid(byte, "looking for beginning of value")),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Json, String>) -> Result<Json, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Json, String> {
        let mut pairs = Vec::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(pairs));
        }
        loop {
            self.space();
            match self.next()? {
                b'"' => {}
                byte => return Err(invalid(byte, "looking for beginning of object key string")),
            }
            let key = self.string()?;
            self.space();
            match self.next()? {
                b':' => {}
                byte => return Err(invalid(byte, "after object key")),
            }
            self.space();
            pairs.push((key, self.value()?));
            self.space();
            match self.next()? {
                b',' => {}
                b'}' => return Ok(Json::Object(pairs)),
                byte => return Err(invalid(byte, "after object key:value pair")),
            }
        }
    }

    fn array(&mut self) -> Result<Json, String> {
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(items));
        }
        loop {
            self.space();
            items.push(self.value()?);
            self.space();
            match self.next()? {
                b',' => {}
                b']' => return Ok(Json::Array(items)),
                byte => return Err(invalid(byte, "after array element")),
            }
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, String> {
        for expected in word.bytes().skip(1) {
            let byte = self.next()?;
            if byte != expected {
                let expected = char::from(expected);
                return Err(invalid(byte, &format!("in literal {word} (expecting '{expected}')")));
            }
        }
        Ok(value)
    }

    fn number(&mut self, first: u8) -> Result<Json, String> {
        let start = self.at - 1;
        let leading = if first == b'-' { self.digit("in numeric literal")? } else { first };
        if leading != b'0' {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        Ok(Json::Number(String::from_utf8_lossy(text).into_owned()))
    }

    fn digit(&mut self, context: &str) -> Result<u8, String> {
        match self.next()? {
            byte if byte.is_ascii_digit() => Ok(byte),
            byte => Err(invalid(byte, context)),
        }
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Result<String, String> {
        let mut units = Vec::new();
        let mut bytes = Vec::new();
        loop {
            let byte = self.next()?;
            if byte != b'\\' && !units.is_empty() {
                bytes.extend(String::from_utf16_lossy(&units).into_bytes());
                units.clear();
            }
            match byte {
                b'"' => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                b'\\' => match self.escape()? {
                    Escape::Unit(unit) => units.push(unit),
                    Escape::Byte(byte) => {
                        bytes.extend(String::from_utf16_lossy(&units).into_bytes());
                        units.clear();
                        bytes.push(byte);
                    }
                },
                0..0x20 => return Err(invalid(byte, "in string literal")),
                _ => bytes.push(byte),
            }
        }
    }

    fn escape(&mut self) -> Result<Escape, String> {
        let byte = self.next()?;
        Ok(Escape::Byte(match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut unit = 0;
                for _ in 0..4 {
                    let byte = self.next()?;
                    let digit = char::from(byte).to_digit(16);
                    let digit = digit.and_then(|d| u16::try_from(d).ok());
                    let digit = digit.ok_or_else(|| invalid(byte, "in \\u hexadecimal character escape"))?;
                    unit = unit * 16 + digit;
                }
                return Ok(Escape::Unit(unit));
            }
            _ => return Err(invalid(byte, "in string escape code")),
        }))
    }
}

/// What stands behind a backslash.
enum Escape {
    Byte(u8),
    /// A UTF-16 unit, perhaps half of a pair.
    Unit(u16),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_in_gos_words() {
        let cases = [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            (r#"{"a""#, "unexpected end of JSON input"),
            ("warning: x", "invalid character 'w' looking for beginning of value"),
            ("{} {}", "invalid character '{' after top-level value"),
            ("{}x", "invalid character 'x' after top-level value"),
            ("{a}", "invalid character 'a' looking for beginning of object key string"),
            (r#"{"a",}"#, "invalid character ',' after object key"),
            (r#"{"a":1 2}"#, "invalid character '2' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("nul!", "invalid character '!' in literal null (expecting 'l')"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            (r#""\x""#, "invalid character 'x' in string escape code"),
            (r#""\u00g0""#, "invalid character 'g' in \\u hexadecimal character escape"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("01", "invalid character '1' after top-level value"),
            ("{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
        ];
        for (text, expect) in cases {
            assert_eq!(parse(text.as_bytes()), Err(expect.to_owned()), "{text}");
        }
        let deep = "[".repeat(DEPTH + 1);
        assert_eq!(parse(deep.as_bytes()), Err("exceeded max depth".to_owned()));
    }

    #[test]
    fn values_are_read() {
        let text = |s: &str| Json::Text(s.to_owned());
        let cases = [
            (" \t\r\n{} \n", Json::Object(Vec::new())),
            ("[true,null]", Json::Array(vec![Json::Bool(true), Json::Null])),
            ("-1.5e+3", Json::Number("-1.5e+3".to_owned())),
            (r#""a\"\\\/\n\u00e9\ud83d\ude00z""#, text("a\"\\/\né😀z")),
            (r#""\ud83d-""#, text("\u{fffd}-")),
            (r#"{"a":1,"a":"2"}"#, {
                let one = ("a".to_owned(), Json::Number("1".to_owned()));
                Json::Object(vec![one, ("a".to_owned(), text("2"))])
            }),
        ];
        for (given, expect) in cases {
            assert_eq!(parse(given.as_bytes()), Ok(expect), "{given}");
        }
        assert_eq!(parse(b"\"a\xffb\""), Ok(text("a\u{fffd}b")));
    }

    #[test]
    fn maps_are_written_sorted_and_escaped() {
        let pairs = [("b", "<&>\"\\"), ("a\"", "é\n\u{1}\u{2028}\u{7f}"), ("B", "")];
        let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let expect =
            "{\"B\":\"\",\"a\\\"\":\"é\\n\\u0001\\u2028\u{7f}\",\"b\":\"\\u003c\\u0026\\u003e\\\"\\\\\"}";
        assert_eq!(object(&map), expect);
    }
}
