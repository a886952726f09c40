//! What a stream says of its writer and its durability, and what it is answered: the same names on every wire.

use crate::ports::{Append, Durability, Error, IngestSummary, Result, WriterCommit, WriterState};
use serde_json::{Value, json};

/// Name of the option: the writer.
pub const WRITER: &str = "writer";
/// Name of the option: the number of the commit.
pub const SEQUENCE: &str = "sequence";
/// Name of the option: which process writes under that name.
pub const EPOCH: &str = "epoch";
/// Name of the option: what the writer wants to be told again.
pub const OFFSET: &str = "offset";
/// Name of the option: where the commit has to be before it is acknowledged.
pub const DURABILITY: &str = "durability";

/// All options.
pub const OPTIONS: [&str; 5] = [WRITER, SEQUENCE, EPOCH, OFFSET, DURABILITY];

/// Prefix of the options as headers.
pub const HEADER_PREFIX: &str = "x-zepto-";

/// Bytes of a writer's name.
const WRITER_BYTES_MAX: usize = 128;

/// Bytes of what it wants to be told again.
const OFFSET_BYTES_MAX: usize = 1024;

/// Puts the options that a request gives into `append`.
///
/// # Errors
///
/// `InvalidQuery` for a value that is not allowed, and for a writer without a number or the other way round.
pub fn with_options(append: Append, option: impl Fn(&'static str) -> Option<String>) -> Result<Append> {
    let number = |name: &'static str| -> Result<Option<u64>> {
        let wrong = |text: &String| Error::invalid(format!("invalid value {text:?} for {name}; expected a number"));
        option(name).map(|text| text.parse().map_err(|_| wrong(&text))).transpose()
    };
    let durability = option(DURABILITY).map(|text| text.parse::<Durability>()).transpose()?.or(append.durability);
    let writer = match (option(WRITER), number(SEQUENCE)?) {
        (Some(writer), Some(sequence)) => {
            let commit = WriterCommit { writer, epoch: number(EPOCH)?.unwrap_or(0), sequence, offset: option(OFFSET) };
            Some(checked(commit)?)
        }
        (None, None) if option(OFFSET).is_none() && number(EPOCH)?.is_none() => append.writer,
        (Some(_), None) => return Err(Error::invalid("a writer numbers its commits: sequence is missing")),
        _ => return Err(Error::invalid("the commits of a writer are numbered: writer is missing")),
    };
    Ok(Append { writer, durability, ..append })
}

/// Makes the error for a header whose value is not ASCII: two names must not become one.
pub fn not_ascii(name: &str) -> Error {
    Error::invalid(format!(
        "header {HEADER_PREFIX}{name} is not ASCII; give it in the address, or in a JSON command over Flight"
    ))
}

fn checked(commit: WriterCommit) -> Result<WriterCommit> {
    if commit.writer.is_empty() || commit.writer.len() > WRITER_BYTES_MAX {
        return Err(Error::invalid(format!("a writer's name has 1 to {WRITER_BYTES_MAX} bytes")));
    }
    if commit.offset.as_ref().is_some_and(|offset| offset.len() > OFFSET_BYTES_MAX) {
        return Err(Error::invalid(format!("an offset has at most {OFFSET_BYTES_MAX} bytes")));
    }
    if commit.sequence == 0 {
        return Err(Error::invalid("a writer begins with commit 1, not 0"));
    }
    Ok(commit)
}

/// Returns the options that `append` gives.
pub fn options_of(append: &Append) -> Vec<(&'static str, String)> {
    let mut options: Vec<_> = append.durability.map(|level| (DURABILITY, level.to_string())).into_iter().collect();
    if let Some(WriterCommit { writer, epoch, sequence, offset }) = &append.writer {
        options.push((WRITER, writer.clone()));
        options.push((EPOCH, epoch.to_string()));
        options.push((SEQUENCE, sequence.to_string()));
        options.extend(offset.as_ref().map(|offset| (OFFSET, offset.clone())));
    }
    options
}

/// Encodes what a summary says of the stream's writer, into an answer that has the rest of it.
pub fn add_writer(answer: &mut Value, summary: &IngestSummary) {
    if let Some(writer) = &summary.writer {
        answer["duplicate"] = summary.duplicate.into();
        answer["writer"] = writer_json(writer);
    }
}

/// Decodes what [`add_writer`] put into an answer.
///
/// # Errors
///
/// Those of [`writer_from_json`].
pub fn writer_of(answer: &Value) -> Result<(bool, Option<WriterState>)> {
    let writer = answer.get("writer").map(writer_from_json).transpose()?;
    Ok((answer["duplicate"].as_bool().unwrap_or(false), writer))
}

/// Encodes how far a writer has come.
pub fn writer_json(state: &WriterState) -> Value {
    let WriterState { writer, epoch, sequence, offset, rows, lsn, time_us } = state;
    json!({
        "writer": writer, "epoch": epoch, "sequence": sequence, "offset": offset, "rows": rows,
        // As a string: JavaScript rounds numbers of 64 bits.
        "lsn": lsn.to_string(), "time_us": time_us,
    })
}

/// Decodes the state of [`writer_json`].
///
/// # Errors
///
/// `Internal` for anything else: only our own servers send these.
pub fn writer_from_json(value: &Value) -> Result<WriterState> {
    let wrong = || Error::internal("the server's account of a writer does not decode");
    let number = |key: &str| value[key].as_u64().ok_or_else(wrong);
    Ok(WriterState {
        writer: value["writer"].as_str().ok_or_else(wrong)?.to_owned(),
        epoch: number("epoch")?,
        sequence: number("sequence")?,
        offset: value["offset"].as_str().map(str::to_owned),
        rows: number("rows")?,
        lsn: value["lsn"].as_str().and_then(|lsn| lsn.parse().ok()).ok_or_else(wrong)?,
        time_us: value["time_us"].as_i64().ok_or_else(wrong)?,
    })
}

#[cfg(test)]
mod tests {
    use crate::adapters::serving::numbered_put::{options_of, with_options};
    use crate::ports::{Append, Durability, WriterCommit};

    #[test]
    fn options_come_back_and_half_ones_are_refused() {
        let writer = WriterCommit { writer: "w ü".into(), epoch: 2, sequence: 9, offset: Some("{\"a\": 1}".into()) };
        let append = Append { writer: Some(writer), durability: Some(Durability::Wal), ..Append::default() };
        let given = options_of(&append);
        let option = |name: &str| given.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        assert_eq!(with_options(Append::default(), option).unwrap(), append);
        assert_eq!(with_options(Append::default(), |_| None).unwrap(), Append::default());
        let long = "x".repeat(2_000);
        for refused in [
            &[("writer", "w")][..],
            &[("sequence", "1")],
            &[("offset", "o")],
            &[("writer", "w"), ("sequence", "0")],
            &[("writer", "w"), ("sequence", "-1")],
            &[("writer", ""), ("sequence", "1")],
            &[("writer", &long), ("sequence", "1")],
            &[("writer", "w"), ("sequence", "1"), ("offset", &long)],
            &[("durability", "sometimes")],
        ] {
            let option =
                |name: &str| refused.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
            assert!(with_options(Append::default(), option).is_err(), "{refused:?}");
        }
    }
}
