//! Puts DataFusion's messages into the words of this service: what is wrong, without the engine's insides.
//!
//! Each rule knows one of DataFusion 55's sentences by its fixed words; what no rule knows passes as it is.

use crate::domain::catalog::closest;

/// Functions that exist only with OVER.
const WINDOW_FUNCTIONS: [&str; 12] = [
    "cume_dist",
    "delta",
    "dense_rank",
    "ema",
    "lag",
    "lead",
    "nth_value",
    "ntile",
    "percent_rank",
    "rank",
    "ratio",
    "row_number",
];

/// Prefixes that name a class of errors.
const CLASSES: [&str; 6] =
    ["Error during planning: ", "Execution error: ", "Arrow error: ", "Parser error: ", "Cast error: ", "SQL error: "];

/// Returns a message in plain words.
pub fn plain(text: &str) -> String {
    let text = without_class(text.rsplit("caused by\n").next().unwrap_or(text));
    let rules: [fn(&str) -> Option<String>; 9] = [
        unknown_function,
        coercion_of_our_own,
        unfitting_call,
        unmatched_signatures,
        outside_of_groups,
        ambiguous,
        arithmetic,
        condition,
        moving_window,
    ];
    let found = rules.iter().find_map(|rule| rule(text));
    found.unwrap_or_else(|| text.split(". No function matches the given name").next().unwrap_or(text).to_owned())
}

fn without_class(mut text: &str) -> &str {
    while let Some(rest) = CLASSES.iter().find_map(|class| text.strip_prefix(class)) {
        text = rest;
    }
    text
}

/// Returns what stands between two texts.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

fn unknown_function(text: &str) -> Option<String> {
    let name = between(text, "Invalid function '", "'")?;
    if WINDOW_FUNCTIONS.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Some(format!("{name} is a window function: write {name}(…) OVER (PARTITION BY … ORDER BY …)"));
    }
    let suggested = between(text, "Did you mean '", "'").and_then(|close| closest(name, std::iter::once(close)));
    let hint = suggested.map(|close| format!("; did you mean {close:?}?")).unwrap_or_default();
    Some(format!("function {name:?} not found{hint}"))
}

fn coercion_of_our_own(text: &str) -> Option<String> {
    let reason = between(text, "user-defined coercion failed with: ", ". No function matches")?;
    Some(without_class(reason).trim_end_matches(['.', ' ']).to_owned())
}

fn unfitting_call(text: &str) -> Option<String> {
    let call = between(text, "No function matches the given name and argument types '", "'. ")?;
    if !text.starts_with("Failed to coerce arguments") {
        return None;
    }
    let (_, known) = text.split_once("Candidate functions:")?;
    let known: Vec<_> = known.split('\n').map(str::trim).filter(|known| !known.is_empty()).collect();
    Some(format!("there is no {call}, but {}", known.join(", ")))
}

fn unmatched_signatures(text: &str) -> Option<String> {
    let name = between(text, "Function '", "' failed to match any signature")?;
    let (_, reasons) = text.split_once("errors: ")?;
    let reasons: Vec<_> = reasons.split(",Error during planning: ").map(without_class).collect();
    let received = reasons.iter().find_map(|reason| between(reason, "(DataType: ", ")"));
    let types: Vec<_> = reasons.iter().filter_map(|reason| between(reason, "requires ", ", but received")).collect();
    Some(match received {
        Some(received) if types.len() == reasons.len() => {
            format!("{name} takes {}, not {received}", types.join(" or "))
        }
        _ => reasons.join("; ").trim_end_matches('.').to_owned(),
    })
}

fn outside_of_groups(text: &str) -> Option<String> {
    let column = between(text, "column ", " must appear in the GROUP BY clause")?;
    let column = column.rsplit("column ").next().unwrap_or(column);
    Some(format!("column {column} has to be in GROUP BY or in an aggregate"))
}

