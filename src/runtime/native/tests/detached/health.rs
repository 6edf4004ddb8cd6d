//! Probes of a shim's.

use super::trouble::resident;
use super::*;
use crate::runtime::detached::{
    DetachedAction, DetachedCheck, DetachedHealth, DetachedHealthStatus, DetachedProbe, ProbeOutcome,
};
use crate::runtime::native;
use crate::runtime::native::tests::trouble::command;
use crate::types::Signal;

const OFTEN: Duration = Duration::from_millis(20);

fn check(script: &str) -> DetachedCheck {
    DetachedCheck {
        probe: command(&["sh", "-c", script]),
        interval: OFTEN,
        timeout: Duration::from_secs(20),
        start_period: Duration::ZERO,
        start_interval: OFTEN,
        retries: 2,
        on_unhealthy: DetachedAction::Nothing,
    }
}

async fn checked(home: &Home, script: &str, check: DetachedCheck) -> Arc<dyn DetachedTask> {
    let mut detach = home.detach();
    detach.check = Some(check);
    let task = runtime().start_detached(home.launch(script), detach).await.unwrap();
    assert!(task.is_probed());
    task
}

fn health(state: &DetachedState) -> &DetachedHealth {
    state.health.as_ref().expect("it has a check")
}

async fn probed(task: &Arc<dyn DetachedTask>, wanted: impl Fn(&DetachedHealth) -> bool) -> DetachedHealth {
    let state = until(task, |state| wanted(health(state))).await;
    health(&state).clone()
}

async fn end(home: &Home, task: &Arc<dyn DetachedTask>) {
    task.signal(Signal::KILL, true).await.unwrap();
    let state = ended(task).await;
    soon(|| is_gone(state.shim_pid).then_some(())).await;
    // What was known of it stays beside the state.
    fs::remove_file(home.shim().join("health")).unwrap();
    left_alone(home, &state).await;
}

#[tokio::test]
async fn g11_a_shim_probes() {
    let home = Home::new();
    let probe = check("echo out; echo err >&2; test -e /tmp/ok");
    let task = checked(&home, "sleep 60", probe).await;
    assert_eq!(health(&task.state()).status, DetachedHealthStatus::Starting);
    let ill = probed(&task, |health| health.probes.len() == 5).await;
    assert_eq!((ill.status, ill.changes), (DetachedHealthStatus::Unhealthy, 1));
    assert!(ill.failing_streak >= 5);
    for probe in &ill.probes {
        assert!(
            matches!(probe.outcome, ProbeOutcome::Exited(status) if status.code() == 1),
            "{probe:?}"
        );
        assert_eq!(probe.output, b"out\nerr\n");
        assert!(probe.start_ns < probe.end_ns);
    }
    fs::write(home.dir.path().join("tmp/ok"), "").unwrap();
    let well = probed(&task, |health| health.status == DetachedHealthStatus::Healthy).await;
    assert_eq!((well.changes, well.failing_streak), (2, 0));
    // Others may have followed the one that changed it, and the first of those that are kept may be one of them.
    let is_well = |probe: &&DetachedProbe| matches!(probe.outcome, ProbeOutcome::Exited(status) if status.code() == 0);
    let first = well.probes.iter().find(is_well).unwrap().end_ns;
    match well.probes.iter().all(|probe| is_well(&probe)) {
        true => assert!(well.changed_ns <= first),
        false => assert_eq!(well.changed_ns, first),
    }
    // Who only looks sees the same.
    let DetachedSeen::Alive(seen) = home.seen() else {
        panic!("it lives")
    };
    assert_eq!(health(&seen).changes, 2);
    end(&home, &task).await;
}

#[tokio::test]
async fn g11_a_shim_kills_a_probe_that_takes_too_long() {
    let home = Home::new();
    let mut probe = check("echo begun; sleep 8897 & sleep 8897; true");
    probe.timeout = Duration::from_millis(200);
    let task = checked(&home, "sleep 60", probe).await;
    let ill = probed(&task, |health| health.probes.len() == 3).await;
    for probe in &ill.probes {
        assert_eq!(probe.outcome, ProbeOutcome::Overran, "{probe:?}");
        assert_eq!(probe.output, b"begun\n");
    }
    end(&home, &task).await;
}

/// Processes of a command that ends with this word.
fn sleepers(word: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let commands = entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    commands
        .filter(|command| command.starts_with("sleep") && command.contains(word))
        .count()
}

