//! What a test is: a name, whether it touches the kernel, and a body that passes, fails or says why it cannot run here.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::RwLock;

use libtest_mimic::{Completion, Failed, Trial};

use crate::support::leaks::Snapshot;
use crate::support::{warnings, watch};

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

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
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

/// A registered test.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    pub name: &'static str,
    pub kernel: bool,
    pub body: fn() -> Check,
}

/// The tests of a module.
pub type Group = (&'static str, &'static [Test]);

/// Registers functions of the module as tests: `pure` ones run side by side, `kernel` ones alone and with a leak check;
/// the `async` kinds get a fresh current-thread runtime each. A function that is not listed is a dead-code warning.
#[macro_export]
macro_rules! tests {
    ($group:literal: $($kind:ident [$($name:ident),* $(,)?])*) => {
        pub const TESTS: $crate::frame::Group = ($group, &[$($($crate::tests!(@ $kind $name)),*),*]);
    };
    (@ pure $name:ident) => {
        $crate::frame::Test { name: stringify!($name), kernel: false, body: $name }
    };
    (@ kernel $name:ident) => {
        $crate::frame::Test { name: stringify!($name), kernel: true, body: $name }
    };
    (@ kernel_async $name:ident) => {
        $crate::frame::Test { name: stringify!($name), kernel: true, body: || $crate::frame::block_on($name()) }
    };
}

/// Runs a future on a current-thread runtime of its own.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// All tests, as the test runner wants them.
pub fn trials(groups: &[Group]) -> Vec<Trial> {
    groups
        .iter()
        .flat_map(|(group, tests)| tests.iter().map(move |test| trial(group, *test)))
        .collect()
}

fn trial(group: &str, test: Test) -> Trial {
    Trial::ignorable_test(format!("{group}::{}", test.name), move || match run(test) {
        Ok(()) => Ok(Completion::Completed),
        Err(Stop::Skip(reason)) => Ok(Completion::ignored_with(reason)),
        Err(Stop::Fail(reason)) => Err(Failed::from(reason)),
    })
}

/// Tests that touch the kernel hold this for writing, the others for reading.
static KERNEL: RwLock<()> = RwLock::new(());

fn run(test: Test) -> Check {
    if !test.kernel {
        let _shared = KERNEL.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        return (test.body)();
    }
    let _alone = KERNEL.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    let _watch = watch::over(test.name);
    let before = Snapshot::take();
    drop(warnings::take());
    let outcome = catch_unwind(AssertUnwindSafe(test.body));
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
        Ok(Err(stop)) => Err(stop),
        Ok(Ok(())) => fail(format!("left behind:\n  {}", leaks.join("\n  "))),
    }
}
