//! Podman in a network namespace and a storage of its own. Whoever has entered
//! is alone in it; what it made is gone when it leaves, and everything is gone
//! with the last.

use std::fs::{self, File};
use std::future::Future;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use selvage_tests::process::{binary, target};
use selvage_tests::wait;
use tokio::sync::{OwnedMutexGuard, oneshot};

/// Longer than any one command takes.
const LIMIT: Duration = Duration::from_secs(60);

/// The one of this process, as long as a test wants it.
static SHARED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());

/// A test's turn in the lab.
pub(super) struct Lab {
    shared: Arc<Shared>,
    _turn: OwnedMutexGuard<()>,
}

struct Shared {
    place: Place,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Held by the only process that uses the folder.
    _lock: File,
}

/// Podman's files, and its network.
struct Place {
    folder: PathBuf,
    namespace: String,
}

/// The folder of examples called `name`.
pub(super) fn examples(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.with_file_name("examples").join(name)
}

/// The commands of the README in `folder`: its blocks of `sh`, in their order.
pub(super) fn commands_of(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("README.md")).expect("the README is there");
    let blocks = text.split("```sh\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

impl Lab {
    /// Waits for a turn, in a lab that has the images and nothing else.
    pub(super) async fn enter() -> Self {
        let shared = {
            let mut known = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            known.upgrade().unwrap_or_else(|| {
                let made = Arc::new(Shared::make());
                *known = Arc::downgrade(&made);
                made
            })
        };
        // As long as the tests before take, each of which has its own bounds.
        let turn = shared.turn.clone().lock_owned().await;
        Self {
            shared,
            _turn: turn,
        }
    }

    /// Where the lab keeps its files.
    pub(super) fn folder(&self) -> &Path {
        &self.shared.place.folder
    }

    /// `command` in the lab's namespace, with the lab's settings.
    pub(super) fn command(&self, command: &[&str]) -> Command {
        self.shared.place.command(command)
    }

    /// Runs a command and returns what it said on stdout.
    pub(super) async fn run(&self, command: &[&str]) -> String {
        let output = self.output(self.command(command)).await;
        assert!(output.status.success(), "{command:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// The exit code of a command, and what it said on stderr.
    pub(super) async fn code(&self, command: &[&str]) -> (Option<i32>, String) {
        let output = self.output(self.command(command)).await;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    }

    /// Runs commands of a README in `folder`, as a shell does that stops at the first error.
    pub(super) async fn shell(&self, folder: &Path, commands: &str) -> String {
        let mut command = self.command(&["bash", "-euo", "pipefail", "-c", commands]);
        command.current_dir(folder);
        let output = self.output(command).await;
        assert!(output.status.success(), "{commands}\n{}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    async fn output(&self, command: Command) -> Output {
        let shown = format!("{command:?}");
        let mut command = tokio::process::Command::from(command);
        command
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        let ended = wait::within(&shown, LIMIT, command.output()).await;
        ended.unwrap_or_else(|error| panic!("{shown}: {error}"))
    }

    /// The process of a container.
    pub(super) async fn pid(&self, container: &str) -> u32 {
        let asked = ["podman", "inspect", "-f", "{{.State.Pid}}", container];
        self.run(&asked).await.parse().expect("a process id")
    }

    /// What `work` comes to, on a thread in the network of a process.
    pub(super) fn in_network_of<W, F>(
        &self,
        pid: u32,
        work: W,
    ) -> impl Future<Output = F::Output> + use<W, F>
    where
        W: FnOnce() -> F + Send + 'static,
        F: Future,
        F::Output: Send + 'static,
    {
        let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("the process runs");
        let (sender, receiver) = oneshot::channel();
        std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter a namespace");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be had");
            // Nobody waits any more where the test has failed.
            let _ = sender.send(runtime.block_on(work()));
        });
        async { receiver.await.expect("the thread comes to its end") }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.place.tell();
        }
        self.shared.place.empty();
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

impl Shared {
    fn make() -> Self {
        let folder = target().join("containers");
        let lock = File::create(folder.with_extension("lock")).expect("a lock file can be made");
        lock.lock().expect("a file can be locked");
        let noted = folder.join("namespace");
        if let Ok(namespace) = fs::read_to_string(&noted) {
            println!("what an earlier run has left is removed: {namespace}");
            let folder = folder.clone();
            Place { folder, namespace }.remove();
        }
        let place = Place {
            namespace: format!("selvage-{}", std::process::id()),
            folder,
        };
        fs::create_dir_all(place.folder.join("tmp")).expect("the folder can be written");
        fs::write(&noted, &place.namespace).expect("the folder can be written");
        let shared = Self {
            place,
            turn: Arc::default(),
            _lock: lock,
        };
        shared.place.settle();
        shared
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.place.remove();
    }
}

impl Place {
    /// A network without anything, and the images.
    fn settle(&self) {
        self.settings();
        must(Command::new("ip").args(["netns", "add", &self.namespace]));
        must(&mut self.command(&["ip", "link", "set", "lo", "up"]));
        let mut build = self.command(&[]);
        build.arg(examples("container").join("build"));
        must(&mut build);
    }

    fn settings(&self) {
        let here = self.folder.display();
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{here}/root\"\nrunroot = \"{here}/run\"\n"
        );
        // runc: crun refuses a machine with both versions of cgroups.
        let containers = format!(
            "[containers]\ndefault_ulimits = []\n[network]\nnetwork_backend = \"netavark\"\n\
             network_config_dir = \"{here}/networks\"\n[engine]\ncgroup_manager = \"cgroupfs\"\n\
             events_logger = \"file\"\ntmp_dir = \"{here}/tmp\"\nruntime = \"runc\"\ninfra_image = \"\"\n"
        );
        for (name, text) in [("storage.conf", storage), ("containers.conf", containers)] {
            fs::write(self.folder.join(name), text).expect("the folder can be written");
        }
    }

    fn command(&self, command: &[&str]) -> Command {
        let binaries = binary("selvage-proxy");
        let mut nsenter = Command::new("nsenter");
        nsenter
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .args(command)
            .env("CONTAINERS_STORAGE_CONF", self.folder.join("storage.conf"))
            .env("CONTAINERS_CONF", self.folder.join("containers.conf"))
            .env("BUILDAH_ISOLATION", "chroot")
            .env("SELVAGE_ENGINE", "podman")
            .env("SELVAGE_BIN_DIR", binaries.with_file_name(""));
        nsenter
    }

    /// The state of all containers, and their last words.
    fn tell(&self) {
        let each = "podman ps -a; for name in $(podman ps -a --format '{{.Names}}'); do \
                    echo \"--- $name\"; podman logs --tail 12 \"$name\" 2>&1; done";
        if let Ok(output) = self.command(&["bash", "-c", each]).output() {
            println!("{}", said(&output));
        }
    }

    /// Removes all but the images.
    fn empty(&self) {
        for command in [
            // The container that holds a pod is given ten seconds otherwise, whatever is asked for.
            &["podman", "kill", "-a"][..],
            &["podman", "pod", "rm", "-f", "-a"],
            &["podman", "rm", "-f", "-a"],
            &["podman", "volume", "rm", "-f", "-a"],
            &["podman", "network", "prune", "-f"],
        ] {
            // What stays is found by the next test, which fails for it.
            let _ = self.command(command).output();
        }
        let secrets = self.command(&["podman", "secret", "ls", "-q"]).output();
        let secrets = secrets.map(|output| output.stdout).unwrap_or_default();
        for secret in String::from_utf8_lossy(&secrets).split_whitespace() {
            let _ = self.command(&["podman", "secret", "rm", secret]).output();
        }
    }

    /// Removes everything, the namespace too.
    fn remove(&self) {
        if Path::new("/run/netns").join(&self.namespace).exists() {
            self.empty();
            let mut delete = Command::new("ip");
            let _ = delete.args(["netns", "del", &self.namespace]).output();
        }
        self.end_monitors();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let mut ours: Vec<_> = mounts
            .filter(|place| Path::new(place).starts_with(&self.folder))
            .collect();
        ours.reverse();
        for place in ours {
            let _ = Command::new("umount").args(["-l", place]).output();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Place {
    /// Ends what watches over commands that were run in containers: it stays for five minutes after them
    /// where they were run over Podman's socket.
    fn end_monitors(&self) {
        let folder = self.folder.display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let is_ours = command.starts_with("/usr/bin/conmon") && command.contains(&folder);
            let pid = entry.file_name().to_string_lossy().parse().ok();
            if let Some(pid) = pid.filter(|_| is_ours).and_then(Pid::from_raw) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

fn must(command: &mut Command) {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", said(&output));
}
