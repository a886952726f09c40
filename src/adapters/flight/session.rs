//! Sessions: options that apply to all calls of a client.
//!
//! A session is its cookie, which contains the options: the server keeps nothing, no session is ever lost, and a
//! session that is never closed costs nothing. Headers of a call take precedence over the session. The messages are
//! those of Flight.proto; arrow-flight does not have them yet.

use crate::adapters::flight::command::{CATALOG, DB_SCHEMA};
use crate::adapters::serving::{OPTIONS, ResultOptions};
use crate::ports::{Error, ErrorKind, Result};
use arrow_flight::Action;
use bytes::Bytes;
use prost::Message as _;
use std::collections::HashMap;
use tonic::metadata::MetadataMap;

/// Action that sets options.
pub const SET_OPTIONS: &str = "SetSessionOptions";
/// Action that returns all options.
pub const GET_OPTIONS: &str = "GetSessionOptions";
/// Action that forgets the options.
pub const CLOSE: &str = "CloseSession";

/// The cookie's name, as Flight.proto suggests it.
const COOKIE: &str = "arrow_flight_session_id";

/// `SessionOptionValue`
#[derive(Clone, PartialEq, prost::Message)]
struct OptionValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    List(Texts),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Texts {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

/// `SetSessionOptionsRequest` and `GetSessionOptionsResult`, which look the same.
#[derive(Clone, PartialEq, prost::Message)]
struct Options {
    #[prost(map = "string, message", tag = "1")]
    options: HashMap<String, OptionValue>,
}

/// `SetSessionOptionsResult`
#[derive(Clone, PartialEq, prost::Message)]
struct SetResult {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, SetError>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct SetError {
    #[prost(int32, tag = "1")]
    value: i32,
}

const INVALID_NAME: i32 = 1;
const INVALID_VALUE: i32 = 2;

/// `CloseSessionResult`
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct CloseResult {
    #[prost(int32, tag = "1")]
    status: i32,
}

const CLOSED: i32 = 1;

/// Returns the options of a call: those of its headers, then those of its session.
///
/// # Errors
///
/// `InvalidQuery` for an invalid value of a header.
pub fn result_options(metadata: &MetadataMap) -> Result<ResultOptions> {
    let header = |name: &str| metadata.get(name).map(|value| value.to_str().unwrap_or("?"));
    Ok(ResultOptions::from_headers(header)?.or(&session(metadata)))
}

/// Returns the options of the session alone.
fn session(metadata: &MetadataMap) -> ResultOptions {
    let cookies = metadata.get_all("cookie").iter().filter_map(|cookies| cookies.to_str().ok());
    let mut cookies = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    match cookies.find(|(name, _)| *name == COOKIE) {
        // A cookie of another server or release is ignored: a client that keeps one must still be served.
        Some((_, text)) => from_cookie(text).unwrap_or_default(),
        None => ResultOptions::default(),
    }
}

/// Encodes options in hexadecimal, which is safe for every value and in every cookie.
fn to_cookie(options: &ResultOptions) -> String {
    options.encode().bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn from_cookie(text: &str) -> Option<ResultOptions> {
    let digits = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    let line = String::from_utf8(digits.collect::<Option<_>>()?).ok()?;
    let mut options = ResultOptions::default();
    for (name, value) in line.split(';').filter_map(|entry| entry.split_once('=')) {
        // Options of an older or newer release are ignored.
        let _ = options.set(name, value);
    }
    Some(options)
}

/// Runs an action on the session, and returns the body of its answer and the cookie to set.
///
/// # Errors
///
/// `InvalidQuery` for a request that does not decode.
pub fn run_action(action: &Action, metadata: &MetadataMap) -> Result<(Bytes, Option<String>)> {
    let mut chosen = session(metadata);
    match action.r#type.as_str() {
        SET_OPTIONS => {
            let wrong = |error| Error::invalid(format!("the session's options do not decode: {error}"));
            let wanted = Options::decode(action.body.clone()).map_err(wrong)?;
            let mut errors = HashMap::new();
            for (name, OptionValue { value }) in wanted.options {
                if let Err(error) = set(&mut chosen, &name, value) {
                    let value = if error.kind() == ErrorKind::NotFound { INVALID_NAME } else { INVALID_VALUE };
                    errors.insert(name, SetError { value });
                }
            }
            let cookie = format!("{COOKIE}={}; Path=/", to_cookie(&chosen));
            Ok((SetResult { errors }.encode_to_vec().into(), Some(cookie)))
        }
        GET_OPTIONS => {
            let text = |value: &str| OptionValue { value: Some(Value::Text(value.to_owned())) };
            let mut options: HashMap<_, _> =
                chosen.entries().into_iter().map(|(name, value)| (name.to_owned(), text(&value))).collect();
            options.insert("catalog".to_owned(), text(CATALOG));
            options.insert("schema".to_owned(), text(DB_SCHEMA));
            Ok((Options { options }.encode_to_vec().into(), None))
        }
        _ => {
            let closed = CloseResult { status: CLOSED };
            Ok((closed.encode_to_vec().into(), Some(format!("{COOKIE}=; Path=/; Max-Age=0"))))
        }
    }
}

fn set(chosen: &mut ResultOptions, name: &str, value: Option<Value>) -> Result<()> {
    let text = match value {
        Some(Value::Text(text)) => text,
        Some(Value::Int(number)) => number.to_string(),
        Some(Value::Bool(_) | Value::Double(_) | Value::List(_)) => {
            return Err(Error::invalid(format!("{name} takes text or a whole number")));
        }
        // A missing value unsets the option.
        None if OPTIONS.contains(&name) => {
            chosen.unset(name);
            return Ok(());
        }
        None => return chosen.set(name, ""),
    };
    match name {
        // There is one catalogue and one schema, so choosing them changes nothing.
        "catalog" if text == CATALOG => Ok(()),
        "schema" if text == DB_SCHEMA => Ok(()),
        "catalog" | "schema" => Err(Error::invalid(format!("there is no {name} {text:?}"))),
        _ => chosen.set(name, &text),
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::session::{
        CLOSE, GET_OPTIONS, INVALID_NAME, INVALID_VALUE, OptionValue, Options, SET_OPTIONS, SetResult, Value,
        result_options, run_action,
    };
    use arrow_flight::Action;
    use prost::Message as _;
    use tonic::metadata::MetadataMap;

    fn set(options: &[(&str, Option<Value>)], metadata: &MetadataMap) -> (SetResult, String) {
        let options =
            options.iter().map(|(name, value)| ((*name).to_owned(), OptionValue { value: value.clone() })).collect();
        let action = Action::new(SET_OPTIONS, Options { options }.encode_to_vec());
        let (body, cookie) = run_action(&action, metadata).unwrap();
        (SetResult::decode(body).unwrap(), cookie.unwrap().split(';').next().unwrap().to_owned())
    }

    fn text(value: &str) -> Option<Value> {
        Some(Value::Text(value.to_owned()))
    }

    #[test]
    fn a_session_is_its_cookie() {
        let mut metadata = MetadataMap::new();
        let (result, cookie) = set(
            &[("time_zone", text("Asia/Tokyo")), ("batch_rows", Some(Value::Int(10))), ("catalog", text("zepto"))],
            &metadata,
        );
        assert!(result.errors.is_empty());
        metadata.insert("cookie", format!("other=1; {cookie}").parse().unwrap());
        assert_eq!(result_options(&metadata).unwrap().encode(), "time_zone=Asia/Tokyo;batch_rows=10");
        metadata.insert("x-zepto-time-zone", "UTC".parse().unwrap());
        assert_eq!(result_options(&metadata).unwrap().encode(), "time_zone=UTC;batch_rows=10", "headers go first");
        let (body, none) = run_action(&Action::new(GET_OPTIONS, ""), &metadata).unwrap();
        assert_eq!(Options::decode(body).unwrap().options["time_zone"].value, text("Asia/Tokyo"));
        assert!(none.is_none());
        let (result, cookie) =
            set(&[("time_zone", None), ("colour", text("red")), ("batch_rows", text("no"))], &metadata);
        let errors: Vec<_> = ["colour", "batch_rows"].iter().map(|name| result.errors[*name].value).collect();
        assert_eq!((errors, result.errors.len()), (vec![INVALID_NAME, INVALID_VALUE], 2));
        metadata.clear();
        metadata.insert("cookie", cookie.parse().unwrap());
        assert_eq!(result_options(&metadata).unwrap().encode(), "batch_rows=10");
        let (_, cookie) = run_action(&Action::new(CLOSE, ""), &metadata).unwrap();
        assert!(cookie.unwrap().contains("Max-Age=0"));
        metadata.insert("cookie", "arrow_flight_session_id=nonsense".parse().unwrap());
        assert_eq!(result_options(&metadata).unwrap().encode(), "", "a stale cookie breaks nothing");
    }
}
