//! Malformed requests are rejected at the door: an error, the connection
//! closed, and not one byte at the origin; malformed answers reach no caller.
//! The rows come from the advisories of other proxies.

mod answers; // of applications over HTTP/1.1
mod http1; // heads, chunks, trailers, expectations
mod http2; // hand-made frames

use std::sync::{Arc, Mutex};

use selvage_tests::app::RawApp;

/// An origin that keeps every byte it is sent, and answers whatever it is.
async fn recording() -> (RawApp, Arc<Mutex<Vec<u8>>>) {
    let received = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&received);
    let app = RawApp::start(move |mut wire, _| {
        let kept = Arc::clone(&kept);
        async move {
            while let Ok(bytes) = wire.some().await {
                if bytes.is_empty() {
                    break;
                }
                kept.lock().unwrap().extend(&bytes);
                if bytes.ends_with(b"\r\n\r\n") {
                    let _ = wire
                        .try_send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                        .await;
                }
            }
        }
    })
    .await;
    (app, received)
}
