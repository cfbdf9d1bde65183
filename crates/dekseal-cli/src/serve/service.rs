//! What the server answers to one request.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use dekseal::{
    Engine, KeyId,
    api::{self, Operation, Response as Answer},
};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue},
};
use tokio::{task::spawn_blocking, time::timeout};
use zeroize::Zeroizing;

use super::{fresh::Fresh, token::Tokens};

/// What all connections share.
pub(crate) struct Service {
    pub(crate) engine: Engine<Fresh>,
    /// `None` on a Unix socket without tokens, whose mode admits its owner alone.
    pub(crate) tokens: Option<Tokens>,
    /// The keys and operations that are served, or all if there are none.
    pub(crate) keys: Vec<KeyId>,
    pub(crate) operations: Vec<Operation>,
    /// The time for the body of a request.
    pub(crate) body_time: Duration,
}

/// What the access log says about a request. Nothing in it was chosen by a caller without a token, and nothing is
/// secret.
#[derive(Default)]
struct Entry {
    operation: Option<&'static str>,
    key_id: Option<KeyId>,
    code: Option<&'static str>,
}

/// A body that is too long is read to its end up to this length, so that the client comes to read the answer.
const DRAINED: u64 = 16 * 1024 * 1024;

/// Why there is no body.
enum NoBody {
    TooLong,
    Late,
    Broken,
}

impl Service {
    /// Answers a request, and logs it.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let begun = Instant::now();
        let mut entry = Entry::default();
        let method = known(request.method());
        let response = self.respond(request, &mut entry).await;
        tracing::info!(
            target: "dekseal::access",
            method,
            operation = entry.operation,
            key_id = entry.key_id.as_ref().map(KeyId::as_str),
            status = response.status().as_u16(),
            code = entry.code,
            microseconds = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            "request"
        );
        response
    }

    async fn respond(self: Arc<Self>, request: Request<Incoming>, entry: &mut Entry) -> Response<Full<Bytes>> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if request.uri().path() == "/healthz" && is_read {
            entry.operation = Some("healthz");
            return plain(StatusCode::OK, "ok\n");
        }
        if let Some(tokens) = &self.tokens
            && !tokens.admit(request.headers())
        {
            // Not even whether there is such a path or key.
            return closing(json(Answer::forbidden(), entry));
        }
        let (head, body) = request.into_parts();
        let body = match timeout(self.body_time, read(body)).await.unwrap_or(Err(NoBody::Late)) {
            Ok(body) => body,
            // The library answers for a body that is one byte too long.
            Err(NoBody::TooLong) => {
                let body = Zeroizing::new(vec![0; api::MAX_BODY.saturating_add(1)]);
                return closing(self.execute(head, body, entry).await);
            }
            Err(NoBody::Late) => return closing(plain(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n")),
            Err(NoBody::Broken) => return closing(plain(StatusCode::BAD_REQUEST, "the body is broken\n")),
        };
        self.execute(head, body, entry).await
    }

    async fn execute(
        self: Arc<Self>,
        head: hyper::http::request::Parts,
        body: Zeroizing<Vec<u8>>,
        entry: &mut Entry,
    ) -> Response<Full<Bytes>> {
        let request = match api::Request::parse(head.method.as_str(), head.uri.path(), &body) {
            Ok(request) => request,
            Err(refusal) => return json(refusal, entry),
        };
        drop(body);
        entry.operation = Some(request.operation().as_str());
        entry.key_id = Some(request.key_id());
        if !self.serves(&request) {
            return json(Answer::forbidden(), entry);
        }
        // The keyring may ask a database or read a file, which must not hold up other connections.
        let executed = spawn_blocking(move || request.execute(&self.engine)).await;
        match executed {
            Ok(answer) => json(answer, entry),
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n"),
        }
    }

    fn serves(&self, request: &api::Request) -> bool {
        (self.keys.is_empty() || self.keys.contains(&request.key_id()))
            && (self.operations.is_empty() || self.operations.contains(&request.operation()))
    }
}

/// Reads a body of up to the longest that the API accepts.
async fn read(mut body: Incoming) -> Result<Zeroizing<Vec<u8>>, NoBody> {
    let announced = body.size_hint().lower();
    if announced > DRAINED {
        return Err(NoBody::TooLong);
    }
    // A buffer that grows would leave parts of a DEK in freed memory.
    let capacity = usize::try_from(announced).unwrap_or_default().min(api::MAX_BODY);
    let capacity = if body.size_hint().exact().is_some() {
        capacity
    } else {
        api::MAX_BODY
    };
    let mut read = Zeroizing::new(Vec::with_capacity(capacity));
    let mut length: u64 = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| NoBody::Broken)?.into_data() else {
            continue;
        };
        length = length.saturating_add(data.len() as u64);
        if length > DRAINED {
            break;
        }
        if length <= api::MAX_BODY as u64 {
            read.extend_from_slice(&data);
        }
    }
    if length > api::MAX_BODY as u64 {
        return Err(NoBody::TooLong);
    }
    Ok(read)
}

/// The answer of the library. Its text can hold a DEK, and is wiped once it was sent.
fn json(answer: Answer, entry: &mut Entry) -> Response<Full<Bytes>> {
    struct Wiped(Answer);

    impl AsRef<[u8]> for Wiped {
        fn as_ref(&self) -> &[u8] {
            self.0.body().as_bytes()
        }
    }

    entry.code = answer.error_code();
    let status = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response(status, "application/json", Bytes::from_owner(Wiped(answer)))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Closes the connection after a response: the client may still be sending.
fn closing(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A method for the log. A caller may choose any other word.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::POST => "POST",
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}
