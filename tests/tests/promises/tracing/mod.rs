//! One trace through the whole mesh, read by a foreign collector; and nothing
//! that happens to a trace happens to its request.

mod chain;
mod collectors;
mod context;

use http::{HeaderName, HeaderValue, Method};
use selvage_tests::body;
use selvage_tests::client::{Answer, Http1, request};
use selvage_tests::sidecar::ORDERS;
use std::net::SocketAddr;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// GET of `orders.shop` with these fields.
async fn call(outbound: SocketAddr, fields: &[(&str, &str)]) -> Answer {
    let mut sent = request(Method::GET, ORDERS, "/a", body::empty());
    for (name, value) in fields {
        sent.headers_mut().append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    let mut connection = Http1::connect(outbound).await;
    connection.call(sent).await.unwrap()
}

/// A well-formed `traceparent`, apart: trace, span, flags.
fn parts(traceparent: &str) -> (String, String, String) {
    let parts: Vec<_> = traceparent.split('-').collect();
    let [version, trace, span, flags] = parts[..] else {
        panic!("no traceparent: {traceparent}");
    };
    assert_eq!((version, trace.len(), span.len()), ("00", 32, 16));
    (trace.to_owned(), span.to_owned(), flags.to_owned())
}
