//! runc on a bundle that is a plain directory: no image, no overlay, no daemon.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{installed, sh};

/// A bundle around a root file system, whose program is `true`.
pub fn bundle(dir: &Path, rootfs: &Path) -> Result<PathBuf, String> {
    installed("runc")?;
    let bundle = dir.join("bundle");
    std::fs::create_dir_all(&bundle).map_err(|error| error.to_string())?;
    let _ = std::fs::remove_file(bundle.join("config.json"));
    sh(Command::new("runc").arg("spec").arg("--bundle").arg(&bundle))?;
    let text = std::fs::read_to_string(bundle.join("config.json")).map_err(|error| error.to_string())?;
    let mut config: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    config["process"]["args"] = serde_json::json!(["true"]);
    config["process"]["terminal"] = false.into();
    config["root"]["path"] = rootfs.display().to_string().into();
    std::fs::write(bundle.join("config.json"), config.to_string()).map_err(|error| error.to_string())?;
    Ok(bundle)
}

pub fn run(dir: &Path, bundle: &Path, name: &str) -> Command {
    let mut command = Command::new("runc");
    command
        .arg("--root")
        .arg(dir.join("runc"))
        .arg("run")
        .arg("--bundle")
        .arg(bundle)
        .arg(name);
    command
}
