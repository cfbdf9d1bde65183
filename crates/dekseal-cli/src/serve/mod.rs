//! `dekseal serve`: the KMS API for services in other languages on the same machine.

mod fresh;
mod listener;
mod log;
mod service;
mod token;

use std::{io, path::PathBuf, pin::pin, sync::Arc, thread, time::Duration};

use dekseal::{Engine, KeyId, StoreSettings, api::Operation};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;

use self::{
    fresh::Fresh,
    listener::{Address, Listener},
    log::Log,
    service::Service,
    token::Tokens,
};
use crate::{
    duration,
    failure::Failure,
    globals::Globals,
    keyring::AnyKeyring,
    output,
    process::{Signals, raise_open_files},
};

/// Serves the KMS API on a Unix socket or a loopback address
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// unix:PATH for a socket that only this user can use, or IP:PORT
    #[arg(long, value_name = "ADDRESS")]
    listen: String,

    /// A file with the tokens that callers must show, one on each line; needed for IP:PORT
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,

    /// Serve only this key; repeat it for several [default: all keys]
    #[arg(long = "allow-key", value_name = "KEY_ID")]
    keys: Vec<KeyId>,

    /// Serve only this operation, such as decrypt-datakey; repeat it for several [default: all operations]
    #[arg(long = "allow-operation", value_name = "OPERATION", value_parser = operation)]
    operations: Vec<Operation>,

    /// Allow an address that other machines can reach, because a proxy in front of it speaks TLS
    #[arg(long)]
    behind_tls_proxy: bool,

    /// The time for the head of a request, for its body, and for reading an answer
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration::parse)]
    timeout: Duration,

    /// The most connections at a time; more of them wait
    #[arg(long, default_value = "4096", value_name = "N")]
    max_connections: u32,

    /// How often a keyring file is read again, less than 1h; after an hour without success requests fail. A keyring in
    /// a database is checked in the background
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration::parse)]
    refresh: Duration,

    /// The time for requests to end after SIGTERM or SIGINT
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration::parse)]
    grace: Duration,
}

const HELP: &str = "\
Callers send POST /v1.0/{project}/kms/create-datakey and the other operations of the KMS API, with the token in \
`Authorization: Bearer TOKEN` or `X-Auth-Token: TOKEN`. GET /healthz needs no token. The access log goes to standard \
error; with --json it is JSON. It holds no token, no body and no context.

Example:
  dekseal serve --listen unix:/run/app/kms.sock";

pub(crate) fn run(args: Args, globals: &Globals) -> Result<(), Failure> {
    let address = Address::parse(&args.listen)?;
    if !address.is_local() && !args.behind_tls_proxy {
        return Err(Failure::usage(format!(
            "--listen {}: other machines can reach this address, and the answers hold DEKs in plaintext; listen on \
             127.0.0.1 or a Unix socket, or pass --behind-tls-proxy if a proxy speaks TLS",
            args.listen
        )));
    }
    let tokens = args.token_file.as_deref().map(Tokens::read).transpose()?;
    if tokens.is_none() && matches!(address, Address::Tcp(_)) {
        return Err(Failure::usage(
            "--token-file is missing: every user of this machine can connect to a TCP address; name a file of tokens",
        ));
    }
    let max_stale = StoreSettings::default().max_stale;
    check_refresh(args.refresh, max_stale)?;
    let keyring = globals.open()?;
    keyring.start_refresher()?;
    let service = Arc::new(Service {
        engine: Engine::new(Fresh { keyring, max_stale }),
        tokens,
        keys: args.keys,
        operations: args.operations,
        body_time: args.timeout,
    });
    let log = Log::start(globals.json)?;
    refresh(service.clone(), args.refresh)?;
    raise_open_files();
    let limits = Limits {
        timeout: args.timeout,
        connections: args.max_connections,
        grace: args.grace,
    };
    let runtime = runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::of_io("the runtime", &error))?;
    let served = runtime.block_on(serve(&address, &service, &limits));
    // A call that waits for a database does not hold up the end.
    runtime.shutdown_background();
    log.flush();
    served
}

fn operation(text: &str) -> Result<Operation, String> {
    let operations = [
        Operation::CreateDatakey,
        Operation::CreateDatakeyWithoutPlaintext,
        Operation::EncryptDatakey,
        Operation::DecryptDatakey,
    ];
    let found = operations.into_iter().find(|operation| operation.as_str() == text);
    found.ok_or_else(|| {
        let names = operations.map(|operation| operation.as_str()).join(", ");
        format!("unknown operation; use one of {names}")
    })
}

