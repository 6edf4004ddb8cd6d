//! Programs of another processor, and whether anybody runs them here.

use crate::types::Platform;

/// Whether this host runs the programs of a platform: its own, and those for which its kernel knows an emulator.
pub(crate) fn is_run_here(wanted: &Platform) -> bool {
    let host = Platform::host();
    host.os == wanted.os && (host.architecture == wanted.architecture || is_emulated(&wanted.architecture))
}

/// Whether the kernel has an interpreter for programs of that processor, one that it opened when it was registered. Source:
/// Linux, Documentation/admin-guide/binfmt-misc.rst.
fn is_emulated(architecture: &str) -> bool {
    let name = match architecture {
        "amd64" => "x86_64",
        "386" => "i386",
        "arm64" => "aarch64",
        "mips64le" => "mips64el",
        "loong64" => "loongarch64",
        same @ ("ppc64le" | "s390x" | "riscv64" | "arm") => same,
        _ => return false,
    };
    // 32 bits of the same family run as they are.
    if (architecture, Platform::host().architecture.as_str()) == ("386", "amd64") {
        return true;
    }
    let registered = std::fs::read_to_string(format!("/proc/sys/fs/binfmt_misc/qemu-{name}")).unwrap_or_default();
    let flags = registered.lines().find_map(|line| line.strip_prefix("flags:"));
    registered.starts_with("enabled") && flags.is_some_and(|flags| flags.contains('F'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h25_the_hosts_own_programs_run_and_unknown_ones_do_not() {
        assert!(is_run_here(&Platform::host()));
        for unknown in ["linux/vax", "plan9/amd64"] {
            assert!(!is_run_here(&unknown.parse().unwrap()), "{unknown}");
        }
    }
}
