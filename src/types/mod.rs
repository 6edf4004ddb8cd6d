//! Plain values that every piece agrees on: ids, digests, references, platforms, sizes, mounts. No I/O.

mod bytes;
mod cgroup_parent;
mod change;
mod descriptor;
mod digest;
mod exit;
mod filter;
mod id;
mod id_range;
mod mount;
mod name;
mod net;
mod outcome;
#[cfg(any(feature = "api", feature = "remote"))]
pub(crate) mod pem;
mod platform;
mod reference;
mod shaping;
mod signal;
#[cfg(any(feature = "engine", feature = "remote"))]
mod stream;
#[cfg(any(feature = "engine", feature = "remote"))]
pub(crate) mod until;

pub use self::bytes::Bytes;
pub use self::cgroup_parent::CgroupParent;
pub use self::change::{Change, ChangeKind};
pub use self::descriptor::{Descriptor, LayerRef, MediaType};
pub use self::digest::{ChainId, DiffId, Digest, Hasher};
pub use self::exit::ExitStatus;
pub use self::filter::Filter;
pub use self::id::{ContainerId, ImageId, NetworkId, OwnerId};
pub use self::id_range::IdRange;
pub use self::mount::{Mount, MountSource, Propagation};
pub use self::name::{ContainerName, VolumeName};
pub use self::net::{Endpoint, EndpointLink, EndpointSpec, Port, PortBinding, Protocol, PublishedPort};
pub use self::outcome::Outcome;
pub use self::platform::Platform;
pub use self::reference::{ImageSource, Reference};
pub use self::shaping::{LinkShape, Shaping};
pub use self::signal::Signal;
#[cfg(any(feature = "engine", feature = "remote"))]
pub use self::stream::{ByteStream, reader_stream};
#[cfg(feature = "engine")]
pub(crate) use self::stream::{Next, poll_here, poll_movable};
