//! The handler. The guide kms-api shows this file, to the letter.

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
    // A body beyond the limit was not read. One that is too long by a byte stands for it, and gets the API's answer.
    let body = body.unwrap_or(Bytes::from_static(&[0; api::MAX_BODY + 1]));
    let answer = api::handle(&engine, method.as_str(), uri.path(), &body);
    let status = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, answer.body().to_owned()).into_response()
}

/// Every path goes to the handler: the library answers what is none of the API.
pub fn router(engine: Kms) -> Router {
    let limit = DefaultBodyLimit::max(api::MAX_BODY);
    Router::new().fallback(kms).layer(limit).with_state(engine)
}
