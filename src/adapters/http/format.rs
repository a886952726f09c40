//! What results and bodies are written as, and how a request says so.
//!
//! `?format=` has our names, `?default_format=` and a FORMAT at the end of a statement have ClickHouse's, for tools that
//! were made for it; else the first known type in `Accept` counts, else JSON.

use crate::adapters::http::wire::ARROW_STREAM;
use crate::ports::{Error, Result};
use http::HeaderMap;
use http::header::ACCEPT;
use std::collections::HashMap;

/// Media type of a Parquet file.
pub const PARQUET: &str = "application/vnd.apache.parquet";

/// A form of a result.
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
    /// The same without the header line.
    CsvBare,
    /// Tab-separated values under a header line, escaped as ClickHouse does it.
    Tsv,
    /// The same without the header line.
    TsvBare,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

/// Names in a query, ours first; ClickHouse's are told by their case.
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
    ("CSV", Format::CsvBare),
    ("CSVWithNames", Format::Csv),
    ("TSV", Format::TsvBare),
    ("TSVWithNames", Format::Tsv),
    ("TabSeparated", Format::TsvBare),
    ("TabSeparatedWithNames", Format::Tsv),
    ("Arrow", Format::Arrow),
    ("ArrowStream", Format::Arrow),
    ("Parquet", Format::Parquet),
];

/// Names that `?format=` takes in any case, for people.
const OURS: usize = 9;

impl Format {
    /// Every format.
    pub const ALL: [Self; 10] = [
        Self::Json,
        Self::ClickHouse,
        Self::ClickHouseCompact,
        Self::Ndjson,
        Self::Csv,
        Self::CsvBare,
        Self::Tsv,
        Self::TsvBare,
        Self::Arrow,
        Self::Parquet,
    ];

    /// Every name of a format.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json | Self::ClickHouse | Self::ClickHouseCompact => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv | Self::CsvBare => "text/csv; charset=utf-8",
            Self::Tsv | Self::TsvBare => "text/tab-separated-values; charset=utf-8",
            Self::Arrow => ARROW_STREAM,
            Self::Parquet => PARQUET,
        }
    }

    /// Whether a result that broke off can be told from a whole one by what it is.
    pub fn shows_its_end(self) -> bool {
        !matches!(self, Self::Csv | Self::CsvBare | Self::Tsv | Self::TsvBare | Self::Ndjson)
    }

    /// The format of a name in `?format=`.
    pub fn named(name: &str) -> Option<Self> {
        let ours = NAMES[..OURS].iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        ours.map(|(_, format)| *format).or_else(|| Self::clickhouse(name))
    }

    /// The format of a name in `?default_format=` or after FORMAT.
    pub fn clickhouse(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    fn accepted(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json" | "application/*" | "*/*" | "" => Some(Self::Json),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Self::Ndjson),
            "text/csv" | "text/*" => Some(Self::Csv),
            "text/tab-separated-values" => Some(Self::Tsv),
            ARROW_STREAM => Some(Self::Arrow),
            PARQUET | "application/x-parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// The format that a request asks for. None where it accepts nothing that is known.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` for an unknown name.
    pub fn choose(query: &HashMap<String, String>, headers: &HeaderMap) -> Result<Option<Self>> {
        let unknown = |name: &String| {
            let names: Vec<_> = Self::names().collect();
            Error::invalid(format!("unknown format {name:?}; there are {}", names.join(", ")))
        };
        if let Some(name) = query.get("format") {
            return Self::named(name).ok_or_else(|| unknown(name)).map(Some);
        }
        if let Some(name) = query.get("default_format") {
            return Self::clickhouse(name).ok_or_else(|| unknown(name)).map(Some);
        }
        let Some(accept) = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()) else {
            return Ok(Some(Self::Json));
        };
        let types =
            accept.split(',').map(|part| part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        Ok(types.into_iter().find_map(|media_type| Self::accepted(&media_type)))
    }

    /// Whether a request says which form it wants, so that nothing else is asked.
    pub fn is_said(query: &HashMap<String, String>, headers: &HeaderMap) -> bool {
        let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        query.contains_key("format")
            || accept.is_some_and(|accept| !accept.contains("*/*") && Self::accepted(accept).is_some())
    }

    /// A statement without the FORMAT that ClickHouse's tools put behind it, and that format. One that a comment may have
    /// swallowed is none.
    pub fn split_off(sql: &str) -> (&str, Option<Self>) {
        if sql.trim_end().lines().next_back().is_some_and(|line| line.contains("--")) {
            return (sql, None);
        }
        let text = sql.trim_end_matches(|sign: char| sign.is_whitespace() || sign == ';');
        let found = text.rsplit_once(char::is_whitespace).and_then(|(before, name)| {
            let before = before.trim_end();
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
    use crate::adapters::http::format::Format;
    use crate::ports::ErrorKind;
    use http::HeaderMap;
    use std::collections::HashMap;

    fn choose(name: &str, value: &str, accept: &str) -> crate::ports::Result<Option<Format>> {
        let query: HashMap<_, _> =
            Some((name.to_owned(), value.to_owned())).filter(|_| !name.is_empty()).into_iter().collect();
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert("accept", accept.parse().unwrap());
        }
        Format::choose(&query, &headers)
    }

    #[test]
    fn formats_are_chosen_by_name_then_by_accept() {
        assert_eq!(choose("", "", "").unwrap(), Some(Format::Json));
        assert_eq!(choose("format", "ArrowStream", "text/csv").unwrap(), Some(Format::Arrow));
        assert_eq!(choose("format", "JSON", "").unwrap(), Some(Format::Json), "our own parameter, our own shape");
        assert_eq!(choose("default_format", "JSON", "").unwrap(), Some(Format::ClickHouse));
        assert_eq!(choose("default_format", "CSV", "").unwrap(), Some(Format::CsvBare));
        assert_eq!(choose("format", "JSONCompact", "").unwrap(), Some(Format::ClickHouseCompact));
        assert_eq!(choose("", "", "image/png, text/csv;q=0.5").unwrap(), Some(Format::Csv));
        assert_eq!(choose("", "", "image/png").unwrap(), None);
        assert_eq!(choose("format", "xml", "").unwrap_err().kind(), ErrorKind::InvalidQuery);
    }

    #[test]
    fn a_format_behind_a_statement_is_split_off_and_nothing_else_is() {
        assert_eq!(Format::split_off("SELECT 1 FORMAT JSON"), ("SELECT 1 ", Some(Format::ClickHouse)));
        assert_eq!(Format::split_off("SELECT 1\nformat  JSONEachRow ;\n"), ("SELECT 1\n", Some(Format::Ndjson)));
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
            assert_eq!(Format::split_off(whole), (whole, None));
        }
    }
}
