//! What a test is: a name, whether it touches the kernel, and a body that passes, fails or says why it cannot run here.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Instant;

use libtest_mimic::{Arguments, Completion, Conclusion, Failed, Trial};

use crate::support::leaks::Snapshot;
use crate::support::{runtime, warnings, watch};

/// What a body returns.
pub type Check = Result<(), Stop>;

/// Why a body ended early.
#[derive(Debug)]
pub enum Stop {
    /// This host cannot run the test; counted as skipped, with the reason.
    Skip(String),
    /// The test failed.
    Fail(String),
}

impl<E: std::error::Error + 'static> From<E> for Stop {
    fn from(error: E) -> Self {
        let any: &dyn std::error::Error = &error;
        if let Some(stop) = any.downcast_ref().and_then(runtime::ended_by) {
            return stop;
        }
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::Fail(text)
    }
}

/// Ends a test that this host cannot run.
pub fn skip<T>(reason: impl Display) -> Result<T, Stop> {
    Err(Stop::Skip(reason.to_string()))
}

/// Ends a test as failed.
pub fn fail<T>(reason: impl Display) -> Result<T, Stop> {
    Err(Stop::Fail(reason.to_string()))
}

/// What a test shares the machine with while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Company {
    /// It touches nothing of the kernel: any other such test.
    Pure,
    /// Nobody. The machine is compared with what it was before.
    Alone,
    /// Others that wait for most of their time: they run beside each other when all the rest is over, and the machine is
    /// compared when the last of them has ended.
    Waiting,
}

/// A registered test.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    pub name: &'static str,
    pub company: Company,
    pub body: fn() -> Check,
}

/// The tests of a module.
pub type Group = (&'static str, &'static [Test]);

/// Registers functions of the module as tests: `pure` ones run side by side, `kernel` ones alone and with a leak check,
/// `waiting` ones beside each other; the `async` kinds get a fresh current-thread runtime each. A function that is not listed
/// is a dead-code warning.
#[macro_export]
macro_rules! tests {
    ($group:literal: $($kind:ident [$($name:ident),* $(,)?])*) => {
        pub const TESTS: $crate::frame::Group = ($group, &[$($($crate::tests!(@ $kind $name)),*),*]);
    };
    (@ pure $name:ident) => { $crate::tests!(@ Pure, $name, $name) };
    (@ kernel $name:ident) => { $crate::tests!(@ Alone, $name, $name) };
    (@ kernel_async $name:ident) => { $crate::tests!(@ Alone, $name, || $crate::frame::block_on($name())) };
    (@ waiting $name:ident) => { $crate::tests!(@ Waiting, $name, $name) };
    (@ waiting_async $name:ident) => { $crate::tests!(@ Waiting, $name, || $crate::frame::block_on($name())) };
    (@ $company:ident, $name:ident, $body:expr) => {
        $crate::frame::Test { name: stringify!($name), company: $crate::frame::Company::$company, body: $body }
    };
}

/// Runs a future on a current-thread runtime of its own.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// How many tests are begun at once. What must be alone waits for its turn.
const AT_ONCE: usize = 4;

/// Runs what the command line asks for: tests that wait after all others.
pub fn run_all(groups: &[Group]) -> Conclusion {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let mut tests: Vec<_> = groups
        .iter()
        .flat_map(|(group, tests)| tests.iter().map(move |test| (*group, *test)))
        .collect();
    tests.sort_by_key(|(_, test)| test.company == Company::Waiting);
    let trials = tests.into_iter().map(|(group, test)| trial(group, test)).collect();
    libtest_mimic::run(&arguments, trials)
}

fn trial(group: &str, test: Test) -> Trial {
    Trial::ignorable_test(format!("{group}::{}", test.name), move || match run(test) {
        Ok(()) => Ok(Completion::Completed),
        Err(Stop::Skip(reason)) => Ok(Completion::ignored_with(reason)),
        Err(Stop::Fail(reason)) => Err(Failed::from(reason)),
    })
}

/// Says how long a test took, its leak check included, where somebody wants to know (`LONGSHORE_TIMES`).
struct Clock(&'static str, Instant);

impl Clock {
    fn start(name: &'static str) -> Option<Self> {
        std::env::var_os("LONGSHORE_TIMES").map(|_| Self(name, Instant::now()))
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        println!("{:8.3} s {}", self.1.elapsed().as_secs_f64(), self.0);
    }
}

/// Tests that must be alone hold this for writing, the others for reading.
static KERNEL: RwLock<()> = RwLock::new(());

fn run(test: Test) -> Check {
    match test.company {
        Company::Pure => {
            let _shared = KERNEL.read().unwrap_or_else(PoisonError::into_inner);
            let _clock = Clock::start(test.name);
            (test.body)()
        }
        Company::Alone => {
            let _alone = KERNEL.write().unwrap_or_else(PoisonError::into_inner);
            let _clock = Clock::start(test.name);
            let before = Snapshot::take();
            drop(warnings::take());
            let outcome = watched(test);
            judged(outcome, &before, &[test.name])
        }
        Company::Waiting => {
            let _shared = KERNEL.read().unwrap_or_else(PoisonError::into_inner);
            let _clock = Clock::start(test.name);
            beside_others(test)
        }
    }
}

fn watched(test: Test) -> Outcome {
    let _watch = watch::over(test.name);
    catch_unwind(AssertUnwindSafe(test.body))
}

type Outcome = std::thread::Result<Check>;

/// Those that run beside each other now, or have since somebody was there.
static BESIDE: Mutex<Option<Beside>> = Mutex::new(None);

struct Beside {
    before: Snapshot,
    running: usize,
    names: Vec<&'static str>,
}

/// Who comes first looks at the machine, and who goes last: what is left then is his failure, with the names of all.
fn beside_others(test: Test) -> Check {
    {
        let mut beside = BESIDE.lock().unwrap_or_else(PoisonError::into_inner);
        let beside = beside.get_or_insert_with(|| {
            drop(warnings::take());
            Beside {
                before: Snapshot::take(),
                running: 0,
                names: Vec::new(),
            }
        });
        beside.running += 1;
        beside.names.push(test.name);
    }
    let outcome = watched(test);
    let mut all = BESIDE.lock().unwrap_or_else(PoisonError::into_inner);
    let beside = all.as_mut().expect("this one is among them");
    beside.running -= 1;
    if beside.running > 0 {
        return outcome.unwrap_or_else(|panic| resume_unwind(panic));
    }
    let Beside { before, names, .. } = all.take().expect("they were just there");
    // Who comes now has to wait for the look at the machine.
    judged(outcome, &before, &names)
}

/// What a test is worth after a look at what it, or those beside it, left.
fn judged(outcome: Outcome, before: &Snapshot, names: &[&str]) -> Check {
    let leaks = before.leaks_within(std::time::Duration::from_secs(2));
    let warned = warnings::take();
    if matches!(outcome, Ok(Ok(()) | Err(Stop::Skip(_)))) && leaks.is_empty() {
        return outcome.unwrap_or(Ok(()));
    }
    for warning in warned {
        println!("warned: {warning}");
    }
    match outcome {
        Err(panic) => resume_unwind(panic),
        Ok(Err(Stop::Fail(reason))) => fail(reason),
        Ok(_) => fail(format!("{} left behind:\n  {}", names.join(", "), leaks.join("\n  "))),
    }
}
