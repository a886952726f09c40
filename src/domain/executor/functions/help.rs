//! What SHOW FUNCTIONS tells: every function that may be called, with its arguments and a line about it.
//!
//! Of our own functions this table tells; of DataFusion's their documentation. A test compares the table with what is registered.

use crate::domain::executor::functions::classes::{Class, class_of, is_table_function};
use datafusion::execution::SessionState;
use datafusion::logical_expr::Documentation;
use std::collections::BTreeMap;

/// A function as SHOW FUNCTIONS lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionHelp {
    /// Its name.
    pub name: String,
    /// `scalar`, `aggregate`, `window` or `table`.
    pub kind: &'static str,
    /// How it is called, with the types of its arguments.
    pub call: String,
    /// What it answers.
    pub description: String,
}

/// Name, call and description of the functions of time-series SQL.
const OURS: [(&str, &str, &str); 32] = [
    ("avgweighted", "avgWeighted(value NUMERIC, weight NUMERIC)", "The mean with weights"),
    ("arg_max", "arg_max(value ANY, key ANY)", "The value of the row with the greatest key"),
    ("arg_min", "arg_min(value ANY, key ANY)", "The value of the row with the least key"),
    (
        "date_bin_gapfill",
        "date_bin_gapfill(width INTERVAL, t TIMESTAMP[, origin TIMESTAMP])",
        "The start of the bucket of a time since 1970, in GROUP BY; empty buckets are filled in",
    ),
    ("delta", "delta(x NUMERIC) OVER (…)", "The difference from the row before; the value itself in the first row"),
    (
        "ema",
        "ema(x NUMERIC, periods BIGINT | weight DOUBLE) OVER (…)",
        "An exponential moving average that begins with the first value",
    ),
    ("epoch_ms", "epoch_ms(t TIMESTAMP)", "Whole milliseconds since 1970"),
    ("epoch_s", "epoch_s(t TIMESTAMP)", "Whole seconds since 1970"),
    (
        "first",
        "first(x ANY[, t TIMESTAMP])",
        "The value of the first row by the table's time, or by t; NULL is skipped",
    ),
    (
        "haversine",
        "haversine(latitude DOUBLE, longitude DOUBLE, latitude DOUBLE, longitude DOUBLE)",
        "The distance of two places on the earth, in metres",
    ),
    ("interpolate", "interpolate(aggregate NUMERIC)", "Fills empty buckets on a line between those before and behind"),
    ("last", "last(x ANY[, t TIMESTAMP])", "The value of the last row by the table's time, or by t; NULL is skipped"),
    ("locf", "locf(aggregate ANY)", "Fills empty buckets with the last value before"),
    ("percentile", "percentile(x NUMERIC, percent DOUBLE)", "The percentile of 0 to 100, between neighbours on a line"),
    ("ratio", "ratio(x NUMERIC) OVER (…)", "The quotient by the row before; 1 in the first row"),
    ("selector_first", "selector_first(x ANY, t TIMESTAMP)", "Value and time of the first row"),
    ("selector_last", "selector_last(x ANY, t TIMESTAMP)", "Value and time of the last row"),
    ("selector_max", "selector_max(x ANY, t TIMESTAMP)", "Value and time of the row with the greatest value"),
    ("selector_min", "selector_min(x ANY, t TIMESTAMP)", "Value and time of the row with the least value"),
    (
        "st_within",
        "st_within(latitude DOUBLE, longitude DOUBLE, latitude DOUBLE, longitude DOUBLE, metres DOUBLE)",
        "Whether two places on the earth are no further from each other than that",
    ),
    (
        "time_bucket",
        "time_bucket(width INTERVAL, t TIMESTAMP[, origin TIMESTAMP | offset INTERVAL | zone VARCHAR])",
        "The start of the bucket of a time, counted from Monday 2000-01-03",
    ),
    (
        "time_bucket_gapfill",
        "time_bucket_gapfill(width INTERVAL, t TIMESTAMP[, zone VARCHAR[, start TIMESTAMP, finish TIMESTAMP]])",
        "The start of the bucket of a time, in GROUP BY; empty buckets are filled in",
    ),
    (
        "timestamp_floor",
        "timestamp_floor(width VARCHAR, t TIMESTAMP)",
        "The start of the bucket of a time, such as '5m'",
    ),
    ("twap", "twap(value NUMERIC, t TIMESTAMP)", "The mean of a step function: each value counts until the next one"),
    ("vwap", "vwap(price NUMERIC, volume NUMERIC)", "The mean price with volumes as weights"),
    ("wavg", "wavg(weight NUMERIC, value NUMERIC)", "The mean with weights"),
    (
        "xbar",
        "xbar(t TIMESTAMP | NUMERIC, width INTERVAL | NUMERIC)",
        "The start of the bucket of a time since 1970, or of a number",
    ),
    ("wj_avg", "wj_avg(x NUMERIC)", "avg over the rows of a WINDOW JOIN; wj_sum, wj_min, wj_max and wj_count likewise"),
    (
        "nearest",
        "nearest(a TIMESTAMP, b TIMESTAMP)",
        "In MATCH_CONDITION: the row whose time is the nearest, before or behind",
    ),
    ("generate_series", "generate_series(start BIGINT, end BIGINT[, step BIGINT])", "The numbers from start to end"),
    ("range", "range(start BIGINT, end BIGINT[, step BIGINT])", "The numbers from start up to, and without, end"),
    (
        "percentile_cont",
        "percentile_cont(x NUMERIC, share DOUBLE)",
        "The percentile of 0 to 1, or of 0 to 100 where it is above 1",
    ),
];

