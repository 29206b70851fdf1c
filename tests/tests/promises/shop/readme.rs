//! The shop's README, followed to the letter: every command it gives is run as it stands.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use selvage_tests::client;
use selvage_tests::process::Process;
use selvage_tests::wait::{self, PATIENCE};
use tokio::process::Command;

use super::{output, prepare, prepared, workspace};

/// How long the commands of one block may take.
const BLOCK: Duration = Duration::from_secs(90);

/// The fenced blocks of shell commands, in their order.
fn blocks() -> Vec<String> {
    let path = workspace().join("examples/shop/README.md");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let fenced = text.split("```sh\n").skip(1);
    let block = |rest: &str| rest.split("```").next().unwrap_or_default().to_owned();
    fenced.map(block).collect()
}

fn shell(block: &str) -> Command {
    let mut command = Command::new("sh");
    // As one would type it, but ended by the first command that fails; a shell that serves
    // becomes its command, so that a signal reaches that.
    command.args(["-ec", block]);
    prepared(command)
}

#[tokio::test]
async fn the_readme_is_followed_to_the_letter() {
    prepare().await;
    let all = blocks();
    assert_eq!(
        all.len(),
        4,
        "a scenario, a shop that serves, two walks: {all:#?}"
    );
    let [scenario, serving, walks @ ..] = all.as_slice() else {
        unreachable!("there are four");
    };
    let said = output(scenario, shell(scenario), BLOCK).await;
    println!("{said}");
    assert!(said.contains("all of it holds"), "{said}");
    assert_eq!(
        said.lines()
            .filter(|line| line.starts_with("holds "))
            .count(),
        7
    );

    assert!(serving.contains("until Ctrl-C"), "{serving}");
    let mut shop = Process::start(serving, shell(&format!("exec {serving}")));
    let gateway = SocketAddr::from(([127, 0, 0, 1], 18080));
    wait::until("the shop's opening", 6 * PATIENCE, async || {
        assert!(!shop.has_ended(), "the shop does not open");
        client::try_get(gateway, "127.0.0.1:18080", "/products")
            .await
            .is_ok_and(|answer| answer.text().contains(r#""missing": []"#))
    })
    .await;
    let mut seen = String::new();
    for walk in walks {
        seen += &output(walk, shell(walk), BLOCK).await;
    }
    println!("{seen}");
    for words in [
        r#""stock": 500"#,
        r#""quantity": 2"#,
        "break inventory-1 unavailable: done",
        "stock unknown",
        "2 m of wool",
        "heal inventory-3: done",
    ] {
        assert!(seen.contains(words), "{words}: {seen}");
    }
    shop.signal(Signal::INT);
    assert_eq!(
        shop.exit(3 * PATIENCE).await.code(),
        Some(0),
        "Ctrl-C ends it"
    );
}
