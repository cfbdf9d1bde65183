//! Large bodies, slow clients, and many of them.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{Server, TOKEN, create, receive, send};

const PATH: &str = "/v1.0/project/kms/create-datakey";
const MAX_BODY: usize = 256 * 1024;

#[test]
fn a_body_above_the_limit_is_answered_by_the_api() {
    let server = Server::tcp(&[]);
    let mut body = create().to_string().into_bytes();
    body.resize(MAX_BODY, b' ');
    assert_eq!(server.send("POST", PATH, &body).status, 200);
    // Also a client that reads the answer only after it has sent everything gets it.
    for length in [MAX_BODY + 1, 3 * MAX_BODY, 10 << 20] {
        body.resize(length, b' ');
        let answer = server.send("POST", PATH, &body);
        assert_eq!(answer.code(), (400, "KMS.0203".into()), "{length}");
        assert!(answer.head.contains("connection: close"));
    }
    // One that announces more is answered at once.
    let mut connection = server.connect();
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: k\r\nx-auth-token: {TOKEN}\r\n");
    connection
        .write_all(format!("{head}content-length: 1000000000000\r\n\r\n").as_bytes())
        .unwrap();
    assert_eq!(receive(&mut connection, "POST").code(), (400, "KMS.0203".into()));
    // In chunks, without a length.
    let chunk = |length: usize| format!("{length:x}\r\n{}\r\n", " ".repeat(length));
    for (length, status) in [(MAX_BODY - body.len().min(200), 200), (MAX_BODY, 400)] {
        let mut connection = server.connect();
        connection
            .write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes())
            .unwrap();
        let request = create().to_string();
        connection
            .write_all(format!("{:x}\r\n{request}\r\n", request.len()).as_bytes())
            .unwrap();
        connection.write_all((chunk(length) + "0\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(receive(&mut connection, "POST").status, status);
    }
    assert_eq!(server.send("POST", PATH, create().to_string().as_bytes()).status, 200);
}

#[test]
fn slow_clients_stop_nobody_and_are_closed() {
    let server = Server::tcp(&["--timeout", "3s", "--max-connections", "40"]);
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: k\r\nx-auth-token: {TOKEN}\r\ncontent-length: 90\r\n\r\n");
    let open = |sent: &str| {
        let mut connection = server.connect();
        connection.write_all(sent.as_bytes()).unwrap();
        connection
    };
    let in_head: Vec<_> = (0..15).map(|_| open("POST /v1.0/pro")).collect();
    let in_body: Vec<_> = (0..15).map(|_| open(&format!("{head}{{\"key"))).collect();
    let silent: Vec<_> = (0..5).map(|_| open("")).collect();
    assert_eq!(server.send("POST", PATH, create().to_string().as_bytes()).status, 200);
    for mut connection in in_body {
        assert_eq!(receive(&mut connection, "POST").status, 408);
        assert_eq!(connection.read(&mut [0; 10]).unwrap(), 0);
    }
    for mut connection in in_head.into_iter().chain(silent) {
        // An answer, such as 408, may come before the end.
        connection.read_to_end(&mut Vec::new()).unwrap();
    }
    // A client that drips its head byte by byte gets no more time.
    let begun = Instant::now();
    let mut dripping = server.connect();
    let broken = loop {
        if let Err(error) = dripping.write_all(b"x") {
            break error;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "it may drip forever");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(
        matches!(broken.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
        "{broken}"
    );
    assert_eq!(server.send("POST", PATH, create().to_string().as_bytes()).status, 200);
}

#[test]
fn a_client_that_reads_no_answer_is_closed() {
    let server = Server::tcp(&["--timeout", "3s"]);
    let mut connection = TcpStream::connect(&server.address).unwrap();
    connection.set_write_timeout(Some(Duration::from_secs(50))).unwrap();
    let requests = "GET /healthz HTTP/1.1\r\nhost: k\r\n\r\n".repeat(1000);
    let begun = Instant::now();
    // It ends when the buffers of both sides are full and the server gives up.
    let error = loop {
        if let Err(error) = connection.write_all(requests.as_bytes()) {
            break error;
        }
        assert!(begun.elapsed() < Duration::from_secs(50), "the server reads forever");
    };
    assert!(
        matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
        "the server waits forever: {error}"
    );
    assert_eq!(server.send("POST", PATH, create().to_string().as_bytes()).status, 200);
}

#[test]
fn a_thousand_connections_are_served_at_a_time() {
    // The clients need as many files as the server.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();

    let server = Server::tcp(&["--timeout", "60s"]);
    let mut connections: Vec<_> = (0..1000)
        .map(|_| TcpStream::connect(&server.address).unwrap())
        .collect();
    let body = create().to_string();
    let headers = format!("x-auth-token: {TOKEN}\r\n");
    for _ in 0..2 {
        for connection in &mut connections {
            let head = format!(
                "POST {PATH} HTTP/1.1\r\nhost: k\r\ncontent-length: {}\r\n{headers}\r\n",
                body.len()
            );
            connection.write_all((head + &body).as_bytes()).unwrap();
        }
        for connection in &mut connections {
            assert_eq!(receive(connection, "POST").status, 200);
        }
        // Another one is served while these are open.
        assert_eq!(send(&mut server.connect(), "GET", "/healthz", "", b"").status, 200);
    }
}

#[test]
fn above_the_limit_connections_wait() {
    let server = Server::tcp(&["--max-connections", "2", "--timeout", "60s"]);
    let (first, second) = (server.connect(), server.connect());
    let mut third = TcpStream::connect(&server.address).unwrap();
    third.write_all(b"GET /healthz HTTP/1.1\r\nhost: k\r\n\r\n").unwrap();
    third.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let waits = third.read(&mut [0]).unwrap_err().kind();
    assert!(matches!(waits, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{waits}");
    drop(first);
    third.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(receive(&mut third, "GET").status, 200);
    drop(second);
}
