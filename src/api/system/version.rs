//! `version`.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::reply;
use super::super::router::Answer;
use super::super::version::ApiVersion;
use crate::system::SystemInfo;

/// Docker's commit hash, which a library has not.
const NO_COMMIT: &str = "";

pub(super) async fn version(call: Call) -> Answer {
    let info = call.engine.system().info().await?;
    Ok(reply::ok(&body(&info)))
}

/// The answer. It is the same in every version.
pub(in crate::api) fn body(info: &SystemInfo) -> Value {
    let (os, arch) = ("linux", go_arch(&info.architecture));
    json!({
        "Platform": {"Name": "Longshore"},
        "Components": [{
            "Name": "Engine",
            "Version": info.version,
            "Details": {
                "ApiVersion": ApiVersion::MAX.to_string(),
                "Arch": arch,
                "Experimental": "false",
                "KernelVersion": info.kernel_version,
                "MinAPIVersion": ApiVersion::MIN.to_string(),
                "Os": os,
            },
        }],
        "Version": info.version,
        "ApiVersion": ApiVersion::MAX.to_string(),
        "MinAPIVersion": ApiVersion::MIN.to_string(),
        "GitCommit": NO_COMMIT,
        "GoVersion": "",
        "Os": os,
        "Arch": arch,
        "KernelVersion": info.kernel_version,
    })
}

/// The processor in Go's words, from the kernel's.
pub(in crate::api) fn go_arch(kernel: &str) -> &str {
    match kernel {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
