//! Containers that outlive their program, with their shims.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use nix::sys::signal::{Signal as Number, kill};
use nix::unistd::Pid;

use super::lifetime::is_gone;
use super::{launch, root, runtime};
use crate::error::ErrorKind;
use crate::logs::{self, Decoded, FrameKind, LogStream};
use crate::runtime::detached::{
    Detach, DetachedLog, DetachedLogFormat, DetachedPhase, DetachedRuntime, DetachedSeen, DetachedState, DetachedTask,
    Restart, RestartAfter,
};
use crate::runtime::native::NativeRuntime;
use crate::runtime::{Launch, Task};
use crate::types::{ContainerId, Signal};

/// Where a container, its shim and its log are. Nothing of it lives on when this goes.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Self { dir: root() };
        for name in ["shim", "log"] {
            fs::create_dir_all(home.dir.path().join("home").join(name)).unwrap();
        }
        home
    }

    fn shim(&self) -> PathBuf {
        self.dir.path().join("home/shim")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("home/log")
    }

    fn launch(&self, script: &str) -> Launch {
        launch(self.dir.path(), &["sh", "-c", script])
    }

    fn detach(&self) -> Detach {
        Detach {
            dir: self.shim(),
            log: DetachedLog {
                format: Some(DetachedLogFormat::Frames),
                dir: self.log(),
                max_size_bytes: 1 << 20,
                max_files: 3,
            },
            restart: Restart::default(),
            attached: false,
        }
    }

    async fn start(&self, script: &str) -> Arc<dyn DetachedTask> {
        runtime()
            .start_detached(self.launch(script), self.detach())
            .await
            .unwrap()
    }

    fn seen(&self) -> DetachedSeen {
        runtime().seen(&self.shim()).unwrap()
    }

    /// What was printed, by stream, and how many ends there are.
    fn logged(&self) -> (String, String, usize) {
        let (mut out, mut err, mut ends) = (Vec::new(), Vec::new(), 0);
        let mut last = i64::MIN;
        for number in 1.. {
            let Ok(bytes) = fs::read(self.log().join(format!("log.{number}"))) else {
                break;
            };
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let Decoded::Frame(frame) = logs::decode(rest) else {
                    panic!("a torn frame")
                };
                assert!(frame.time_ns > last, "time goes on");
                last = frame.time_ns;
                match frame.kind {
                    FrameKind::Data(LogStream::Stdout) => out.extend_from_slice(frame.payload),
                    FrameKind::Data(LogStream::Stderr) => err.extend_from_slice(frame.payload),
                    FrameKind::End => ends += 1,
                }
                rest = &rest[frame.encoded_len()..];
            }
        }
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(out), text(err), ends)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let seen = NativeRuntime::new(Default::default()).seen(&self.shim());
        let state = match seen {
            Ok(DetachedSeen::Alive(state)) => state,
            Ok(DetachedSeen::Gone { state, process: true }) => state,
            _ => return,
        };
        for pid in [state.shim_pid, state.pid].into_iter().filter(|pid| *pid > 1) {
            let _ = kill(Pid::from_raw(pid as i32), Number::SIGKILL);
        }
    }
}

async fn until(task: &Arc<dyn DetachedTask>, wanted: impl Fn(&DetachedState) -> bool) -> DetachedState {
    let mut state = task.state();
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !wanted(&state) {
            state = task.changed(state.change).await.expect("the shim is there");
        }
    });
    waited.await.expect("a change in time");
    state
}

async fn ended(task: &Arc<dyn DetachedTask>) -> DetachedState {
    until(task, |state| state.phase == DetachedPhase::Ended).await
}

async fn soon<T>(mut ready: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Nothing of the shim is left but what it wrote down.
async fn left_alone(home: &Home, state: &DetachedState) {
    soon(|| is_gone(state.shim_pid).then_some(())).await;
    assert!(is_gone(state.pid));
    let names: Vec<_> = fs::read_dir(home.shim())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock")
        .collect();
    assert_eq!(names, ["state"]);
}

#[tokio::test]
async fn a_detached_container_leaves_its_exit_and_its_log() {
    let home = Home::new();
    let task = home
        .start("echo out; echo err >&2; printf 'no newline'; sleep 0.1; exit 7")
        .await;
    let exit = task.wait().await.unwrap();
    assert_eq!((exit.status.code(), exit.status.signal()), (7, None));
    let state = ended(&task).await;
    assert_eq!((state.ends, state.restarts, state.lost_entries), (1, 0, 0));
    assert!(state.started_ns > 0 && state.finished_ns > state.started_ns);
    task.remove().await.unwrap();
    left_alone(&home, &state).await;
    assert_eq!(home.logged(), ("out\nno newline".into(), "err\n".into(), 1));
    assert_eq!(home.seen(), DetachedSeen::Gone { state, process: false });
}

/// `LONGSHORE_TEST_STARTER` is set in the process that is to be killed.
#[test]
fn a_detached_container_outlives_the_program_that_started_it() {
    if let Some(dir) = std::env::var_os("LONGSHORE_TEST_STARTER") {
        start_and_be_killed(Path::new(&dir));
    }
    let home = Home::new();
    let mut starter = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "runtime::native::tests::detached::a_detached_container_outlives_the_program_that_started_it",
            "--nocapture",
        ])
        .env("LONGSHORE_TEST_STARTER", home.dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio.block_on(async {
        let id = soon(|| {
            let text = fs::read_to_string(home.dir.path().join("home/id")).ok()?;
            text.strip_suffix('\n')?.parse::<ContainerId>().ok()
        })
        .await;
        // In the middle of its work.
        soon(|| (home.logged_bytes() > 1000).then_some(())).await;
        starter.kill().unwrap();
        starter.wait().unwrap();
        let runtime = runtime();
        let task = runtime.adopt(&id, &home.shim()).await.unwrap();
        assert_eq!(task.state().phase, DetachedPhase::Running);
        assert!(matches!(home.seen(), DetachedSeen::Alive(_)));
        let exit = task.wait().await.unwrap();
        assert_eq!(exit.status.code(), 37);
        let state = ended(&task).await;
        left_alone(&home, &state).await;
    });
    let expected: String = (0..3000).map(|number| format!("line {number}\n")).collect();
    assert_eq!(home.logged(), (expected, String::new(), 1));
}

impl Home {
    fn logged_bytes(&self) -> u64 {
        fs::metadata(self.log().join("log.1")).map_or(0, |data| data.len())
    }
}

fn start_and_be_killed(dir: &Path) -> ! {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio.block_on(async {
        let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); \
                      [ $((i % 100)) = 0 ] && sleep 0.05; done; exit 37";
        let launch = launch(dir, &["sh", "-c", script]);
        let detach = Detach {
            dir: dir.join("home/shim"),
            log: DetachedLog {
                format: Some(DetachedLogFormat::Frames),
                dir: dir.join("home/log"),
                max_size_bytes: 1 << 20,
                max_files: 3,
            },
            restart: Restart::default(),
            attached: false,
        };
        let id = launch.id.clone();
        let _task = runtime().start_detached(launch, detach).await.unwrap();
        fs::write(dir.join("home/id"), format!("{id}\n")).unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    std::process::exit(1)
}
