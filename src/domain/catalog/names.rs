//! How names in SQL find tables and columns, and what to suggest where they do not.

use crate::ports::{Error, Result};

/// Finds a name among `known`: exactly, else by its only match without regard to case, unless it was quoted.
///
/// # Errors
///
/// `InvalidQuery` where several match.
pub fn resolve_name<'a>(
    name: &str,
    quoted: bool,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Result<Option<&'a str>> {
    if let Some(exact) = known.clone().find(|candidate| *candidate == name) {
        return Ok(Some(exact));
    }
    if quoted {
        return Ok(None);
    }
    let mut matches: Vec<_> = known.filter(|candidate| candidate.eq_ignore_ascii_case(name)).collect();
    matches.sort_unstable();
    matches.dedup();
    match matches.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        several => Err(Error::invalid(format!("{name:?} is ambiguous: it could be any of {several:?}; quote it"))),
    }
}

/// Finds the name among `known` that is most like `name`, if any is.
pub fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use crate::domain::catalog::names::resolve_name;
    use crate::ports::ErrorKind;

    #[test]
    fn names_match_exactly_then_by_their_only_case() {
        let known = ["Px", "px", "Size"];
        let resolve = |name, quoted| resolve_name(name, quoted, known.into_iter());
        assert_eq!(resolve("px", false).unwrap(), Some("px"));
        assert_eq!(resolve("SIZE", false).unwrap(), Some("Size"));
        assert_eq!(resolve("SIZE", true).unwrap(), None);
        assert_eq!(resolve("PX", false).unwrap_err().kind(), ErrorKind::InvalidQuery);
        assert_eq!(resolve("none", false).unwrap(), None);
    }
}
