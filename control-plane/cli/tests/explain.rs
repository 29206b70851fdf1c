//! `selvage explain request -f`: what would become of a request, as the code that routes sees it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const MESH: &str = r#"
kind: Service
metadata: {name: ratings, namespace: shop}
spec:
  ports: [{port: 80, protocol: http}]
  endpoints: [{address: 10.0.0.1:15008, identity: "spiffe://mesh.local/ns/shop/sa/ratings"}]
---
kind: Service
metadata: {name: ratings-v2, namespace: shop}
spec:
  ports: [{port: 80, protocol: http}]
  endpoints: [{address: 10.0.0.2:15008, identity: "spiffe://mesh.local/ns/shop/sa/ratings", weight: 0}]
---
kind: HTTPRoute
metadata: {name: reads, namespace: shop}
spec:
  parentRefs: [{kind: Service, name: ratings}]
  rules:
    - name: v1
      matches: [{path: {value: /v1}, method: GET}, {path: {value: /one}}]
      timeouts: {request: 2s}
      retry: {codes: [503], attempts: 2, backoff: 10ms}
      filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /internal}}}]
      backendRefs: [{name: ratings, port: 80}]
    - matches: [{path: {value: /split}}]
      backendRefs: [{name: ratings, port: 80, weight: 3}, {name: gone, port: 80, weight: 1}]
    - matches: [{path: {value: /idle}}]
      backendRefs: [{name: ratings-v2, port: 80}]
    - matches: [{path: {value: /moved}}]
      filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 302}}]
---
kind: TrafficPolicy
metadata: {name: rule, namespace: shop}
spec:
  targetRefs: [{kind: HTTPRoute, name: reads, sectionName: v1}]
  timeouts: {request: 9s, backendRequest: 1s}
---
kind: TrafficPolicy
metadata: {name: service, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: ratings}]
  timeouts: {request: 8s, backendRequest: 8s, connect: 100ms}
---
kind: AuthorizationPolicy
metadata: {name: guard, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: ratings}]
  rules:
    - {name: web, action: allow, from: [{identities: ["spiffe://mesh.local/ns/shop/sa/web"]}]}
    - {name: closed, action: deny, to: [{paths: [{type: Exact, value: /internal}], methods: [DELETE]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: public, namespace: shop}
spec:
  gatewayClassName: selvage
  listeners:
    - {name: every, port: 80, protocol: HTTP}
    - {name: shop, port: 80, protocol: HTTP, hostname: "*.shop.example"}
---
kind: HTTPRoute
metadata: {name: front, namespace: shop}
spec:
  parentRefs: [{name: public, sectionName: shop}]
  hostnames: [www.shop.example]
  rules: [{backendRefs: [{name: ratings, port: 80}]}]
"#;

fn explain(from: &str, url: &str, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("mesh.yaml");
    std::fs::write(&file, MESH).expect("it can be written");
    run(&file, from, url, more)
}

fn run(file: &Path, from: &str, url: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_selvage"))
        .args(["explain", "request", "--from", from, "--url", url, "-f"])
        .arg(file)
        .args(more)
        .env_remove("SELVAGE_TRUST_DOMAIN")
        .output()
        .expect("the binary runs")
}

/// The exit code, and what it says.
fn told(from: &str, url: &str, more: &[&str]) -> (Option<i32>, String) {
    let output = explain(from, url, more);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), out + &err)
}

#[test]
fn all_that_would_apply_is_told() {
    let (code, text) = told("shop/web", "http://ratings.shop/v1/stars?of=7", &[]);
    let expected = r#"request   GET http://ratings.shop/v1/stars?of=7
from      spiffe://mesh.local/ns/shop/sa/web
to        Service shop/ratings, port 80
rule      shop/reads/v1: path /v1 or below, method GET
          rewrite, path /internal
backend   shop/ratings:80, 100 %
          gets GET ratings.shop/internal?of=7
          retry.attempts: 2, by rule v1 of HTTPRoute shop/reads
          retry.backoff.base: "10ms", by rule v1 of HTTPRoute shop/reads
          retry.on: ["connect-failure","reset","timeout",503], by rule v1 of HTTPRoute shop/reads
          timeouts.backendRequest: "1s", by TrafficPolicy shop/rule
          timeouts.connect: "100ms", by TrafficPolicy shop/service
          timeouts.request: "2s", by rule v1 of HTTPRoute shop/reads
          permitted by rule `web` of AuthorizationPolicy shop/guard
          endpoint 10.0.0.1:15008 as spiffe://mesh.local/ns/shop/sa/ratings
not       shop/reads/3: the path is not /moved or below
          shop/reads/1: the path is not /split or below
          shop/reads/2: the path is not /idle or below
          shop/reads/v1, match 1: the path is not /one or below
served    sent to shop/ratings:80
"#;
    let sorted = |text: &str| -> Vec<String> {
        // The rules that do not take it: in the order of precedence, which is the table's own.
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| line.strip_prefix("not       ").map_or(line, |it| it))
            .map(|line| line.trim_start().to_owned())
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&text), sorted(expected), "{text}");
    assert_eq!(code, Some(0));
}