fn ambiguous(text: &str) -> Option<String> {
    let name = text.strip_prefix("Ambiguous reference to unqualified field ")?.trim_matches('"');
    Some(format!("column {name:?} is ambiguous; write its table before it"))
}

fn arithmetic(text: &str) -> Option<String> {
    let computed = between(text, "Cannot coerce arithmetic expression ", " to valid types")
        .or_else(|| between(text, "Cannot get result type for temporal operation ", ": "))?;
    Some(format!("cannot compute {computed}"))
}

fn condition(text: &str) -> Option<String> {
    let shown = between(text, "Cannot create filter with non-boolean predicate '", "' returning ")?;
    let (_, data_type) = text.split_once("' returning ")?;
    Some(format!("a condition has to be true or false, and {shown} is a {data_type}"))
}

fn moving_window(text: &str) -> Option<String> {
    let call = match text.split_once("`retract_batch` is not implemented: ") {
        Some((_, call)) => call.split('(').next().unwrap_or(call),
        None if text.starts_with("SUM(DISTINCT) over sliding window frames") => "sum(DISTINCT …)",
        None => return None,
    };
    Some(format!("{call} is not supported over a window whose start moves"))
}

#[cfg(test)]
mod tests {
    use crate::domain::executor::messages::plain;

    #[test]
    fn messages_lose_the_insides_of_the_engine() {
        for (theirs, ours) in [
            (
                "Invalid function 'ema'.\nDid you mean 'map'?",
                "ema is a window function: write ema(…) OVER (PARTITION BY … ORDER BY …)",
            ),
            ("Invalid function 'foo'.\nDid you mean 'cos'?", "function \"foo\" not found"),
            (
                "Invalid function 'coutn'.\nDid you mean 'count'?",
                "function \"coutn\" not found; did you mean \"count\"?",
            ),
            (
                "Execution error: Function 'vwap' user-defined coercion failed with: Error during planning: vwap takes two numbers. No function matches the given name and argument types 'vwap(Utf8)'. You might need to add explicit type casts.\n\tCandidate functions:\n\tvwap(UserDefined)",
                "vwap takes two numbers",
            ),
            (
                "Failed to coerce arguments to satisfy a call to 'f' function: coercion from Int64 to the signature X failed. No function matches the given name and argument types 'f(Int64)'. You might need to add explicit type casts.\n\tCandidate functions:\n\tf(array)\n\tf(array, index)",
                "there is no f(Int64), but f(array), f(array, index)",
            ),
            (
                "Function 'sum' failed to match any signature, errors: Error during planning: Function 'sum' requires Decimal, but received String (DataType: Utf8).,Error during planning: Function 'sum' requires Int64, but received String (DataType: Utf8).",
                "sum takes Decimal or Int64, not Utf8",
            ),
            (
                "Function 'abs' expects Numeric but received String. No function matches the given name and argument types 'abs(Utf8)'. You might",
                "Function 'abs' expects Numeric but received String",
            ),
            (
                "Column in SELECT must be in GROUP BY or an aggregate function: While expanding wildcard, column \"t.a\" must appear in the GROUP BY clause or must",
                "column \"t.a\" has to be in GROUP BY or in an aggregate",
            ),
            ("Ambiguous reference to unqualified field a", "column \"a\" is ambiguous; write its table before it"),
            ("Cannot coerce arithmetic expression Int64 + Utf8 to valid types", "cannot compute Int64 + Utf8"),
            (
                "Cannot create filter with non-boolean predicate 'a' returning Float64",
                "a condition has to be true or false, and a is a Float64",
            ),
            (
                "Aggregate can not be used as a sliding accumulator because `retract_batch` is not implemented: f(w.p, w.x) ORDER BY [w.ts]",
                "f is not supported over a window whose start moves",
            ),
            ("Parser error: Invalid input", "Invalid input"),
            ("something else", "something else"),
        ] {
            assert_eq!(plain(theirs), ours);
        }
    }
}
