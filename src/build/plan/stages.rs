//! Stages without a Dockerfile. Their `FROM`s, and what they leave for stages upon them, are written down as a Dockerfile's:
//! names, targets and triggers are those of one then.

use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use super::graph::Names;
use super::made::StageBuilder;
use super::resolve::{StageState, Steps};
use super::step::{Action, Origin, Step};
use super::{Base, Plan, PlanOptions, PlannedStage};
use crate::build::dockerfile::{Dockerfile, Parsed, Span};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::Platform;

/// What errors call the `FROM`s: there is a line for each stage.
const FILE: &str = "stages";

/// Makes the steps of a stage.
type Maker = Arc<dyn Fn(StageBuilder) -> StageBuilder + Send + Sync>;

/// A stage whose steps are made in Rust.
#[derive(Clone)]
pub struct MadeStage {
    name: Option<String>,
    base: String,
    platform: Option<Platform>,
    steps: Maker,
}

impl fmt::Debug for MadeStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadeStage")
            .field("name", &self.name)
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl MadeStage {
    /// A stage upon an earlier one, a named context, an image, or `scratch`.
    ///
    /// `steps` is called more than once: first upon nothing, to see which stages it needs, then upon what its base says of the
    /// shell and the working directory. It must make the same steps each time.
    pub fn new(base: impl Into<String>, steps: impl Fn(StageBuilder) -> StageBuilder + Send + Sync + 'static) -> Self {
        Self {
            name: None,
            base: base.into(),
            platform: None,
            steps: Arc::new(steps),
        }
    }

    /// The name by which later stages and the target mean it.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The platform of its base, where that is not the one that the image is for.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    /// The line that a Dockerfile has for it.
    fn opening(&self) -> Result<String> {
        let mut line = "FROM ".to_owned();
        if let Some(platform) = &self.platform {
            let _ = write!(line, "--platform={} ", word(&platform.to_string())?);
        }
        line.push_str(word(&self.base)?);
        if let Some(name) = &self.name {
            let _ = write!(line, " AS {}", word(name)?);
        }
        Ok(line)
    }

    fn make(&self, number: usize, begun: StageBuilder) -> Result<Steps> {
        let made = (self.steps)(begun).finish();
        made.map_err(|error| match (&self.name, number) {
            (Some(name), _) => said(format!("in stage {name:?}, "), error),
            (None, 0) => error,
            (None, number) => said(format!("in stage {number}, "), error),
        })
    }
}

fn said(place: String, error: Error) -> Error {
    Error::invalid(place + &error.to_string()).with_source(error)
}

/// What can be written into the line of a stage as it is: nothing in it means something else there.
fn word(text: &str) -> Result<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@+[]".contains(c);
    if text.is_empty() || text.starts_with('-') || !text.chars().all(plain) {
        let message = format!("{text:?} is no name of a stage, a context or an image");
        return Err(Error::invalid(message).with_object(ObjectKind::Option, "stage"));
    }
    Ok(text)
}

/// A stage, and what it makes upon nothing.
#[derive(Debug, Clone)]
pub(super) struct Sketch {
    stage: MadeStage,
    steps: Vec<Step>,
}

impl Sketch {
    fn new(number: usize, stage: MadeStage) -> Result<Self> {
        let steps = stage.make(number, StageBuilder::new(StageState::scratch()))?.steps;
        Ok(Self { stage, steps })
    }

    /// Its lines: where it begins, and what it leaves for stages upon it.
    fn write(&self, file: &mut String) -> Result<()> {
        file.push_str(&self.stage.opening()?);
        file.push('\n');
        for step in &self.steps {
            if let Action::Onbuild(text) = &step.action {
                let _ = writeln!(file, "ONBUILD {text}");
            }
        }
        Ok(())
    }

    /// Adds the stages that its own steps need.
    pub(super) fn add_needs(&self, planned: &mut PlannedStage, file: &Dockerfile, names: &Names) -> Parsed<()> {
        if is_replaced(planned) {
            return Ok(());
        }
        let stage = file.stages().get(planned.number);
        let span = stage.map(|stage| stage.opening.span).unwrap_or_default();
        for step in &self.steps {
            let found = put_origins_in(&mut step.action.clone(), names, span)?;
            planned.needs.extend(found.into_iter().map(|number| (number, span)));
        }
        Ok(())
    }
}

fn is_replaced(planned: &PlannedStage) -> bool {
    matches!(planned.base, Base::Context { replaces: true, .. })
}

