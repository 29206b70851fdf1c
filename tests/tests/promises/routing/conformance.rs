//! Gateway API's conformance: every test of `tests/conformance/`, as a gateway
//! and in the mesh, from files and through a control plane.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

use futures_util::FutureExt;
use selvage_tests::conformance::case::{Case, Mode, Profile};
use selvage_tests::conformance::run;
use selvage_tests::conformance::scene::Ground;
use selvage_tests::conformance::table::{self, Row};

/// The only cases to play, by a part of their file's name: for whoever works on one.
const ONLY: &str = "SELVAGE_CONFORMANCE_ONLY";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

/// Plays every case for a profile whose file begins with one of `beginnings`.
async fn play(profile: Profile, mode: Mode, part: &str, beginnings: &[&str]) {
    let only = std::env::var(ONLY).unwrap_or_default();
    let ground = Ground::lay(profile, mode).await;
    let mut rows: Vec<Row> = Vec::new();
    for case in Case::all(&folder()) {
        let wanted = beginnings.iter().any(|one| case.file.starts_with(one));
        let Some(name) = case
            .name(profile)
            .filter(|_| wanted && case.file.contains(&only))
        else {
            continue;
        };
        // A case that falls over is a row like any other.
        let played = AssertUnwindSafe(run::play(&ground, &case));
        let row = played.catch_unwind().await.unwrap_or_else(|fell| {
            let words = fell.downcast_ref::<String>().cloned().unwrap_or_default();
            let (name, wrong) = (name.to_owned(), vec![words]);
            Some(Row {
                name,
                profile,
                mode,
                checked: 0,
                wrong,
            })
        });
        row.iter().for_each(table::print);
        rows.extend(row);
    }
    if std::env::var_os(table::WRITE).is_some() {
        table::write(&folder().join("README.md"), part, &table::markdown(&rows));
    }
    assert!(!rows.is_empty(), "there are cases");
    assert!(
        rows.iter().all(|row| row.checked > 0),
        "a row that checks nothing"
    );
    let failed: Vec<_> = rows
        .iter()
        .filter(|row| !row.wrong.is_empty())
        .map(|row| &row.name)
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} fail: {failed:?}",
        failed.len(),
        rows.len()
    );
}

#[test]
fn the_readme_lists_every_test() {
    let text = std::fs::read_to_string(folder().join("README.md")).unwrap();
    for case in Case::all(&folder()) {
        for profile in [Profile::Gateway, Profile::Mesh] {
            let Some(name) = case.name(profile) else {
                continue;
            };
            let line = format!("| {name} | {} |", case.expectations(profile).count());
            assert!(
                text.contains(&line),
                "no `{line}` of {}: set {}",
                case.file,
                table::WRITE
            );
        }
    }
}

#[tokio::test]
async fn http_routes_of_a_gateway_from_files() {
    play(
        Profile::Gateway,
        Mode::Static,
        "gateway HTTPRoute static",
        &["httproute"],
    )
    .await;
}

#[tokio::test]
async fn http_routes_of_a_gateway_from_a_control_plane() {
    play(
        Profile::Gateway,
        Mode::ControlPlane,
        "gateway HTTPRoute control plane",
        &["httproute"],
    )
    .await;
}

#[tokio::test]
async fn http_routes_of_the_mesh_from_files() {
    play(
        Profile::Mesh,
        Mode::Static,
        "mesh HTTPRoute static",
        &["httproute", "mesh"],
    )
    .await;
}

#[tokio::test]
async fn http_routes_of_the_mesh_from_a_control_plane() {
    play(
        Profile::Mesh,
        Mode::ControlPlane,
        "mesh HTTPRoute control plane",
        &["httproute", "mesh"],
    )
    .await;
}

#[tokio::test]
async fn other_routes_of_a_gateway_from_files() {
    play(
        Profile::Gateway,
        Mode::Static,
        "gateway others static",
        &["grpcroute", "tlsroute", "tcproute", "gateway"],
    )
    .await;
}

#[tokio::test]
async fn other_routes_of_a_gateway_from_a_control_plane() {
    play(
        Profile::Gateway,
        Mode::ControlPlane,
        "gateway others control plane",
        &["grpcroute", "tlsroute", "tcproute", "gateway"],
    )
    .await;
}

#[tokio::test]
async fn other_routes_of_the_mesh_from_files() {
    play(
        Profile::Mesh,
        Mode::Static,
        "mesh others static",
        &["grpcroute", "tlsroute", "tcproute"],
    )
    .await;
}

#[tokio::test]
async fn other_routes_of_the_mesh_from_a_control_plane() {
    play(
        Profile::Mesh,
        Mode::ControlPlane,
        "mesh others control plane",
        &["grpcroute", "tlsroute", "tcproute"],
    )
    .await;
}
