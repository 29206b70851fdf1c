//! The operator API as the commands call it: one request, one JSON answer, within a time and a size.
//!
//! It stands below the commands. Its errors say what to do; it refuses to know what answers mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::args::OperatorArgs;

/// How long one call may take, from connecting to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const ANSWER_LIMIT: usize = 32 * 1024 * 1024;
/// The largest token file that is read; a token is far smaller.
const TOKEN_LIMIT: u64 = 4096;
/// Characters of an unexpected answer that are shown.
const SHOWN: usize = 300;

/// Why there is no answer to work with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("{url} is no URL of a control plane: expected http://HOST:PORT")]
    Url { url: String },
    #[error(
        "{url}: https is not supported yet; the operator API listens on loopback, at http://127.0.0.1:15014 by default"
    )]
    Https { url: String },
    #[error(
        "no control plane at {url} ({cause}): start one with `selvage control-plane`, or name another with --server"
    )]
    Away { url: String, cause: String },
    #[error("{url} did not answer within {} s: is it a control plane?", TIMEOUT.as_secs())]
    Timeout { url: String },
    #[error("cannot read the operator's token {} ({cause}): run this in the folder that holds the control plane's \
        data, or name the file with --token-file", .path.display())]
    Token { path: PathBuf, cause: String },
    #[error("the control plane at {url} refused the token of {}: it is another control plane's; \
        name the right one with --token-file", .path.display())]
    Unauthorized { url: String, path: PathBuf },
    #[error("{url} answered what no control plane answers ({what}): check --server")]
    Strange { url: String, what: String },
}

/// An answer: its status and its JSON.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Answer {
    /// What the control plane says is wrong, as one line.
    pub(crate) fn complaint(&self) -> String {
        match self.body["error"]
            .as_str()
            .or_else(|| self.body["message"].as_str())
        {
            Some(text) => text.to_owned(),
            None => format!(
                "the control plane answered {}: {}",
                self.status.as_u16(),
                self.body
            ),
        }
    }
}

/// A caller of one control plane.
#[derive(Debug)]
pub(crate) struct Client {
    url: String,
    authority: String,
    token_file: PathBuf,
}

impl Client {
    /// For the server that the options name. Nothing is read or connected yet.
    pub(crate) fn new(args: &OperatorArgs) -> Result<Self, ClientError> {
        let url = args.server.trim_end_matches('/').to_owned();
        let parsed: Option<Uri> = url.parse().ok();
        let authority = parsed.as_ref().and_then(Uri::authority);
        let (Some(parsed), Some(authority)) = (&parsed, authority) else {
            return Err(ClientError::Url { url });
        };
        match parsed.scheme_str() {
            Some("http") if matches!(parsed.path(), "" | "/") && parsed.query().is_none() => {}
            Some("https") => return Err(ClientError::Https { url }),
            _ => return Err(ClientError::Url { url }),
        }
        let port = authority.port_u16().unwrap_or(80);
        let authority = format!("{}:{port}", authority.host());
        let token_file = args
            .token_file
            .clone()
            .unwrap_or_else(|| args.data_dir.join("operator.token"));
        Ok(Self {
            url,
            authority,
            token_file,
        })
    }

    /// Where the control plane is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// GET of JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.call(Method::GET, path, "application/json", String::new())
            .await
    }

    /// A request with the operator's token and a JSON answer.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: String,
    ) -> Result<Answer, ClientError> {
        let token = token(&self.token_file)?;
        let bearer = format!("Bearer {token}");
        let (status, text) = self
            .exchange(
                method,
                path,
                &[(AUTHORIZATION, &bearer), (CONTENT_TYPE, content)],
                body,
            )
            .await?;
        if status == StatusCode::UNAUTHORIZED {
            return Err(ClientError::Unauthorized {
                url: self.url.clone(),
                path: self.token_file.clone(),
            });
        }
        let body = if text.trim().is_empty() {
            Ok(Value::Null)
        } else {
            serde_json::from_str(&text)
        };
        match body {
            Ok(body) => Ok(Answer { status, body }),
            // An error told in words is one all the same.
            Err(_) if !status.is_success() => Ok(Answer {
                status,
                body: serde_json::json!({ "error": text.trim() }),
            }),
            Err(_) => {
                let what = format!(
                    "{} and {:?}",
                    status.as_u16(),
                    text.chars().take(SHOWN).collect::<String>()
                );
                Err(ClientError::Strange {
                    url: self.url.clone(),
                    what,
                })
            }
        }
    }

    /// GET of text that needs no token: `/ready`, `/metrics`.
    pub(crate) async fn text(&self, path: &str) -> Result<(StatusCode, String), ClientError> {
        self.exchange(Method::GET, path, &[], String::new()).await
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(hyper::header::HeaderName, &str)],
        body: String,
    ) -> Result<(StatusCode, String), ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|error| self.away(&error))?;
        match tokio::time::timeout(TIMEOUT, self.send(request)).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout {
                url: self.url.clone(),
            }),
        }
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, String), ClientError> {
        let stream = TcpStream::connect(&self.authority)
            .await
            .map_err(|error| self.away(&error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.away(&error))?;
        // It ends with the exchange: the sender is dropped below.
        tokio::spawn(connection);
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.strange(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT)
            .collect()
            .await;
        let body = body
            .map_err(|error| self.strange(error.as_ref()))?
            .to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    fn away(&self, cause: &dyn std::error::Error) -> ClientError {
        ClientError::Away {
            url: self.url.clone(),
            cause: cause.to_string(),
        }
    }

    fn strange(&self, what: &dyn std::error::Error) -> ClientError {
        ClientError::Strange {
            url: self.url.clone(),
            what: what.to_string(),
        }
    }
}

fn token(path: &Path) -> Result<String, ClientError> {
    let refuse = |cause: String| ClientError::Token {
        path: path.to_owned(),
        cause,
    };
    let size = std::fs::metadata(path)
        .map_err(|error| refuse(error.to_string()))?
        .len();
    if size > TOKEN_LIMIT {
        return Err(refuse("too large to be a token".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refuse("it holds no token".to_owned()));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Format, Output};

    fn client(server: &str) -> Result<Client, ClientError> {
        Client::new(&OperatorArgs {
            server: server.to_owned(),
            token_file: None,
            data_dir: PathBuf::from("data"),
            output: Output {
                output: Format::Table,
            },
        })
    }

    #[test]
    fn only_a_plain_url_is_a_server() {
        for (server, authority) in [
            ("http://127.0.0.1:15014", Some("127.0.0.1:15014")),
            ("http://127.0.0.1:15014/", Some("127.0.0.1:15014")),
            ("http://localhost", Some("localhost:80")),
            ("http://[::1]:9", Some("[::1]:9")),
            ("https://127.0.0.1:15014", None),
            ("127.0.0.1:15014", None),
            ("http://", None),
            ("http://a:1/path", None),
            ("", None),
        ] {
            let found = client(server).ok().map(|client| client.authority);
            assert_eq!(found.as_deref(), authority, "{server}");
        }
    }

    #[test]
    fn the_token_lies_in_the_data_folder_unless_named() {
        let client = client("http://127.0.0.1:1").expect("a URL");
        assert_eq!(client.token_file, Path::new("data/operator.token"));
    }
}
