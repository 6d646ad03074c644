//! The node's subnets from the API server, by `kubectl proxy --unix-socket`: that one has the credentials, this
//! program asks in plain HTTP over the socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use node::{Context, Error, Kind, Result};

use super::source::{self, Given};

/// Of one question. A proxy that is there answers at once.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two questions, and between two lines that say why it takes long.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// A Node object has some ten kilobytes.
const LONGEST: u64 = 8 << 20;
const MOST_HEADERS: usize = 64;

/// Asks until the node has subnets. `pause` waits and says whether to give up, which is `None`; `tell` hands a line
/// to a person.
pub(super) fn wait(
    socket: &Path,
    node: &str,
    pause: &dyn Fn(Duration) -> Result<bool>,
    tell: &dyn Fn(&str),
) -> Result<Option<Given>> {
    let mut told: Option<(Instant, String)> = None;
    loop {
        let why = match ask(socket, node) {
            Ok(Some(given)) => return Ok(Some(given)),
            Ok(None) => "it has no spec.podCIDRs yet".to_owned(),
            Err(error) => error.chain(),
        };
        let due = told.as_ref().is_none_or(|(since, last)| *last != why || since.elapsed() > PAUSES.1);
        if due {
            tell(&format!("waiting for the subnets of the node `{node}`: {why}"));
            told = Some((Instant::now(), why));
        }
        if pause(PAUSES.0)? {
            return Ok(None);
        }
    }
}

/// One question. `None` where the node is there and has no subnets yet.
pub(super) fn ask(socket: &Path, node: &str) -> Result<Option<Given>> {
    let doing = || format!("ask `{}` for the node `{node}`", socket.display());
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    if node.is_empty() || !node.chars().all(is_name) {
        return Err(
            Error::caused(Kind::Usage, doing(), "that is no node's name").hint("say --node-name NAME")
        );
    }
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        // By 1.0 the answer ends with the connection, and comes in one piece.
        let head = "HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("GET /api/v1/nodes/{node} {head}").as_bytes())?;
        let mut answer = Vec::new();
        stream.take(LONGEST).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().doing(Kind::Unavailable, doing)?;
    let body = body_of(&answer).map_err(|why| Error::caused(Kind::Unavailable, doing(), why))?;
    source::of_answer(body, node)
}

/// The body of an answer that is good.
fn body_of(answer: &[u8]) -> Result<&[u8], String> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let length = match head.parse(answer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Err("the answer is cut off".to_owned()),
        Err(error) => return Err(format!("the answer is no HTTP: {error}")),
    };
    let body = answer.get(length..).unwrap_or_default();
    if head.code != Some(200) {
        let said = serde_json::from_slice::<serde_json::Value>(body).ok();
        let said = said.and_then(|status| Some(status.get("message")?.as_str()?.to_owned()));
        let code = head.code.unwrap_or_default();
        return Err(format!(
            "the answer is {code} {}",
            said.unwrap_or_else(|| head.reason.unwrap_or("").to_owned())
        ));
    }
    let header =
        |name: &str| head.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
    if header("transfer-encoding").is_some() {
        return Err("the answer comes in chunks, which HTTP/1.0 does not know".to_owned());
    }
    let told = header("content-length")
        .and_then(|value| std::str::from_utf8(value).ok()?.trim().parse::<usize>().ok());
    if told.is_some_and(|told| told > body.len()) {
        return Err("the answer is cut off".to_owned());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        assert_eq!(body_of(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Ok(&b"{}"[..]));
        assert_eq!(body_of(b"HTTP/1.1 200 OK\r\n\r\n{}"), Ok(&b"{}"[..]));
        let table: [(&[u8], &str); 5] = [
            (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n{}", "cut off"),
            (b"HTTP/1.0 200", "cut off"),
            (
                b"HTTP/1.0 403 Forbidden\r\n\r\n{\"message\": \"nodes is forbidden\"}",
                "403 nodes is forbidden",
            ),
            (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "chunks"),
            (b"{}", "no HTTP"),
        ];
        for (answer, part) in table {
            let why = body_of(answer).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
        assert!(ask(Path::new("/nonexistent"), "../pods").unwrap_err().chain().contains("no node's name"));
    }
}
