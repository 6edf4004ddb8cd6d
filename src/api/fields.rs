//! What differs between versions of the API, as one table of fields.
//!
//! Verbs make the union of all shapes; [`fit`] takes away what a version does not have. Versions before 1.41 get the shape of
//! 1.41. Sources: the API's descriptions at 1.41, 1.44 and 1.56, its history (moby, `api/docs/CHANGELOG.md`), and the places
//! where dockerd 29 asks for the version (moby, `daemon/server/router`). `tests/clients/recorded` holds what dockerd answers.

use serde_json::Value;

use super::version::ApiVersion;

/// An object of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Container,
    ContainerSummary,
    DiskUsage,
    Event,
    Image,
    ImageSummary,
    Info,
    Network,
    NetworkSummary,
    Stats,
}

/// A field that only some versions have: from `since`, and before `until`.
struct Field {
    shape: Shape,
    /// Names down to the field. `*` is every element.
    path: &'static [&'static str],
    since: u16,
    until: u16,
}

/// No end in sight.
const ON: u16 = u16::MAX;

const fn field(shape: Shape, path: &'static [&'static str], since: u16, until: u16) -> Field {
    Field {
        shape,
        path,
        since,
        until,
    }
}

/// The table.
#[rustfmt::skip]
const FIELDS: &[Field] = &[
    field(Shape::Container, &["HostConfig", "KernelMemory"], 0, 42),
    field(Shape::Container, &["HostConfig", "KernelMemoryTCP"], 0, 52),
    field(Shape::Container, &["HostConfig", "Annotations"], 43, ON),
    field(Shape::Container, &["Config", "MacAddress"], 0, 52),
    field(Shape::Container, &["NetworkSettings", "Networks", "*", "DNSNames"], 44, ON),
    field(Shape::Container, &["NetworkSettings", "Networks", "*", "GwPriority"], 48, ON),
    field(Shape::Container, &["NetworkSettings", "Bridge"], 0, 52),
    field(Shape::Container, &["NetworkSettings", "HairpinMode"], 0, 52),
    field(Shape::Container, &["NetworkSettings", "LinkLocalIPv6Address"], 0, 52),
    field(Shape::Container, &["NetworkSettings", "LinkLocalIPv6PrefixLen"], 0, 52),
    field(Shape::Container, &["NetworkSettings", "SecondaryIPAddresses"], 0, 52),
    field(Shape::Container, &["NetworkSettings", "SecondaryIPv6Addresses"], 0, 52),
    field(Shape::Container, &["NetworkSettings", "EndpointID"], 0, 52),
    field(Shape::Container, &["NetworkSettings", "Gateway"], 0, 52),
    field(Shape::Container, &["NetworkSettings", "GlobalIPv6Address"], 0, 52),
    field(Shape::Container, &["NetworkSettings", "GlobalIPv6PrefixLen"], 0, 52),
    field(Shape::Container, &["NetworkSettings", "IPAddress"], 0, 52),
    field(Shape::Container, &["NetworkSettings", "IPPrefixLen"], 0, 52),
    field(Shape::Container, &["NetworkSettings", "IPv6Gateway"], 0, 52),
    field(Shape::Container, &["NetworkSettings", "MacAddress"], 0, 52),
    field(Shape::Container, &["GraphDriver"], 0, 52),
    field(Shape::Container, &["Storage"], 52, ON),
    field(Shape::Container, &["ImageManifestDescriptor"], 48, ON),
    field(Shape::ContainerSummary, &["Health"], 52, ON),
    field(Shape::ContainerSummary, &["ImageManifestDescriptor"], 48, ON),
    field(Shape::ContainerSummary, &["NetworkSettings", "Networks", "*", "DNSNames"], 44, ON),
    field(Shape::ContainerSummary, &["NetworkSettings", "Networks", "*", "GwPriority"], 48, ON),
    field(Shape::DiskUsage, &["BuilderSize"], 0, 42),
    field(Shape::DiskUsage, &["ImageUsage"], 52, ON),
    field(Shape::DiskUsage, &["ContainerUsage"], 52, ON),
    field(Shape::DiskUsage, &["VolumeUsage"], 52, ON),
    field(Shape::DiskUsage, &["BuildCacheUsage"], 52, ON),
    field(Shape::DiskUsage, &["Images", "*", "VirtualSize"], 0, 44),
    field(Shape::Event, &["status"], 0, 52),
    field(Shape::Event, &["id"], 0, 52),
    field(Shape::Event, &["from"], 0, 52),
    field(Shape::Image, &["VirtualSize"], 0, 44),
    field(Shape::Image, &["Container"], 0, 45),
    field(Shape::Image, &["ContainerConfig"], 0, 45),
    field(Shape::Image, &["Descriptor"], 48, ON),
    field(Shape::Image, &["Manifests"], 48, ON),
    field(Shape::Image, &["GraphDriver"], 0, 52),
    field(Shape::Image, &["Config", "Hostname"], 0, 50),
    field(Shape::Image, &["Config", "Domainname"], 0, 50),
    field(Shape::Image, &["Config", "AttachStdin"], 0, 50),
    field(Shape::Image, &["Config", "AttachStdout"], 0, 50),
    field(Shape::Image, &["Config", "AttachStderr"], 0, 50),
    field(Shape::Image, &["Config", "Tty"], 0, 50),
    field(Shape::Image, &["Config", "OpenStdin"], 0, 50),
    field(Shape::Image, &["Config", "StdinOnce"], 0, 50),
    field(Shape::Image, &["Config", "Image"], 0, 50),
    field(Shape::ImageSummary, &["VirtualSize"], 0, 44),
    field(Shape::ImageSummary, &["Manifests"], 47, ON),
    field(Shape::ImageSummary, &["Descriptor"], 48, ON),
    field(Shape::Info, &["KernelMemory"], 0, 42),
    field(Shape::Info, &["KernelMemoryTCP"], 0, 52),
    field(Shape::Info, &["BridgeNfIptables"], 0, 50),
    field(Shape::Info, &["BridgeNfIp6tables"], 0, 50),
    field(Shape::Info, &["ContainerdCommit", "Expected"], 0, 49),
    field(Shape::Info, &["RuncCommit", "Expected"], 0, 49),
    field(Shape::Info, &["InitCommit", "Expected"], 0, 49),
    field(Shape::Info, &["RegistryConfig", "AllowNondistributableArtifactsCIDRs"], 0, 49),
    field(Shape::Info, &["RegistryConfig", "AllowNondistributableArtifactsHostnames"], 0, 49),
    field(Shape::Info, &["CDISpecDirs"], 44, ON),
    field(Shape::Info, &["DiscoveredDevices"], 50, ON),
    field(Shape::NetworkSummary, &["Containers"], 0, 52),
    field(Shape::Network, &["Status"], 52, ON),
    field(Shape::Network, &["EnableIPv4"], 48, ON),
    field(Shape::NetworkSummary, &["EnableIPv4"], 48, ON),
    field(Shape::Stats, &["os_type"], 52, ON),
];

