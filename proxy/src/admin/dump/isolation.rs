//! What keeps a slow or failing service from its callers, beside retries and
//! breakers, as JSON for people.

use selvage_policy::fallback::{FallbackOn, FallbackPolicy, FallbackTo};
use selvage_policy::fault::{Abort, FaultPolicy};
use selvage_policy::hedge::{HedgeDelay, HedgePolicy};
use selvage_policy::mirror::MirrorPolicy;
use selvage_policy::snapshot::Backend;
use serde_json::{Value, json};

use super::{milliseconds, words};

pub(super) fn hedge(policy: &HedgePolicy) -> Value {
    let HedgePolicy {
        delay,
        max_percent,
        methods,
    } = policy;
    let (percentile, after) = match delay {
        HedgeDelay::Percentile(percent) => (Some(percent), None),
        HedgeDelay::After(delay) => (None, Some(milliseconds(*delay))),
    };
    json!({
        "delayPercentile": percentile,
        "delayMs": after,
        "maxPercent": max_percent,
        "methods": words(methods),
    })
}

pub(super) fn fallback(policy: &FallbackPolicy) -> Value {
    let FallbackPolicy { name, on, to } = policy;
    let FallbackOn {
        flags,
        statuses,
        grpc_statuses,
    } = on;
    let (service, response) = match to {
        FallbackTo::Service(to) => (Some(backend(to)), None),
        FallbackTo::Response(response) => {
            let status = response.status.as_u16();
            let shown = json!({ "status": status, "bodyBytes": response.body.len() });
            (None, Some(shown))
        }
    };
    json!({
        "name": &**name,
        "on": {
            "flags": flags.iter().map(|flag| flag.as_str()).collect::<Vec<_>>(),
            "statuses": statuses.iter().map(http::StatusCode::as_u16).collect::<Vec<_>>(),
            "grpcStatuses": grpc_statuses,
        },
        "service": service,
        "response": response,
    })
}

pub(super) fn fault(policy: &FaultPolicy) -> Value {
    let FaultPolicy {
        delay,
        abort,
        headers,
    } = policy;
    let delay = delay.map(
        |(share, delay)| json!({ "percent": share.percent(), "durationMs": milliseconds(delay) }),
    );
    let abort = abort.map(|(share, abort)| {
        let how = match abort {
            Abort::Status(status) => json!(status.as_u16()),
            Abort::Grpc(grpc) => json!(grpc.name()),
            Abort::Reset => json!("reset"),
        };
        json!({ "percent": share.percent(), "with": how })
    });
    // Names alone: a value may be somebody's secret.
    let headers: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    json!({ "delay": delay, "abort": abort, "headers": headers })
}

pub(super) fn mirror(policy: &MirrorPolicy) -> Value {
    let MirrorPolicy {
        to,
        share,
        max_pending,
        host_suffix,
    } = policy;
    json!({
        "service": backend(to),
        "percent": share.percent(),
        "maxPending": max_pending,
        "hostSuffix": host_suffix,
    })
}

pub(super) fn backend(backend: &Backend) -> Value {
    let Backend { service, port } = backend;
    json!({ "service": service.to_string(), "port": port })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderName, HeaderValue, Method, StatusCode};
    use selvage_policy::flag::Flag;
    use selvage_policy::share::Share;
    use selvage_policy::snapshot::ServiceName;

    use super::*;

    #[test]
    fn each_is_shown_as_it_was_written_and_no_secret_is() {
        let to = Backend {
            service: ServiceName::new("shop", "spare"),
            port: Some(80),
        };
        let share = Share::of_million(1_000).expect("a share");
        let hedge = hedge(&HedgePolicy {
            delay: HedgeDelay::Percentile(95),
            max_percent: 5,
            methods: vec![Method::GET],
        });
        assert_eq!(
            hedge,
            json!({ "delayPercentile": 95, "delayMs": null, "maxPercent": 5, "methods": ["GET"] })
        );
        let fallback = fallback(&FallbackPolicy {
            name: "spare".into(),
            on: FallbackOn {
                flags: vec![Flag::Timeout],
                statuses: vec![StatusCode::BAD_GATEWAY],
                grpc_statuses: vec![14],
            },
            to: FallbackTo::Service(to.clone()),
        });
        assert_eq!(
            fallback["on"],
            json!({ "flags": ["timeout"], "statuses": [502], "grpcStatuses": [14] })
        );
        assert_eq!(
            fallback["service"],
            json!({ "service": "shop/spare", "port": 80 })
        );
        let secret = HeaderValue::from_static("secret");
        let fault = fault(&FaultPolicy {
            delay: Some((share, Duration::from_millis(5))),
            abort: Some((share, Abort::Reset)),
            headers: vec![(HeaderName::from_static("x-chaos"), secret)],
        });
        assert_eq!(
            fault,
            json!({
                "delay": { "percent": 0.1, "durationMs": 5.0 },
                "abort": { "percent": 0.1, "with": "reset" },
                "headers": ["x-chaos"],
            })
        );
        let mirror = mirror(&MirrorPolicy {
            to,
            share,
            max_pending: 64,
            host_suffix: String::new(),
        });
        assert_eq!(mirror["maxPending"], 64);
    }
}
