//! A small HTTP/1.1 client over one kept-alive connection: all a load generator and a status command need, at the
//! least possible cost per request.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes of a response's head.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Bytes of a response's body. A block of 10,000 transaction hashes is below 1 MiB.
const BODY_BYTES_MAX: usize = 256 << 20;

const READ_BYTES: usize = 16 << 10;

/// An `http://host:port/path` address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    /// Host name or address.
    pub host: String,
    /// Port; 80 unless given.
    pub port: u16,
    /// Path with a leading slash.
    pub path: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some((scheme, _)) => {
                return Err(format!("{text}: {scheme}:// is not supported, use http://host:port"));
            }
            None => text,
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') || host.ends_with(']') => {
                (host, port.parse().map_err(|_| format!("{text}: \"{port}\" is not a port"))?)
            }
            _ => (authority, 80),
        };
        if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{text}: no host, expected http://host:port"));
        }
        let path = if path.is_empty() { "/".into() } else { path.to_owned() };
        Ok(Self { host: host.to_owned(), port, path })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.path)
    }
}

impl Url {
    /// The same server, another path.
    pub fn with_path(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    /// Bytes of a JSON POST, ready to send.
    pub fn post(&self, body: &[u8]) -> Vec<u8> {
        let mut request = format!(
            "POST {} HTTP/1.1\r\nHost: {}:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.path,
            self.host,
            self.port,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        request
    }

    /// Bytes of a GET, ready to send.
    pub fn get(&self) -> Vec<u8> {
        format!("GET {} HTTP/1.1\r\nHost: {}:{}\r\n\r\n", self.path, self.host, self.port).into_bytes()
    }
}

/// One connection, opened when first needed and again after any failure.
pub struct Connection {
    url: Url,
    timeout: Duration,
    body_bytes_max: usize,
    stream: Option<TcpStream>,
    received: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// HTTP status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Connection {
    /// A connection to `url`'s server; every exchange takes at most `timeout`.
    pub fn new(url: Url, timeout: Duration) -> Self {
        Self { url, timeout, body_bytes_max: BODY_BYTES_MAX, stream: None, received: Vec::new() }
    }

    /// Refuses longer bodies than this.
    #[must_use]
    pub fn with_body_limit(self, body_bytes_max: usize) -> Self {
        Self { body_bytes_max, ..self }
    }

    /// Where it goes.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Sends the bytes of a request and reads the answer. After an error the next request connects anew.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<Response> {
        let result = match tokio::time::timeout(self.timeout, self.try_exchange(request)).await {
            Ok(result) => result,
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", self.timeout)))
            }
        };
        if result.is_err() {
            self.stream = None;
        }
        result
    }

    async fn try_exchange(&mut self, request: &[u8]) -> io::Result<Response> {
        self.received.clear();
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let host = self.url.host.trim_start_matches('[').trim_end_matches(']');
                let stream = TcpStream::connect((host, self.url.port)).await?;
                stream.set_nodelay(true)?;
                none.insert(stream)
            }
        };
        stream.write_all(request).await?;
        let head = loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                break Head::parse(&self.received[..end + 2], end + 4, self.body_bytes_max)?;
            }
            if self.received.len() > HEAD_BYTES_MAX {
                return Err(bad("the response's head is longer than 64 KiB"));
            }
            read_more(stream, &mut self.received).await?;
        };
        let body = match head.body {
            Body::Length(length) => {
                while self.received.len() < head.bytes + length {
                    read_more(stream, &mut self.received).await?;
                }
                self.received[head.bytes..head.bytes + length].to_vec()
            }
            Body::Chunked => read_chunks(stream, &mut self.received, head.bytes, self.body_bytes_max).await?,
        };
        if head.close {
            self.stream = None;
        }
        Ok(Response { status: head.status, body })
    }
}

enum Body {
    Length(usize),
    Chunked,
}

struct Head {
    status: u16,
    bytes: usize,
    body: Body,
    close: bool,
}

