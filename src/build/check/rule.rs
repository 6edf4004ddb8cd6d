//! The rules.

use std::fmt;

use crate::build::dockerfile::Span;

/// A warning about a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule that is broken.
    pub rule: Rule,
    /// Where.
    pub span: Span,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.span, self.rule, self.message)
    }
}

macro_rules! rules {
    ($($(#[$attribute:meta])* $name:ident = $description:literal,)+) => {
        /// A rule, by the name it has in Docker.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Rule {
            $($(#[$attribute])* #[doc = $description] $name,)+
        }

        impl Rule {
            /// All rules.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// What it says.
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => $description,)+ }
            }
        }
    };
}

rules! {
    StageNameCasing = "Stage names should be lowercase",
    FromAsCasing = "The 'as' keyword should match the case of the 'from' keyword",
    NoEmptyContinuation = "Empty continuation lines will become errors in a future release",
    ConsistentInstructionCasing = "All commands within the Dockerfile should use the same casing (either upper or lower)",
    DuplicateStageName = "Stage names should be unique",
    ReservedStageName = "Reserved words should not be used as stage names",
    JSONArgsRecommended =
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    MaintainerDeprecated = "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    UndefinedArgInFrom = "FROM command must use declared ARGs",
    WorkdirRelativePath = "Relative workdir without an absolute workdir declared within the build can have unexpected \
                           results if the base image changes",
    UndefinedVar = "Variables should be defined before their use",
    MultipleInstructionsDisallowed = "Multiple instructions of the same type should not be used in the same stage",
    LegacyKeyValueFormat = "Legacy key/value format with whitespace separator should not be used",
    InvalidBaseImagePlatform = "Base image platform does not match expected target platform",
    RedundantTargetPlatform =
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    SecretsUsedInArgOrEnv = "Sensitive data should not be used in the ARG or ENV commands",
    InvalidDefaultArgInFrom = "Default value for global ARG results in an empty or invalid base image name",
    FromPlatformFlagConstDisallowed = "FROM --platform flag should not use a constant value",
    CopyIgnoredFile = "Attempting to Copy file that is excluded by .dockerignore",
    InvalidDefinitionDescription =
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`",
    ExposeProtoCasing = "Protocol in EXPOSE instruction should be lowercase",
    ExposeInvalidFormat = "IP address and host-port mapping should not be used in EXPOSE instruction",
    /// Not one of Docker's.
    ExecFormNotJSON = "What looks like the exec form is not JSON, and a shell gets its brackets",
}

impl Rule {
    /// Whether it holds only where it is asked for: `# check=experimental=…`.
    pub fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
