//! What each sample service does with a request: answer, or ask another. Pure.
//!
//! It refuses to know connections, modes and addresses.

use http::{Method, StatusCode};
use serde_json::{Value, json};

/// What to do with a request.
#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    /// Answer from here.
    Answer {
        /// The answer's status.
        status: StatusCode,
        /// The answer, to which the replica's name is added.
        answer: Value,
    },
    /// Ask another service and pass on what it says.
    Ask {
        /// `name:port` of the other service.
        upstream: &'static str,
        /// Method of the request to it.
        method: Method,
        /// Path of the request to it.
        path: String,
    },
}

const ORDERS: &str = "orders:80";
const INVENTORY: &str = "inventory:80";

/// The plan for a request, or none where the service has no such resource.
pub(super) fn plan(service: &str, method: &Method, path: &str) -> Option<Plan> {
    let ask = |upstream, method: &Method, path: String| {
        Some(Plan::Ask {
            upstream,
            method: method.clone(),
            path,
        })
    };
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (service, method.as_str(), segments.as_slice()) {
        ("gateway", "GET", ["orders", _]) | ("gateway", "POST", ["orders" | "quotes"]) => {
            ask(ORDERS, method, path.to_owned())
        }
        ("gateway", "GET", ["stock", _]) => ask(INVENTORY, method, path.to_owned()),
        ("orders", "GET", ["orders", id]) => ask(INVENTORY, &Method::GET, format!("/stock/{id}")),
        ("orders", "POST", ["orders"]) => ask(INVENTORY, &Method::POST, "/reservations".to_owned()),
        // A quote is a POST that only reads what lies below it.
        ("orders", "POST", ["quotes"]) => ask(INVENTORY, &Method::GET, "/stock/quote".to_owned()),
        ("inventory", "GET", ["stock", sku]) => Some(Plan::Answer {
            status: StatusCode::OK,
            answer: json!({ "sku": sku, "available": stock(sku) }),
        }),
        ("inventory", "POST", ["reservations"]) => Some(Plan::Answer {
            status: StatusCode::CREATED,
            answer: json!({ "reserved": true }),
        }),
        _ => None,
    }
}

/// Pieces in stock: made up, and the same on every replica.
pub(super) fn stock(sku: &str) -> u32 {
    sku.bytes().fold(7, |sum: u32, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte))
    }) % 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(service: &str, method: &Method, path: &str) -> Option<(&'static str, Method, String)> {
        match plan(service, method, path)? {
            Plan::Ask {
                upstream,
                method,
                path,
            } => Some((upstream, method, path)),
            Plan::Answer { .. } => None,
        }
    }

    #[test]
    fn every_request_of_the_load_ends_at_inventory() {
        for (method, path) in [
            (Method::GET, "/orders/7"),
            (Method::GET, "/stock/7"),
            (Method::POST, "/orders"),
            (Method::POST, "/quotes"),
        ] {
            let (mut service, mut method, mut path) = ("gateway", method, path.to_owned());
            let mut hops = 0;
            while let Some((upstream, next, below)) = asked(service, &method, &path) {
                service = upstream.split(':').next().expect("a name before the port");
                (method, path, hops) = (next, below, hops + 1);
            }
            assert_eq!(service, "inventory", "{path}");
            assert!((1..=2).contains(&hops));
            assert!(
                matches!(plan(service, &method, &path), Some(Plan::Answer { status, .. }) if status.is_success())
            );
        }
    }

    #[test]
    fn what_is_not_there_has_no_plan() {
        for (service, method, path) in [
            ("gateway", Method::GET, "/"),
            ("gateway", Method::DELETE, "/orders/7"),
            ("orders", Method::GET, "/stock/7"),
            ("inventory", Method::POST, "/orders"),
            ("load", Method::GET, "/orders/7"),
        ] {
            assert_eq!(
                plan(service, &method, path),
                None,
                "{service} {method} {path}"
            );
        }
    }
}
