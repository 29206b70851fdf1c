//! What an operator may ask, and how bad input is answered.

use std::time::Duration;

use serde_json::json;

use crate::support::{Plane, eventually};

const SERVICE: &str = "kind: Service\nmetadata: { name: ratings, namespace: shop }\nspec: { ports: [{ port: 80 }] }\n";

#[tokio::test]
async fn only_the_token_opens_the_api() {
    let plane = Plane::start().await;
    for headers in [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Basic eDp5\r\n",
    ] {
        let (status, _) = plane.raw("GET", "/api/v1/services", headers, "").await;
        assert_eq!(status, 401, "{headers}");
    }
    for open in ["/live", "/ready", "/metrics", "/sd/prometheus"] {
        assert_eq!(plane.raw("GET", open, "", "").await.0, 200, "{open}");
    }
    assert_eq!(plane.ask("GET", "/api/v1/services", "").await.0, 200);
    assert_eq!(plane.ask("GET", "/nothing", "").await.0, 404);
    plane.stop().await;
}

#[tokio::test]
async fn web_pages_and_rebound_names_are_refused() {
    let plane = Plane::start().await;
    assert_eq!(
        plane.raw("GET", "/live", "Host: evil.test\r\n", "").await.0,
        403
    );
    assert_eq!(
        plane
            .raw("GET", "/live", "Origin: http://localhost\r\n", "")
            .await
            .0,
        403
    );
    assert_eq!(
        plane
            .raw("GET", "/live", "Host: 127.0.0.1:15014\r\n", "")
            .await
            .0,
        200
    );
    plane.stop().await;
}

#[tokio::test]
async fn an_apply_is_all_or_nothing() {
    let plane = Plane::start().await;
    let broken = format!(
        "{SERVICE}---\nkind: TrafficPolicy\nmetadata: {{ name: p, namespace: shop }}\nspec: {{ targetRefs: [{{ kind: Service, name: ratings }}], timeout: {{}} }}\n"
    );
    let (status, answer) = plane
        .ask("POST", "/api/v1/apply?source=mesh.yaml", &broken)
        .await;
    assert_eq!(status, 422);
    let diagnostic = &answer["diagnostics"]["found"]
        .get(0)
        .unwrap_or(&answer["diagnostics"][0])
        .clone();
    assert_eq!(diagnostic["source"], "mesh.yaml", "{answer}");
    assert!(
        answer["text"].as_str().unwrap().contains("timeouts"),
        "the nearest key: {answer}"
    );
    assert_eq!(
        plane.ask("GET", "/api/v1/service/shop/ratings", "").await.0,
        404,
        "nothing changed"
    );

    let (_, dry) = plane
        .ask("POST", "/api/v1/apply?dryRun=true", SERVICE)
        .await;
    assert_eq!(dry["results"][0]["action"], "created");
    assert_eq!(
        plane.ask("GET", "/api/v1/service/shop/ratings", "").await.0,
        404,
        "a dry run"
    );

    let first = plane.apply(SERVICE).await;
    assert_eq!(
        first["results"],
        json!([{ "kind": "Service", "namespace": "shop", "name": "ratings", "action": "created", "stamp": 1 }])
    );
    let second = plane.apply(SERVICE).await;
    assert_eq!(
        (&second["results"][0]["action"], &second["revision"]),
        (&"unchanged".into(), &first["revision"])
    );
    plane.stop().await;
}

#[tokio::test]
async fn a_dangling_reference_is_a_warning_unless_strict() {
    let plane = Plane::start().await;
    let policy = "kind: TrafficPolicy\nmetadata: { name: p, namespace: shop }\nspec: { targetRefs: [{ kind: Service, name: rating }] }\n";
    plane.apply(SERVICE).await;
    let (status, _) = plane.ask("POST", "/api/v1/apply?strict=true", policy).await;
    assert_eq!(status, 422);
    let answer = plane.apply(policy).await;
    assert!(
        answer["warningsText"].as_str().unwrap().contains("ratings"),
        "{answer}"
    );
    let (_, found) = plane.ask("GET", "/api/v1/trafficpolicies/shop/p", "").await;
    assert_eq!(found["conditions"][1]["reason"], "TargetNotFound");
    plane.stop().await;
}

#[tokio::test]
async fn resources_are_put_listed_and_deleted() {
    let plane = Plane::start().await;
    let path = "/api/v1/service/shop/ratings";
    assert_eq!(
        plane
            .ask("PUT", "/api/v1/service/shop/other", SERVICE)
            .await
            .0,
        422,
        "another name"
    );
    assert_eq!(plane.ask("PUT", path, SERVICE).await.0, 200);
    let (_, list) = plane.ask("GET", "/api/v1/services?x=1", "").await;
    assert!(list.is_object());
    let (_, list) = plane.ask("GET", "/api/v1/service?namespace=shop", "").await;
    assert_eq!(list["items"][0]["name"], "ratings");
    let (status, unknown) = plane.ask("GET", "/api/v1/servise", "").await;
    assert_eq!(status, 404);
    assert!(
        unknown["error"].as_str().unwrap().contains("Service"),
        "{unknown}"
    );
    assert_eq!(plane.ask("DELETE", path, "").await.0, 200);
    assert_eq!(plane.ask("DELETE", path, "").await.0, 404);
    let (_, changes) = plane.ask("GET", "/api/v1/changes?since=0", "").await;
    assert_eq!(changes["items"][1]["deleted"], true, "{changes}");
    let (_, events) = plane.ask("GET", "/api/v1/events", "").await;
    assert_eq!(
        events["items"].as_array().unwrap().last().unwrap()["kind"],
        "deleted"
    );
    plane.stop().await;
}

#[tokio::test]
async fn a_watched_folder_takes_effect_and_keeps_the_last_good() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mesh.yaml");
    std::fs::write(&file, SERVICE).unwrap();
    let resources = folder.path().to_owned();
    let plane = Plane::start_with(|config| config.resources = Some(resources)).await;
    let path = "/api/v1/service/shop/ratings";
    let (_, found) = eventually(|| plane.ask("GET", path, ""), |answer| answer.0 == 200).await;
    assert_eq!(found["source"], "folder");
    assert_eq!(
        plane.ask("DELETE", path, "").await.0,
        409,
        "it stands in the folder"
    );
    assert_eq!(plane.ask("POST", "/api/v1/apply", SERVICE).await.0, 422);

    std::fs::write(&file, "kind: Servise\n").unwrap();
    // Longer than a look takes: the broken folder was seen.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(
        plane.ask("GET", path, "").await.0,
        200,
        "the last good stays"
    );
    let second = SERVICE.replace("name: ratings", "name: reviews");
    std::fs::write(&file, second).unwrap();
    eventually(|| plane.ask("GET", path, ""), |answer| answer.0 == 404).await;
    assert_eq!(
        plane.ask("GET", "/api/v1/service/shop/reviews", "").await.0,
        200
    );
    plane.stop().await;
}
