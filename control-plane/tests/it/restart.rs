//! What is kept, and who else may have it.

use selvage_control_plane::ControlPlane;

use crate::support::Plane;

const SERVICE: &str = "
kind: Service
metadata: { name: ratings, namespace: shop }
spec: { ports: [{ port: 80 }] }
";

#[tokio::test]
async fn resources_registrations_and_the_authority_survive_a_restart() {
    let plane = Plane::start().await;
    let revision = plane.apply(SERVICE).await["revision"].as_u64().unwrap();
    let orders = plane.enrol("shop/orders").await;
    orders.register("orders-1", "orders").await.unwrap();
    let (svid, bundle) = (orders.svid.clone(), orders.bundle.clone());
    let (_, ca) = plane.ask("GET", "/api/v1/ca", "").await;
    let plane = plane.restart().await;
    let (status, found) = plane.ask("GET", "/api/v1/service/shop/ratings", "").await;
    assert_eq!(
        (status, &found["document"]["metadata"]["name"]),
        (200, &"ratings".into())
    );
    let (_, services) = plane.ask("GET", "/api/v1/services", "").await;
    assert_eq!(services["items"][0]["workloads"][0]["workload"], "orders-1");
    assert!(services["revision"].as_u64().unwrap() > revision);
    assert_eq!(
        plane.ask("GET", "/api/v1/ca", "").await.1["roots"],
        ca["roots"]
    );
    // The binding too: the old certificate may still register.
    let orders = crate::support::Workload::with(&plane, svid, bundle)
        .await
        .unwrap();
    orders.register("orders-2", "orders").await.unwrap();
    plane.stop().await;
}

#[tokio::test]
async fn a_second_control_plane_on_the_same_folder_says_so() {
    let plane = Plane::start().await;
    let refused = ControlPlane::start(plane.config.clone())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.contains("another control plane runs on this data folder"),
        "{refused}"
    );
    assert!(!refused.contains('\n'));
    plane.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let plane = Plane::start().await;
    let taken = plane.addresses.grpc;
    let folder = tempfile::tempdir().unwrap();
    let mut config = plane.config.clone();
    config.data_dir = folder.path().to_owned();
    config.grpc_address = taken;
    let refused = format!("{:#}", ControlPlane::start(config).await.err().unwrap());
    assert!(
        refused.contains(&format!("grpc.address: cannot listen on {taken}")),
        "{refused}"
    );
    plane.stop().await;
}

#[tokio::test]
async fn secrets_are_for_this_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let plane = Plane::start().await;
    let mode = |path: &str| {
        let path = plane.config.data_dir.join(path);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    for file in [
        "store.redb",
        "operator.token",
        "ca/root.pem",
        "ca/intermediate.pem",
    ] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    assert_eq!((mode(""), mode("ca")), (0o700, 0o700));
    plane.stop().await;
}
