//! Containers that outlive their program, with their shims.

mod health;
mod life;
mod logging;
#[cfg(target_arch = "x86_64")]
mod old;
mod promote;
mod renew;
mod talking;
mod trouble;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal as Number, kill};
use nix::unistd::Pid;

use super::lifetime::is_gone;
use super::{launch, root, runtime};
use crate::logs::{self, Decoded, FrameKind, LogStream};
use crate::runtime::Launch;
use crate::runtime::detached::{
    Detach, DetachedLog, DetachedLogFormat, DetachedPhase, DetachedRuntime, DetachedSeen, DetachedState, DetachedTask,
    Restart,
};
use crate::runtime::native::NativeRuntime;
use crate::types::ContainerId;

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
            check: None,
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

/// Makes the file that it waits for. The container may end before the command that made it, and takes that along.
async fn let_go(task: &Arc<dyn DetachedTask>) {
    let going = task.exec(super::trouble::command(&["touch", "/tmp/go"])).await.unwrap();
    let status = going.task.wait().await.unwrap();
    assert!(status.code() == 0 || status.signal() == Some(9), "{status}");
}

/// Nothing of the shim is left but what it wrote down.
async fn left_alone(home: &Home, state: &DetachedState) {
    soon(|| is_gone(state.shim_pid).then_some(())).await;
    assert!(is_gone(state.pid));
    let names: Vec<_> = fs::read_dir(home.shim())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock" && name != "cgroups")
        .collect();
    assert_eq!(names, ["state"]);
}

impl Home {
    /// Whether the log's last entry is whole: a shim that is killed may leave a torn one, which the next start cuts off.
    fn logged_whole(&self) -> bool {
        let bytes = fs::read(self.log().join("log.1")).unwrap_or_default();
        let mut rest = &bytes[..];
        while let Decoded::Frame(frame) = logs::decode(rest) {
            rest = &rest[frame.encoded_len()..];
        }
        assert!(!matches!(logs::decode(rest), Decoded::Invalid), "garbage in a log");
        rest.is_empty()
    }

    fn logged_bytes(&self) -> u64 {
        fs::metadata(self.log().join("log.1")).map_or(0, |data| data.len())
    }
}