impl Head {
    /// Parses the lines of a head that takes `bytes` with its empty line.
    fn parse(text: &[u8], bytes: usize, body_bytes_max: usize) -> io::Result<Self> {
        let text = std::str::from_utf8(text).map_err(|_| bad("the response's head is not text"))?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| bad("not an HTTP response"))?;
        let mut head = Self { status, bytes, body: Body::Length(0), close: false };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                let length: usize = value.parse().map_err(|_| bad("unreadable Content-Length"))?;
                if length > body_bytes_max {
                    return Err(too_long(body_bytes_max));
                }
                head.body = Body::Length(length);
            } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked")
            {
                head.body = Body::Chunked;
            } else if name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close") {
                head.close = true;
            }
        }
        Ok(head)
    }
}

async fn read_more(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<()> {
    received.reserve(READ_BYTES);
    match stream.read_buf(received).await? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
        _ => Ok(()),
    }
}

async fn read_chunks(
    stream: &mut TcpStream,
    received: &mut Vec<u8>,
    start: usize,
    body_bytes_max: usize,
) -> io::Result<Vec<u8>> {
    let (mut position, mut body) = (start, Vec::new());
    loop {
        let line_end = loop {
            match find(&received[position..], b"\r\n") {
                Some(end) => break position + end,
                None if received.len() - position > HEAD_BYTES_MAX => {
                    return Err(bad("a chunk's head is longer than 64 KiB"));
                }
                None => read_more(stream, received).await?,
            }
        };
        let digits = std::str::from_utf8(&received[position..line_end]).unwrap_or_default();
        let digits = digits.split(';').next().unwrap_or_default().trim();
        let length = usize::from_str_radix(digits, 16).map_err(|_| bad("unreadable chunk length"))?;
        if length.saturating_add(body.len()) > body_bytes_max {
            return Err(too_long(body_bytes_max));
        }
        let (from, to) = (line_end + 2, line_end + 2 + length);
        while received.len() < to + 2 {
            read_more(stream, received).await?;
        }
        body.extend_from_slice(&received[from..to]);
        position = to + 2;
        if length == 0 {
            return Ok(body);
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn too_long(body_bytes_max: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the response is longer than {body_bytes_max} bytes"))
}

fn bad(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn addresses_parse_or_say_what_is_expected() {
        let url: Url = "http://127.0.0.1:8545".parse().unwrap();
        assert_eq!(url, Url { host: "127.0.0.1".into(), port: 8545, path: "/".into() });
        assert_eq!("localhost:1/x".parse::<Url>().unwrap().path, "/x");
        assert_eq!("http://node".parse::<Url>().unwrap().port, 80);
        assert_eq!("http://[::1]:7/".parse::<Url>().unwrap().host, "[::1]");
        for wrong in ["https://node", "http://", "http://node:port", "ws://x"] {
            assert!(wrong.parse::<Url>().unwrap_err().contains(wrong), "{wrong}");
        }
    }

    /// Answers each request on one connection with the next of `answers`, in pieces of `piece` bytes.
    async fn server(answers: Vec<&'static str>, piece: usize) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            for answer in answers {
                let mut buffer = [0; 4096];
                assert!(stream.read(&mut buffer).await.unwrap() > 0);
                for part in answer.as_bytes().chunks(piece) {
                    stream.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        Url { host: "127.0.0.1".into(), port, path: "/".into() }
    }

    #[tokio::test]
    async fn responses_with_lengths_and_chunks_arrive_whole_in_any_pieces() {
        for piece in [1, 7, 1000] {
            let url = server(
                vec![
                    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
                    "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=1\r\nde\r\n0\r\n\r\n",
                ],
                piece,
            )
            .await;
            let mut connection = Connection::new(url.clone(), Duration::from_secs(5));
            let first = connection.exchange(&url.get()).await.unwrap();
            assert_eq!((first.status, first.body.as_slice()), (200, b"hello".as_slice()));
            let second = connection.exchange(&url.post(b"{}")).await.unwrap();
            assert_eq!((second.status, second.body.as_slice()), (404, b"abcde".as_slice()));
            assert!(connection.exchange(&url.get()).await.is_err(), "the server is gone");
        }
    }

    #[tokio::test]
    async fn nonsense_and_oversized_answers_are_errors() {
        for answer in ["nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n"] {
            let url = server(vec![answer], 1000).await;
            let error =
                Connection::new(url.clone(), Duration::from_secs(5)).exchange(&url.get()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
