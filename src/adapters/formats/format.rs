//! The formats of results and their names.
//!
//! Each has our own name for `?format=` and ClickHouse's names for `?default_format=` and the FORMAT clause at the end of
//! a statement, which tools made for ClickHouse send.

/// Media type of an Arrow IPC stream.
pub const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// Media type of a Parquet file.
pub const PARQUET: &str = "application/vnd.apache.parquet";

/// A format of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object: columns, data as arrays, rows.
    Json,
    /// ClickHouse's `JSON`: meta, data as objects, rows, statistics.
    ClickHouse,
    /// ClickHouse's `JSONCompact`: the same, data as arrays.
    ClickHouseCompact,
    /// One JSON object for each row, a line each.
    Ndjson,
    /// Comma-separated values under a header line.
    Csv,
    /// CSV without the header line.
    CsvNoHeader,
    /// Tab-separated values under a header line, escaped as ClickHouse does it.
    Tsv,
    /// TSV without the header line.
    TsvNoHeader,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

/// Names of formats, ours first. ClickHouse's differ from ours by their case: `JSON` is not `json`.
const NAMES: [(&str, Format); 21] = [
    ("json", Format::Json),
    ("ndjson", Format::Ndjson),
    ("csv", Format::Csv),
    ("tsv", Format::Tsv),
    ("arrow", Format::Arrow),
    ("parquet", Format::Parquet),
    ("jsonl", Format::Ndjson),
    ("jsonlines", Format::Ndjson),
    ("arrowstream", Format::Arrow),
    ("JSON", Format::ClickHouse),
    ("JSONCompact", Format::ClickHouseCompact),
    ("JSONEachRow", Format::Ndjson),
    ("CSV", Format::CsvNoHeader),
    ("CSVWithNames", Format::Csv),
    ("TSV", Format::TsvNoHeader),
    ("TSVWithNames", Format::Tsv),
    ("TabSeparated", Format::TsvNoHeader),
    ("TabSeparatedWithNames", Format::Tsv),
    ("Arrow", Format::Arrow),
    ("ArrowStream", Format::Arrow),
    ("Parquet", Format::Parquet),
];

/// How many of [`NAMES`] are ours; `?format=` takes these in any case.
const OWN_NAMES: usize = 9;

impl Format {
    /// Every format.
    pub const ALL: [Self; 10] = [
        Self::Json,
        Self::ClickHouse,
        Self::ClickHouseCompact,
        Self::Ndjson,
        Self::Csv,
        Self::CsvNoHeader,
        Self::Tsv,
        Self::TsvNoHeader,
        Self::Arrow,
        Self::Parquet,
    ];

    /// Returns every name of a format.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }

    /// Returns the media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json | Self::ClickHouse | Self::ClickHouseCompact => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv | Self::CsvNoHeader => "text/csv; charset=utf-8",
            Self::Tsv | Self::TsvNoHeader => "text/tab-separated-values; charset=utf-8",
            Self::Arrow => ARROW_STREAM,
            Self::Parquet => PARQUET,
        }
    }

    /// Returns whether a reader can tell a truncated result from a complete one by its bytes alone.
    pub fn self_terminating(self) -> bool {
        !matches!(self, Self::Csv | Self::CsvNoHeader | Self::Tsv | Self::TsvNoHeader | Self::Ndjson)
    }

    /// Returns the format that `?format=` calls `name`.
    pub fn named(name: &str) -> Option<Self> {
        let own = NAMES[..OWN_NAMES].iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        own.map(|(_, format)| *format).or_else(|| Self::clickhouse(name))
    }

    /// Returns the format that ClickHouse calls `name`, in `?default_format=` or after FORMAT.
    pub fn clickhouse(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    /// Splits off the FORMAT clause that ClickHouse's tools append to a statement, and returns the statement and the
    /// format.
    pub fn strip_format_clause(sql: &str) -> (&str, Option<Self>) {
        // The clause may stand in a comment, where it means nothing.
        if sql.trim_end().lines().next_back().is_some_and(|line| line.contains("--")) {
            return (sql, None);
        }
        let text = sql.trim_end_matches(|sign: char| sign.is_whitespace() || sign == ';');
        let found = text.rsplit_once(char::is_whitespace).and_then(|(before, name)| {
            let before = before.trim_end();
            // Six bytes: FORMAT.
            let keyword = before.len().checked_sub(6).filter(|at| before.is_char_boundary(*at))?;
            let (statement, word) = before.split_at(keyword);
            let is_format = word.eq_ignore_ascii_case("format") && statement.ends_with(char::is_whitespace);
            Some((statement, Self::clickhouse(name).filter(|_| is_format)?))
        });
        found.map_or((sql, None), |(statement, format)| (statement, Some(format)))
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::formats::format::Format;

    #[test]
    fn a_format_clause_is_stripped_and_nothing_else_is() {
        assert_eq!(Format::strip_format_clause("SELECT 1 FORMAT JSON"), ("SELECT 1 ", Some(Format::ClickHouse)));
        assert_eq!(
            Format::strip_format_clause("SELECT 1\nformat  JSONEachRow ;\n"),
            ("SELECT 1\n", Some(Format::Ndjson))
        );
        for whole in [
            "SELECT 1",
            "SELECT 'a FORMAT JSON'",
            "SELECT format FROM t",
            "x FORMAT",
            "SELECT a FORMAT xml",
            "",
            "ü",
            "SELECT 1 -- in FORMAT JSON",
        ] {
            assert_eq!(Format::strip_format_clause(whole), (whole, None));
        }
    }
}
