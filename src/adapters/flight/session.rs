//! Sessions: options that hold for all calls of a client.
//!
//! A session is its cookie: the options stand in it, so the server keeps nothing, no session is ever lost, and one that
//! nobody closes costs nothing. Headers of a call go before the session. The messages are Flight.proto's; arrow-flight
//! does not have them yet.

use crate::adapters::flight::command::{CATALOG, DB_SCHEMA};
use crate::adapters::ipc::{OPTIONS, Presentation};
use crate::ports::{Error, ErrorKind, Result};
use arrow_flight::Action;
use bytes::Bytes;
use prost::Message as _;
use std::collections::HashMap;
use tonic::metadata::MetadataMap;

/// Names of the actions.
pub const SET_OPTIONS: &str = "SetSessionOptions";
/// Answers every option.
pub const GET_OPTIONS: &str = "GetSessionOptions";
/// Forgets them.
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

/// The choices that a call comes with: those of its headers, then those of its session.
///
/// # Errors
///
/// `InvalidQuery` for a header that does not say what it may.
pub fn choices(metadata: &MetadataMap) -> Result<Presentation> {
    let header = |name: &str| metadata.get(name).map(|value| value.to_str().unwrap_or("?"));
    Ok(Presentation::from_headers(header)?.or(&session(metadata)))
}

/// The choices of the session alone.
fn session(metadata: &MetadataMap) -> Presentation {
    let cookies = metadata.get_all("cookie").iter().filter_map(|cookies| cookies.to_str().ok());
    let mut cookies = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    match cookies.find(|(name, _)| *name == COOKIE) {
        // A cookie of another server or release says nothing here; a client that keeps one must still get through.
        Some((_, text)) => from_cookie(text).unwrap_or_default(),
        None => Presentation::default(),
    }
}

/// Hexadecimal: every value of an option is safe in it, and so is every cookie.
fn to_cookie(choices: &Presentation) -> String {
    choices.to_line().bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn from_cookie(text: &str) -> Option<Presentation> {
    let digits = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    let line = String::from_utf8(digits.collect::<Option<_>>()?).ok()?;
    let mut choices = Presentation::default();
    for (name, value) in line.split(';').filter_map(|choice| choice.split_once('=')) {
        // What an older or newer release called otherwise is passed over.
        let _ = choices.set(name, value);
    }
    Some(choices)
}

/// What an action on the session answers: its body, and the cookie to set.
///
/// # Errors
///
/// `InvalidQuery` for a request that does not decode.
pub fn act(action: &Action, metadata: &MetadataMap) -> Result<(Bytes, Option<String>)> {
    let mut choices = session(metadata);
    match action.r#type.as_str() {
        SET_OPTIONS => {
            let wrong = |error| Error::invalid(format!("the session's options do not decode: {error}"));
            let wanted = Options::decode(action.body.clone()).map_err(wrong)?;
            let mut errors = HashMap::new();
            for (name, OptionValue { value }) in wanted.options {
                if let Err(error) = set(&mut choices, &name, value) {
                    let value = if error.kind() == ErrorKind::NotFound { INVALID_NAME } else { INVALID_VALUE };
                    errors.insert(name, SetError { value });
                }
            }
            let cookie = format!("{COOKIE}={}; Path=/", to_cookie(&choices));
            Ok((SetResult { errors }.encode_to_vec().into(), Some(cookie)))
        }
        GET_OPTIONS => {
            let text = |value: &str| OptionValue { value: Some(Value::Text(value.to_owned())) };
            let mut options: HashMap<_, _> =
                choices.choices().into_iter().map(|(name, value)| (name.to_owned(), text(&value))).collect();
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

fn set(choices: &mut Presentation, name: &str, value: Option<Value>) -> Result<()> {
    let text = match value {
        Some(Value::Text(text)) => text,
        Some(Value::Int(number)) => number.to_string(),
        Some(Value::Bool(_) | Value::Double(_) | Value::List(_)) => {
            return Err(Error::invalid(format!("{name} takes text or a whole number")));
        }
        // A value that is none takes the option back.
        None if OPTIONS.contains(&name) => {
            choices.unset(name);
            return Ok(());
        }
        None => return choices.set(name, ""),
    };
    match name {
        // There is one of each, and whoever asks for it has it.
        "catalog" if text == CATALOG => Ok(()),
        "schema" if text == DB_SCHEMA => Ok(()),
        "catalog" | "schema" => Err(Error::invalid(format!("there is no {name} {text:?}"))),
        _ => choices.set(name, &text),
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::session::{
        CLOSE, GET_OPTIONS, INVALID_NAME, INVALID_VALUE, OptionValue, Options, SET_OPTIONS, SetResult, Value, act,
        choices,
    };
    use arrow_flight::Action;
    use prost::Message as _;
    use tonic::metadata::MetadataMap;

    fn set(options: &[(&str, Option<Value>)], metadata: &MetadataMap) -> (SetResult, String) {
        let options =
            options.iter().map(|(name, value)| ((*name).to_owned(), OptionValue { value: value.clone() })).collect();
        let action = Action::new(SET_OPTIONS, Options { options }.encode_to_vec());
        let (body, cookie) = act(&action, metadata).unwrap();
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
        assert_eq!(choices(&metadata).unwrap().to_line(), "time_zone=Asia/Tokyo;batch_rows=10");
        metadata.insert("x-zepto-time-zone", "UTC".parse().unwrap());
        assert_eq!(choices(&metadata).unwrap().to_line(), "time_zone=UTC;batch_rows=10", "headers go first");
        let (body, none) = act(&Action::new(GET_OPTIONS, ""), &metadata).unwrap();
        assert_eq!(Options::decode(body).unwrap().options["time_zone"].value, text("Asia/Tokyo"));
        assert!(none.is_none());
        let (result, cookie) =
            set(&[("time_zone", None), ("colour", text("red")), ("batch_rows", text("no"))], &metadata);
        let errors: Vec<_> = ["colour", "batch_rows"].iter().map(|name| result.errors[*name].value).collect();
        assert_eq!((errors, result.errors.len()), (vec![INVALID_NAME, INVALID_VALUE], 2));
        metadata.clear();
        metadata.insert("cookie", cookie.parse().unwrap());
        assert_eq!(choices(&metadata).unwrap().to_line(), "batch_rows=10");
        let (_, cookie) = act(&Action::new(CLOSE, ""), &metadata).unwrap();
        assert!(cookie.unwrap().contains("Max-Age=0"));
        metadata.insert("cookie", "arrow_flight_session_id=nonsense".parse().unwrap());
        assert_eq!(choices(&metadata).unwrap().to_line(), "", "a stale cookie breaks nothing");
    }
}
