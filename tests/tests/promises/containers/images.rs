//! Two images of one static program each: small, without root, without a
//! writable root.

use super::lab::{Lab, commands_of, examples};

/// 24 MiB.
const SIZE: u64 = 24 << 20;

#[tokio::test]
async fn an_image_is_one_small_program_that_is_not_root() {
    let lab = Lab::enter().await;
    for name in ["proxy", "control-plane"] {
        let image = format!("localhost/selvage-{name}:latest");
        let asked = "{{.Size}} {{.Config.User}} {{len .RootFS.Layers}}";
        let said = lab
            .run(&["podman", "image", "inspect", "-f", asked, &image])
            .await;
        println!("{image}: {said}");
        let mut said = said.split(' ');
        let size: u64 = said
            .next()
            .and_then(|size| size.parse().ok())
            .expect("a size");
        assert!(size <= SIZE, "{image} has {size} octets");
        assert_eq!(said.next(), Some("1337:1337"), "{image}");
    }
}

#[tokio::test]
async fn the_commands_of_the_readme_run() {
    let lab = Lab::enter().await;
    let folder = examples("container");
    let commands = commands_of(&folder);
    assert_eq!(commands.len(), 2, "to build, and to run");
    for commands in commands {
        let said = lab.shell(&folder, &commands).await;
        assert!(!said.is_empty(), "{commands}");
    }
}