struct Limits {
    timeout: Duration,
    connections: u32,
    grace: Duration,
}

/// Serves until a signal, and then until the requests that were begun are answered.
async fn serve(address: &Address, service: &Arc<Service>, limits: &Limits) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(|error| Failure::of_io("the handler of signals", &error))?;
    let listener = Listener::bind(address).await?;
    let name = listener.name().map_err(|error| Failure::of_io("the socket", &error))?;
    output::write(|out| writeln!(out, "listening on {name}"))?;
    let graceful = GracefulShutdown::new();
    {
        let mut stopped = pin!(signals.next());
        let permits = Arc::new(Semaphore::new(
            usize::try_from(limits.connections).unwrap_or(usize::MAX).max(1),
        ));
        loop {
            // The semaphore is never closed.
            let permit = tokio::select! {
                () = &mut stopped => break,
                permit = permits.clone().acquire_owned() => permit.ok(),
            };
            let accepted = tokio::select! {
                () = &mut stopped => break,
                accepted = accept(&listener) => accepted,
            };
            match accepted {
                Ok(Stream::Tcp(stream)) => connection(stream, service.clone(), limits, &graceful, permit),
                #[cfg(unix)]
                Ok(Stream::Unix(stream)) => connection(stream, service.clone(), limits, &graceful, permit),
                Err(error) => {
                    // Mostly there are no file descriptors left. They come back when connections end.
                    tracing::warn!(target: "dekseal::serve", %error, "a connection could not be accepted");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
    // New callers are turned away at once.
    drop(listener);
    tracing::info!(target: "dekseal::serve", "stopping");
    tokio::select! {
        _ = timeout(limits.grace, graceful.shutdown()) => {}
        () = signals.next() => {}
    }
    Ok(())
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<Stream> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            // Answers are short.
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
        #[cfg(unix)]
        Listener::Unix(_, listener) => Ok(Stream::Unix(listener.accept().await?.0)),
    }
}

/// Serves a connection on its own task.
fn connection<S: AsyncRead + AsyncWrite + Send + 'static>(
    stream: S,
    service: Arc<Service>,
    limits: &Limits,
    graceful: &GracefulShutdown,
    permit: Option<OwnedSemaphorePermit>,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.timeout));
    let answer = service_fn(move |request: Request<Incoming>| {
        let service = service.clone();
        async move { Ok::<_, std::convert::Infallible>(service.answer(request).await) }
    });
    let mut builder = http1::Builder::new();
    // Also for the next request on the same connection.
    builder.timer(TokioTimer::new()).header_read_timeout(limits.timeout);
    // No client of the API needs longer heads.
    builder.max_buf_size(64 * 1024);
    let connection = graceful.watch(builder.serve_connection(TokioIo::new(Box::pin(stream)), answer));
    tokio::spawn(async move {
        // A client that breaks off is no event.
        let _ = connection.await;
        drop(permit);
    });
}

/// Refuses a time after which another process may already have destroyed the version that is in use.
fn check_refresh(refresh: Duration, max_stale: Duration) -> Result<(), Failure> {
    let refused = |reason: String| {
        let refresh = humantime::format_duration(refresh);
        Err(Failure::usage(format!("--refresh {refresh}: {reason}")))
    };
    if refresh.is_zero() {
        return refused("the keyring would be read without a pause; write a time such as 10s".into());
    }
    if refresh >= max_stale {
        let longest = humantime::format_duration(max_stale);
        return refused(format!(
            "write less than {longest}: after a rotation, `dekseal sweep` and `key destroy-versions` rely on every \
             process to read the keyring again within that time"
        ));
    }
    Ok(())
}

/// Reads changes of a keyring file, on its own thread because reading a file blocks.
fn refresh(service: Arc<Service>, interval: Duration) -> Result<(), Failure> {
    if !matches!(service.engine.keyring().keyring, AnyKeyring::File(_)) {
        return Ok(());
    }
    let refresher = thread::Builder::new().name("refresh".into()).spawn(move || {
        loop {
            thread::sleep(interval);
            if let Err(error) = service.engine.keyring().keyring.refresh() {
                tracing::warn!(target: "dekseal::serve", %error, "the keys stay as they were");
            }
        }
    });
    refresher
        .map(drop)
        .map_err(|error| Failure::of_io("the thread that refreshes the keys", &error))
}