impl Plan {
    /// Finds out which of these stages are needed. The steps are those of a Dockerfile that says the same.
    ///
    /// ```
    /// use longshore::build::{CopyAction, MadeStage, Plan, PlanOptions};
    ///
    /// let build = MadeStage::new("rust:1", |stage| stage.run_shell("cargo build")).named("build");
    /// let last = MadeStage::new("scratch", |stage| stage.copy(CopyAction::new(["/app"], "/").from("build")));
    /// let plan = Plan::made([build, last], &PlanOptions::new())?;
    /// assert_eq!(plan.order(), [0, 1]);
    /// # Ok::<(), longshore::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a step that can never work, a name that is none, and as [`Plan::new`] for a target or a stage that
    /// is not there, and for stages that need each other.
    pub fn made(stages: impl IntoIterator<Item = MadeStage>, options: &PlanOptions) -> Result<Self> {
        let stages = stages.into_iter().enumerate();
        let sketches = stages.map(|(number, stage)| Sketch::new(number, stage));
        let sketches: Vec<Sketch> = sketches.collect::<Result<_>>()?;
        if sketches.is_empty() {
            return Err(Error::invalid("there is no stage to build").with_object(ObjectKind::Option, "stage"));
        }
        let mut text = String::new();
        sketches.iter().try_for_each(|sketch| sketch.write(&mut text))?;
        let file = Dockerfile::parse_named(FILE, text)?;
        Self::make(&file, options, sketches).map_err(|fault| fault.into_error(FILE))
    }

    /// Behind what the base wants done, what the stage itself does.
    pub(super) fn made_steps(&self, number: usize, sketch: &Sketch, begun: Steps) -> Result<Steps> {
        let Some(planned) = self.stages.get(number).filter(|planned| !is_replaced(planned)) else {
            return Ok(begun);
        };
        let Steps { mut steps, after } = begun;
        // The others are what it leaves for stages upon it, and are among what it makes.
        steps.retain(|step| step.triggered);
        let known: BTreeSet<usize> = planned.needs.iter().map(|(number, _)| *number).collect();
        let made = sketch.stage.make(number, StageBuilder::going_on(after))?;
        for mut step in made.steps {
            let needed = put_origins_in(&mut step.action, &self.names, Span::default());
            let needed = needed.map_err(|fault| fault.into_error(FILE))?;
            if let Some(stage) = needed.iter().find(|stage| !known.contains(stage)) {
                let message = format!("a step needs stage {stage}, which it did not when the build was planned");
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
            steps.push(step);
        }
        for step in &mut steps {
            // There is no file to look into.
            step.span = Span::default();
        }
        Ok(Steps {
            steps,
            after: made.after,
        })
    }

    /// The first command of a stage, with its line if it has one.
    #[cfg(feature = "engine")]
    pub(crate) fn first_command(&self, number: usize) -> Option<(usize, String)> {
        use crate::build::dockerfile::Command;
        if self.stages.get(number).is_none_or(is_replaced) {
            return None;
        }
        if let Some(sketch) = self.made.get(number) {
            return sketch.steps.iter().find_map(|step| match &step.action {
                Action::Run(run) => Some((0, format!("RUN {}", run.args.join(" ")))),
                _ => None,
            });
        }
        let instructions = &self.file.stages().get(number)?.instructions;
        let first = instructions
            .iter()
            .find(|instruction| matches!(instruction.command, Command::Run(_)))?;
        Some((first.span.start.line, first.text.clone()))
    }
}

/// Says what the names in an action stand for, and returns the stages among that.
fn put_origins_in(action: &mut Action, names: &Names, span: Span) -> Parsed<Vec<usize>> {
    let mut stages = Vec::new();
    let mut put_in = |from: &mut Option<Origin>, numbers: bool| {
        match from {
            Some(Origin::Named(name)) => *from = Some(names.origin(name, span, numbers)?),
            Some(Origin::Stage(number)) => *from = Some(names.origin(&number.to_string(), span, true)?),
            _ => {}
        }
        if let Some(Origin::Stage(number)) = from {
            stages.push(*number);
        }
        Ok(())
    };
    match action {
        Action::Copy(copy) => put_in(&mut copy.from, true)?,
        Action::Run(run) => {
            for mount in &mut run.mounts {
                put_in(&mut mount.from, false)?;
            }
        }
        _ => {}
    }
    Ok(stages)
}
