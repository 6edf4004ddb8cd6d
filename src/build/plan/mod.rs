//! What a Dockerfile asks for, given build arguments, platforms and a target: stages that depend on each other, and typed
//! steps. Pure: nothing is read, fetched or run.
//!
//! A plan is made in two goes. [`Plan::new`] finds which stages the target needs, in an order in which each comes after
//! those it depends on. [`Plan::steps`] puts the variables of one stage in; for that it must be told what the stage's base
//! image says of the environment, which is known only once that image is there.

mod actions;
mod args;
mod graph;
mod made;
mod options;
mod paths;
mod ports;
mod resolve;
mod stages;
mod step;
#[cfg(test)]
mod tests;

pub use self::graph::{Base, PlannedStage};
pub use self::made::StageBuilder;
pub use self::options::PlanOptions;
pub use self::ports::PortRange;
pub use self::resolve::{StageState, Steps};
pub use self::stages::MadeStage;
pub use self::step::{
    Action, AddAction, CopyAction, FileContent, HealthAction, MountAction, Origin, RunAction, Script, Step,
};

pub(crate) use self::args::Globals;
#[cfg(feature = "engine")]
pub(crate) use self::args::PREDEFINED;
pub(crate) use self::ports::exposed;
#[cfg(any(feature = "engine", feature = "remote"))]
pub(crate) use self::resolve::PATH;
pub(crate) use self::resolve::Resolver;

use self::graph::Names;
use self::stages::Sketch;

use super::dockerfile::Dockerfile;
use crate::error::Result;

/// Which stages to build, in which order.
///
/// ```
/// use longshore::build::{Dockerfile, Plan, PlanOptions, StageState};
///
/// let file = Dockerfile::parse("FROM busybox AS a\nRUN true\nFROM scratch AS b\nFROM a\nCOPY x /y")?;
/// let plan = Plan::new(&file, &PlanOptions::new())?;
/// assert_eq!(plan.order(), [0, 2], "nobody needs the second stage");
///
/// let first = plan.steps(0, StageState::image([("PATH", "/bin")]))?;
/// let last = plan.steps(2, first.after)?;
/// assert_eq!(last.steps.len(), 1);
/// # Ok::<(), longshore::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Plan {
    file: Dockerfile,
    options: PlanOptions,
    globals: Globals,
    stages: Vec<PlannedStage>,
    names: Names,
    order: Vec<usize>,
    /// What is made in Rust; the file has its `FROM`s alone then.
    made: Vec<Sketch>,
}

impl Plan {
    /// Finds out which stages are needed.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` with file, line and column: a target or a stage that is not there, stages that need each other, a
    /// platform or an image name that is none, a variable that must have a value.
    pub fn new(file: &Dockerfile, options: &PlanOptions) -> Result<Self> {
        Self::make(file, options, Vec::new()).map_err(|fault| fault.into_error(file.file()))
    }

    fn make(file: &Dockerfile, options: &PlanOptions, made: Vec<Sketch>) -> super::dockerfile::Parsed<Self> {
        let globals = Globals::new(file, options)?;
        let (mut stages, names) = graph::stages(file, options, &globals)?;
        for (stage, sketch) in stages.iter_mut().zip(&made) {
            sketch.add_needs(stage, file, &names)?;
        }
        let target = graph::target(file, options)?;
        let order = graph::order(&stages, target)?;
        Ok(Self {
            file: file.clone(),
            options: options.clone(),
            globals,
            stages,
            names,
            order,
            made,
        })
    }

    /// The stages that the target needs, by number, the target last.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// All stages of the file.
    pub fn stages(&self) -> &[PlannedStage] {
        &self.stages
    }

    /// The steps of a stage, the triggers of its base first.
    ///
    /// `before` is what holds at its beginning: [`StageState::image`] or [`StageState::scratch`], or what
    /// [`Steps::after`] said of the stage it is based on.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` with file, line and column, where a word cannot be expanded or is not what its instruction needs.
    pub fn steps(&self, stage: usize, before: StageState) -> Result<Steps> {
        let steps = self.resolver(before).stage(stage);
        let steps = steps.map_err(|fault| fault.into_error(self.file.file()))?;
        match self.made.get(stage) {
            Some(sketch) => self.made_steps(stage, sketch, steps),
            None => Ok(steps),
        }
    }

    pub(crate) fn resolver(&self, before: StageState) -> Resolver<'_> {
        Resolver::new(self, before)
    }

    pub(crate) fn globals(&self) -> &Globals {
        &self.globals
    }
}