/// Fields that are left out where they say nothing, from a version on; before, they are there, empty.
#[rustfmt::skip]
const BARE: &[(Shape, &[&str], u16)] = &[
    (Shape::Container, &["Config", "OnBuild"], 52),
    (Shape::Image, &["Author"], 52),
    (Shape::Image, &["Comment"], 52),
    (Shape::Image, &["DockerVersion"], 52),
    (Shape::Image, &["Parent"], 52),
    (Shape::Image, &["Config", "Cmd"], 52),
    (Shape::Image, &["Config", "Entrypoint"], 52),
    (Shape::Image, &["Config", "Env"], 52),
    (Shape::Image, &["Config", "Labels"], 52),
    (Shape::Image, &["Config", "OnBuild"], 52),
    (Shape::Image, &["Config", "User"], 52),
    (Shape::Image, &["Config", "Volumes"], 52),
    (Shape::Image, &["Config", "WorkingDir"], 52),
];

/// Takes away what a version does not have.
pub(super) fn fit(shape: Shape, version: ApiVersion, value: &mut Value) {
    let gone = FIELDS
        .iter()
        .filter(|field| field.shape == shape && !(field.since..field.until).contains(&version.minor()));
    for field in gone {
        remove(value, field.path, &|_| true);
    }
    let bare = BARE
        .iter()
        .filter(|(of, _, since)| *of == shape && version.at_least(*since));
    for (_, path, _) in bare {
        remove(value, path, &says_nothing);
    }
}

/// Whether Go would leave a value out that it may leave out when it is empty.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Removes what is at a path, if it is such that it may go.
fn remove(value: &mut Value, path: &[&str], may_go: &dyn Fn(&Value) -> bool) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    match (value, *first, rest) {
        (Value::Object(object), name, []) if object.get(name).is_some_and(may_go) => {
            object.remove(name);
        }
        (Value::Object(_), _, []) => {}
        (Value::Array(all), "*", rest) => all.iter_mut().for_each(|one| remove(one, rest, may_go)),
        (Value::Object(object), "*", rest) => object.values_mut().for_each(|one| remove(one, rest, may_go)),
        (Value::Object(object), name, rest) => {
            if let Some(inner) = object.get_mut(name) {
                remove(inner, rest, may_go);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