#[test]
fn what_would_be_refused_is_told_with_why() {
    let table: [(&str, &str, &[&str], i32, &str); 11] = [
        (
            "shop/web",
            "http://ratings.shop/none",
            &[],
            1,
            "404 no-route",
        ),
        ("shop/web", "http://nobody.shop/", &[], 1, "404 no-service"),
        (
            "shop/web",
            "http://ratings.shop:81/v1",
            &[],
            1,
            "has no port 81, but 80",
        ),
        (
            "shop/web",
            "http://10.0.0.9/",
            &[],
            1,
            "names no service of the mesh",
        ),
        (
            "shop/web",
            "http://ratings.shop/v1",
            &["--method", "POST"],
            1,
            "404 no-route",
        ),
        (
            "shop/web",
            "http://ratings.shop/one",
            &["--method", "DELETE"],
            1,
            "rule `closed` of AuthorizationPolicy",
        ),
        (
            "shop/mallory",
            "http://ratings.shop/v1",
            &[],
            1,
            "403 denied: shop/ratings denies it: no rule of",
        ),
        (
            "shop/web",
            "http://ratings.shop/split",
            &[],
            1,
            "500 invalid-backend: 25.0 % of them",
        ),
        (
            "shop/web",
            "http://ratings.shop/idle",
            &[],
            1,
            "503 no-healthy-endpoint",
        ),
        (
            "shop/web",
            "http://ratings.shop/moved/x",
            &[],
            0,
            "redirected with 302 to http://ratings.shop/new/x",
        ),
        (
            "shop/web",
            "http://ratings-v2.shop/../x",
            &[],
            1,
            "400 bad-request",
        ),
    ];
    for (from, url, more, code, words) in table {
        let (ended, text) = told(from, url, more);
        assert_eq!(ended, Some(code), "{from} {url} {more:?}\n{text}");
        assert!(text.contains(words), "{from} {url} {more:?}\n{text}");
    }
}

#[test]
fn a_gateway_chooses_by_host_and_port() {
    let at = ["--gateway", "shop/public"];
    for (url, code, words) in [
        ("http://www.shop.example/", 0, "listener shop, port 80"),
        ("http://www.shop.example/", 0, "host www.shop.example"),
        ("http://other.shop.example/", 1, "404 no-route"),
        ("http://other.example/", 1, "listener every, port 80"),
        (
            "http://www.shop.example:8080/",
            1,
            "no http listener on port 8080",
        ),
        (
            "https://www.shop.example/",
            1,
            "no https listener on port 443",
        ),
    ] {
        let (ended, text) = told("shop/web", url, &at);
        assert_eq!(ended, Some(code), "{url}\n{text}");
        assert!(text.contains(words), "{url}\n{text}");
    }
}

#[test]
fn a_question_that_is_none_is_wrong_usage() {
    let table: [(&str, &str, &[&str], &str); 6] = [
        (
            "shop",
            "http://ratings.shop/",
            &[],
            "--from: expected NAMESPACE/NAME",
        ),
        ("shop/web", "/v1", &[], "--url: expected http://HOST"),
        (
            "shop/web",
            "http://ratings.shop/",
            &["--method", "G T"],
            "--method:",
        ),
        (
            "shop/web",
            "http://ratings.shop/",
            &["-H", "x"],
            "-H: expected `name: value`",
        ),
        (
            "shop/web",
            "http://ratings.shop/",
            &["--gateway", "shop/none"],
            "there is no Gateway shop/none",
        ),
        (
            "shop/web",
            "http://ratings.shop/",
            &["--gateway", "none"],
            "--gateway: expected",
        ),
    ];
    for (from, url, more, words) in table {
        let (ended, text) = told(from, url, more);
        assert_eq!(ended, Some(2), "{from} {url} {more:?}\n{text}");
        assert!(text.contains(words), "{from} {url} {more:?}\n{text}");
    }
}

#[test]
fn programs_are_told_the_same() {
    let output = explain("shop/web", "http://ratings.shop/split", &["-o", "json"]);
    let said: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(said["rule"]["label"], "shop/reads/1");
    assert_eq!(said["outcome"]["served"], false);
    assert_eq!(said["outcome"]["flag"], "invalid-backend");
    assert_eq!(said["backends"][0]["percent"], 75.0);
    assert_eq!(
        said["backends"][0]["effective"]["timeouts"]["requestMs"],
        8000.0
    );
    assert_eq!(said["backends"][1]["refused"]["status"], 500);
}
