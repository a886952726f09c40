//! Handshake: answers a bearer token. There are no accounts yet, so all credentials are accepted that decode.
//!
//! Drivers send a name and password as HTTP Basic and want a bearer token back, as a header (pyarrow, Go, Java) or as
//! the payload of the message (older ones). Go leaves out the padding of base64.

use crate::adapters::flight::call::{Items, RpcResult, admit, items, reply};
use crate::adapters::flight::state::State;
use crate::adapters::flight::wire::error_from_status;
use crate::ports::{Error, ErrorKind, Result};
use arrow_flight::{BasicAuth, HandshakeRequest, HandshakeResponse};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::{Request, Streaming};

/// The token of every client, until there are accounts.
const TOKEN: &str = "everybody";

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Answers a Handshake.
pub async fn handshake(
    state: &State,
    request: Request<Streaming<HandshakeRequest>>,
) -> RpcResult<Items<HandshakeResponse>> {
    let mut admitted = admit(state, "Handshake", &request)?;
    let (metadata, _, mut messages) = request.into_parts();
    let token = reply(&mut admitted, token(&metadata, &mut messages).await)?;
    let bearer = format!("Bearer {}", token.get_ref()).parse();
    let mut response = token.map(|token| items(vec![HandshakeResponse { protocol_version: 0, payload: token.into() }]));
    if let Ok(bearer) = bearer {
        response.metadata_mut().insert("authorization", bearer);
    }
    Ok(response)
}

/// Returns the token for the credentials in the header, or else in the first message.
async fn token(metadata: &MetadataMap, messages: &mut Streaming<HandshakeRequest>) -> Result<String> {
    if let Some(given) = metadata.get("authorization") {
        return token_for(given.to_str().unwrap_or_default());
    }
    let first = messages.message().await.map_err(|status| error_from_status(&status))?.unwrap_or_default();
    match BasicAuth::decode(first.payload) {
        Ok(_) => Ok(TOKEN.to_owned()),
        Err(_) => Err(unreadable("the payload of the handshake is not a BasicAuth message")),
    }
}

fn token_for(authorization: &str) -> Result<String> {
    let (scheme, given) = authorization.split_once(' ').unwrap_or((authorization, ""));
    if scheme.eq_ignore_ascii_case("bearer") && !given.is_empty() {
        return Ok(given.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(unreadable("the authorization header is neither Basic nor Bearer"));
    }
    let decoded = BASE64.decode(given.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded {
        Some(text) if text.contains(':') => Ok(TOKEN.to_owned()),
        _ => Err(unreadable("the Basic credentials are not base64 of name:password")),
    }
}

fn unreadable(message: &str) -> Error {
    Error::new(ErrorKind::Unauthenticated, message)
}

#[cfg(test)]
mod tests {
    use crate::adapters::flight::rpc::handshake::token_for;
    use crate::ports::ErrorKind;

    #[test]
    fn credentials_are_read_however_they_are_padded() {
        for good in ["Basic dXNlcjpwYQ==", "Basic dXNlcjpwYQ", "basic Og==", "Bearer abc"] {
            token_for(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        assert_eq!(token_for("Bearer abc").unwrap(), "abc");
        for bad in ["Basic", "Basic !!!", "Basic dXNlcg==", "Digest x", ""] {
            assert_eq!(token_for(bad).unwrap_err().kind(), ErrorKind::Unauthenticated, "{bad}");
        }
    }
}
