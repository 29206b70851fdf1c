//! The commands of `examples/routing/README.md` say what it says they say.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use selvage_tests::process::binary;
use selvage_tests::wait;
use tempfile::TempDir;
use tokio::process::Command;

/// The ports that the example names; here each is another one that is free.
const PORTS: [&str; 6] = ["15000", "15001", "15020", "21080", "22080", "23080"];
/// Longer than all of its commands take together.
const LIMIT: Duration = Duration::from_secs(30);

/// A copy of the example on ports of its own.
struct Example {
    folder: TempDir,
    ports: Vec<(&'static str, String)>,
}

/// A block of commands, and what they print where the README shows it.
struct Block {
    commands: String,
    printed: Option<String>,
}

impl Example {
    fn copy() -> Self {
        let held = PORTS.map(|port| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            (port, listener)
        });
        let number = |it: &TcpListener| it.local_addr().expect("it is bound").port().to_string();
        let ports = held.iter().map(|(port, it)| (*port, number(it))).collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let example = Self { folder, ports };
        example.take(&shipped(), example.folder.path());
        example
    }

    fn take(&self, from: &Path, to: &Path) {
        for entry in fs::read_dir(from).expect("the example can be read") {
            let path = entry.expect("the example can be read").path();
            let copy = to.join(path.file_name().unwrap_or_default());
            if path.is_dir() {
                fs::create_dir(&copy).expect("a folder can be made");
                self.take(&path, &copy);
            } else {
                let text = fs::read_to_string(&path).expect("it is a text");
                fs::write(&copy, self.moved(&text)).expect("a file can be written");
                let mode = fs::metadata(&path).expect("it is there").permissions();
                fs::set_permissions(&copy, mode).expect("it is ours");
            }
        }
    }

    /// A text with other ports.
    fn moved(&self, text: &str) -> String {
        let moves = self.ports.iter();
        moves.fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    fn blocks(&self) -> Vec<Block> {
        let path = self.folder.path().join("README.md");
        let text = fs::read_to_string(path).expect("the README is there");
        let blocks = text.split("```sh\n").skip(1);
        let block = |rest: &str| {
            let (commands, after) = rest.split_once("```").expect("a block has an end");
            let shown = after.trim_start().strip_prefix("```text\n");
            Block {
                commands: commands.to_owned(),
                printed: shown.map(|it| it.split("```").next().unwrap_or_default().to_owned()),
            }
        };
        blocks.map(block).collect()
    }
}

fn shipped() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.with_file_name("examples").join("routing")
}

#[tokio::test]
async fn the_commands_of_the_readme_print_what_it_shows() {
    let example = Example::copy();
    let blocks = example.blocks();
    let shown = blocks.iter().filter(|it| it.printed.is_some()).count();
    assert!(shown >= 7, "{shown} blocks with what they print");
    let mut script = "trap 'kill $(jobs -p)' EXIT\n".to_owned();
    for (index, block) in blocks.iter().enumerate() {
        script.push_str(&format!("{{\n{}}} > printed.{index}\n", block.commands));
    }
    let selvage = binary("selvage");
    let folder = selvage.parent().expect("a binary lies in a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    // Its whole process group ends with it, the services in the background too.
    let mut command = Command::new("timeout");
    command
        .args(["-k", "2", "25", "bash", "-euo", "pipefail", "-c", &script])
        .env("PATH", format!("{}:{path}", folder.display()))
        .env_remove("SELVAGE_TRUST_DOMAIN")
        .current_dir(example.folder.path());
    let output = wait::within("the README's commands", LIMIT, command.output()).await;
    let output = output.expect("there is a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    for (index, block) in blocks.iter().enumerate() {
        let path = example.folder.path().join(format!("printed.{index}"));
        let printed = fs::read_to_string(path).expect("each block has run");
        if let Some(expected) = &block.printed {
            assert_eq!(printed, *expected, "{}\n{said}", block.commands);
        }
    }
}