/// Returns every function that may be called, in the order of their names.
pub fn functions(state: &SessionState) -> Vec<FunctionHelp> {
    let mut found = BTreeMap::new();
    let mut add = |name: &str, own: &str, kind: &'static str, documentation: Option<&Documentation>| {
        if name.starts_with("__zepto") {
            return;
        }
        let ours = OURS.iter().find(|(known, ..)| *known == name || *known == own);
        let (call, description) = match (ours, documentation) {
            (Some((_, call, description)), _) => ((*call).to_owned(), (*description).to_owned()),
            (None, Some(theirs)) => (theirs.syntax_example.trim().to_owned(), first_sentence(&theirs.description)),
            (None, None) => (format!("{name}(…)"), String::new()),
        };
        let help = FunctionHelp { name: name.to_owned(), kind, call, description };
        // An aggregate is one over a window as well; it is listed once.
        found.entry((name.to_owned(), if kind == "table" { kind } else { "" })).or_insert(help);
    };
    for (name, function) in state.scalar_functions() {
        if matches!(class_of(function.name()), Some(Class::Linear | Class::Guarded)) {
            add(name, function.name(), "scalar", function.documentation());
        }
    }
    state
        .aggregate_functions()
        .iter()
        .for_each(|(name, function)| add(name, function.name(), "aggregate", function.documentation()));
    state
        .window_functions()
        .iter()
        .for_each(|(name, function)| add(name, function.name(), "window", function.documentation()));
    state
        .table_functions()
        .keys()
        .filter(|name| is_table_function(name))
        .for_each(|name| add(name, name, "table", None));
    // What is rewritten before the planner sees it.
    for (name, kind) in [("nearest", "scalar"), ("percentile", "aggregate"), ("wj_avg", "aggregate")] {
        add(name, name, kind, None);
    }
    found.into_values().collect()
}

fn first_sentence(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = text.find(". ").unwrap_or(text.len());
    text[..end].trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::functions::help::{OURS, functions};
    use crate::domain::executor::memory::QueryMemory;
    use crate::domain::executor::session::{Session, shared_runtime};

    #[test]
    fn every_function_has_a_line_of_help() {
        let memory = QueryMemory::new(1 << 20);
        let session = Session::new(1, true, shared_runtime(&memory).unwrap(), &memory).unwrap();
        let all = functions(&session.state);
        let without: Vec<_> = all.iter().filter(|help| help.description.is_empty() || help.call.is_empty()).collect();
        assert!(without.is_empty(), "{without:?}");
        let is_listed = |name: &str| all.iter().any(|help| help.name == name);
        let gone: Vec<_> = OURS.iter().filter(|(name, ..)| !is_listed(name)).collect();
        assert!(gone.is_empty(), "{gone:?}");
        assert!(!is_listed("version") && all.iter().all(|help| !help.name.starts_with("__zepto")));
    }
}