/// A session of its own, a parent that is gone: it is the container's first process's child when its time is over.
#[tokio::test]
async fn g11_a_shim_kills_what_has_left_a_probe() {
    let home = Home::new();
    let word = format!("31{:07}", std::process::id());
    let mut probe = check(&format!("setsid sh -c 'setsid sleep {word} & exit 0'; sleep 60"));
    probe.timeout = Duration::from_millis(200);
    let task = checked(&home, &format!("setsid sleep {word}0 & sleep 60"), probe).await;
    let ill = probed(&task, |health| health.probes.len() == 4).await;
    assert!(ill.probes.iter().all(|probe| probe.outcome == ProbeOutcome::Overran));
    // The container's own is one; that of the probe that runs, and began when nothing was left of those before, another.
    let there = sleepers(&word);
    assert!((1..=2).contains(&there), "{there} sleep");
    assert_eq!(sleepers(&format!("{word}0")), 1);
    end(&home, &task).await;
}

/// What a probe prints without end is not waited for, nor what it leaves behind.
#[tokio::test]
async fn g11_much_that_a_probe_prints_is_cut() {
    let home = Home::new();
    let task = checked(&home, "sleep 60", check("yes | head -c 300000; yes & exit 0")).await;
    let well = probed(&task, |health| health.probes.len() == 2).await;
    assert_eq!(well.status, DetachedHealthStatus::Healthy);
    assert!(well.probes.iter().all(|probe| probe.output == b"y\n".repeat(2048)));
    end(&home, &task).await;
}

#[tokio::test]
async fn g11_a_probe_that_cannot_be_run() {
    let home = Home::new();
    let mut probe = check("");
    probe.probe = command(&["/no/such/thing"]);
    let task = checked(&home, "sleep 60", probe).await;
    let ill = probed(&task, |health| health.status == DetachedHealthStatus::Unhealthy).await;
    let last = ill.probes.last().unwrap();
    assert!(
        matches!(last.outcome, ProbeOutcome::Failed { code: Some(127), .. }),
        "{last:?}"
    );
    assert_eq!(last.output, b"/no/such/thing");
    end(&home, &task).await;
}

/// It stays small, and has no more descriptors after many probes.
#[tokio::test]
async fn g11_a_shim_that_probes_is_small() {
    let home = Home::new();
    let mut probe = check("yes | head -c 6000");
    probe.interval = Duration::from_millis(5);
    let task = checked(&home, "echo something; sleep 60", probe).await;
    let shim = task.state().shim_pid;
    let open = || match native::has_admin() {
        true => fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count(),
        false => 0,
    };
    let many = |count: u64| async move {
        let begun = task.state().change;
        until(&task, |state| state.change >= begun + count).await;
        task
    };
    let task = many(5).await;
    let mut least = usize::MAX;
    for _ in 0..200 {
        least = least.min(open());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    until(&task, |state| state.change > 100).await;
    soon(|| (open() <= least).then_some(())).await;
    // At rest: one that is at it has the plan and the deep end of its stack here for that moment.
    let at_rest = || {
        let (resident, slack) = resident(shim);
        (resident <= 100 + slack).then_some(resident)
    };
    println!("shim with a check: {} kB resident", soon(at_rest).await);
    end(&home, &task).await;
}

/// A stop, and a start whatever the policy says.
#[tokio::test]
async fn p47_a_shim_acts_on_an_unhealthy_container() {
    let stop = (Signal::TERM, Duration::from_millis(100));
    for (action, starts, code) in [
        (DetachedAction::Kill, 0, 137),
        (
            DetachedAction::Stop {
                signal: stop.0,
                patience: stop.1,
            },
            0,
            137,
        ),
        (
            DetachedAction::Restart {
                signal: stop.0,
                patience: stop.1,
            },
            1,
            5,
        ),
    ] {
        let home = Home::new();
        let mut probe = check("test -e /tmp/again || ! test -e /tmp/ran");
        (probe.on_unhealthy, probe.retries) = (action, 10);
        let script = "test -e /tmp/ran && touch /tmp/again && sleep 0.5 && exit 5; touch /tmp/ran; sleep 60";
        let task = checked(&home, script, probe).await;
        let state = ended(&task).await;
        assert_eq!(
            (state.restarts, state.ends),
            (starts, u64::from(starts) + 1),
            "{action:?}"
        );
        assert_eq!(state.exit.unwrap().status.code(), code, "{action:?}");
        soon(|| is_gone(state.shim_pid).then_some(())).await;
    }
}
