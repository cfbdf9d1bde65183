//! The handler. docs/guide/kms-api.md shows it.

// ANCHOR: handler
use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use dekseal::{Engine, FileKeyring, api};

type Kms = Arc<Engine<FileKeyring>>;

async fn kms(State(engine): State<Kms>, method: Method, uri: Uri, body: Result<Bytes, BytesRejection>) -> Response {
    // axum refuses a body above the limit. A body that is one byte too long makes the library answer for that case.
    let body = body.unwrap_or(Bytes::from_static(&[0; api::MAX_BODY + 1]));
    let answer = api::handle(&engine, method.as_str(), uri.path(), &body);
    let status = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, answer.body().to_owned()).into_response()
}

/// Routes all paths to the handler. The library refuses paths that are not in the API.
pub fn router(engine: Kms) -> Router {
    let limit = DefaultBodyLimit::max(api::MAX_BODY);
    Router::new().fallback(kms).layer(limit).with_state(engine)
}
// ANCHOR_END: handler
