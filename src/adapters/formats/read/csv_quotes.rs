//! Whether a quoted value of CSV is open.
//!
//! arrow's decoder takes the end of a body for the end of an open value: everything after a quote that is never closed would
//! be one value, or lost with its record. So quotes are followed beside the decoder, by the same rules (RFC 4180): a value is
//! quoted if it begins with a quote, and two quotes within it are one of its characters.

/// Follows the quotes of a body that comes in pieces.
#[derive(Debug)]
pub struct QuoteTracker {
    open: bool,
    /// Bytes seen before the present piece.
    seen: u64,
    /// The last byte of the piece before, at first as if a line had ended.
    last: u8,
    /// Where a value was closed last.
    closed_at: Option<u64>,
}

impl Default for QuoteTracker {
    fn default() -> Self {
        Self { open: false, seen: 0, last: b'\n', closed_at: None }
    }
}

impl QuoteTracker {
    /// Follows the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        // Most pieces have none, which is found out faster than byte by byte.
        let searched = if bytes.contains(&b'"') { bytes } else { &[] };
        for (at, _) in searched.iter().enumerate().filter(|(_, byte)| **byte == b'"') {
            let (place, before) = (self.seen + at as u64, if at == 0 { self.last } else { bytes[at - 1] });
            if self.open {
                (self.open, self.closed_at) = (false, Some(place));
            } else {
                // A quote right behind the one that closed belongs to the value after all.
                self.open =
                    matches!(before, b',' | b'\n' | b'\r') || self.closed_at.is_some_and(|closed| closed + 1 == place);
            }
        }
        self.seen += bytes.len() as u64;
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    /// Returns whether a quoted value has begun and not ended.
    pub fn is_open(&self) -> bool {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::formats::read::csv_quotes::QuoteTracker;

    #[test]
    fn values_are_open_until_their_quote_whatever_the_pieces() {
        for (text, open) in [
            ("a,b\n1,2\n", false),
            ("a\n\"x\ny\"\n", false),
            ("a\n\"x\n1\n2\n", true),
            ("a\n\"x\"\"y\"\n", false),
            ("a\n\"x\"\"\n2\n", true),
            ("a,b\n5\" disk,2\n", false),
            ("\"a\",\"b", true),
            ("a\n\"\"\n", false),
            ("a\n\"\"\"\n", true),
        ] {
            for size in 1..=text.len() {
                let mut quotes = QuoteTracker::default();
                text.as_bytes().chunks(size).for_each(|piece| quotes.push(piece));
                assert_eq!(quotes.is_open(), open, "{text:?} in pieces of {size}");
            }
        }
    }
}
