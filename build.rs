//! Builds the static helper (`src/runtime/native/helper`) that the library embeds, with the compiler that builds the crate.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The helper's directory, from the package's root.
const SOURCE: &str = "src/runtime/native/helper";
/// The helper's programs. A shim stays beside each detached container and can more; a zygote is there for every engine, and is
/// kept small: `docs/process-model.md`.
const IMAGES: [Image; 2] = [
    Image {
        name: "longshore-helper",
        shim: false,
    },
    Image {
        name: "longshore-shim",
        shim: true,
    },
];

/// A program that is made of the helper's sources.
struct Image {
    name: &'static str,
    /// Whether it can be a shim.
    shim: bool,
}

/// Nobody unwinds the helper's stack, and the tables for that, which `core` brings along, are a fifth of it. Nor does anybody
/// ask which compiler it was.
const SCRIPT: &str = "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.eh_frame.*) *(.comment) } } INSERT AFTER .text;\n";
/// Set to `rust-lld` or `cc`, the helper is linked with that or not at all. Without it: whichever works, in that order.
const LINKER: &str = "LONGSHORE_HELPER_LINKER";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCE}");
    let out = PathBuf::from(variable("OUT_DIR"));
    if variable("CARGO_CFG_TARGET_OS") != "linux" || env::var_os("DOCS_RS").is_some() {
        // Nothing to run them on; the files must still exist for `include_bytes!`.
        IMAGES.iter().for_each(|image| write_empty(&out.join(image.name)));
        return;
    }
    println!("cargo::rerun-if-env-changed={LINKER}");
    let mut attempts: Vec<Linker> = [rust_lld().map(Linker::Lld), Some(Linker::Cc)]
        .into_iter()
        .flatten()
        .collect();
    if let Ok(wanted) = env::var(LINKER) {
        attempts.retain(|linker| linker.name() == wanted);
    }
    let mut failures = Vec::new();
    for linker in &attempts {
        let compiled = IMAGES.iter().try_for_each(|image| compile(linker, image, &out));
        match compiled {
            Ok(()) => return,
            Err(failure) => failures.push(failure),
        }
    }
    for line in failures.iter().flat_map(|failure| failure.lines()) {
        println!("cargo::warning={line}");
    }
    println!(
        "cargo::error=the static helper in {SOURCE} cannot be built; a linker is needed: rust-lld of the toolchain, or cc"
    );
}

/// How the helper is linked.
enum Linker {
    /// `rust-lld`, which most toolchains bring along.
    Lld(PathBuf),
    /// The host's C compiler as a front end to its linker.
    Cc,
}

impl Linker {
    fn name(&self) -> &'static str {
        match self {
            Self::Lld(_) => "rust-lld",
            Self::Cc => "cc",
        }
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn write_empty(out: &Path) {
    if let Err(error) = std::fs::write(out, []) {
        println!("cargo::error=write {}: {error}", out.display());
    }
}

/// Where the toolchain keeps its own linker, if it has one.
fn rust_lld() -> Option<PathBuf> {
    let output = Command::new(variable("RUSTC"))
        .args(["--print", "sysroot"])
        .output()
        .ok()?;
    let sysroot = String::from_utf8(output.stdout).ok()?;
    let path = Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(variable("HOST"))
        .join("bin/rust-lld");
    path.exists().then_some(path)
}

fn compile(linker: &Linker, image: &Image, directory: &Path) -> Result<(), String> {
    let out = &directory.join(image.name);
    let mut command = Command::new(variable("RUSTC"));
    command
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "bin",
            "--crate-name",
            "longshore_helper",
        ])
        .args(["--target", &variable("TARGET"), "--cap-lints", "warn"])
        .args([
            "-C",
            "opt-level=z",
            "-C",
            "panic=abort",
            "-C",
            "relocation-model=static",
            "-C",
            "codegen-units=1",
        ])
        .args(if image.shim { &["--cfg", "shim"][..] } else { &[] })
        // Size counts more than the calls that it saves.
        .args(["-C", "llvm-args=-inline-threshold=15"])
        .args(["-C", "strip=symbols", "-C", "debuginfo=0", "-C", "overflow-checks=off"])
        .args(["-C", "default-linker-libraries=no", "-C", "force-unwind-tables=no"])
        // Across `core` too, or the formatting that a panic would use (and never does) takes a third of the helper.
        .args(["-C", "lto=fat", "-C", "embed-bitcode=yes"])
        // The same helper wherever the sources lie.
        .args([
            "--remap-path-prefix",
            &format!("{}=longshore", variable("CARGO_MANIFEST_DIR")),
        ])
        // Flags meant for the embedder's build (sanitizers, coverage) would pull a runtime into the helper.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    if variable("CARGO_CFG_TARGET_ENV") == "musl" {
        // That target brings start files of a C program along.
        command.args(["-C", "link-self-contained=no"]);
    }
    let script = out.with_extension("ld");
    std::fs::write(&script, SCRIPT).map_err(|error| format!("write {}: {error}", script.display()))?;
    link_arguments(linker, &script, &mut command);
    command
        .arg("-o")
        .arg(out)
        .arg(Path::new(&variable("CARGO_MANIFEST_DIR")).join(SOURCE).join("main.rs"));
    let output = command.output().map_err(|error| format!("run {command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn link_arguments(linker: &Linker, script: &Path, command: &mut Command) {
    const PLAIN: [&str; 7] = [
        "-static",
        "--build-id=none",
        "--gc-sections",
        "--no-eh-frame-hdr",
        "-znorelro",
        "-znoseparate-code",
        "-nostdlib",
    ];
    match linker {
        Linker::Lld(path) => {
            command
                .arg("-C")
                .arg(format!("linker={}", path.display()))
                .args(["-C", "linker-flavor=ld.lld"]);
            // Functions with the same code are one; and whoever executes a program does not read its table of sections.
            for argument in PLAIN
                .iter()
                .chain(&["--no-rosegment", "--icf=all", "-znosectionheader"])
            {
                command.arg("-C").arg(format!("link-arg={argument}"));
            }
            command.arg("-C").arg(format!("link-arg=--script={}", script.display()));
        }
        Linker::Cc => {
            command.args([
                "-C",
                "link-arg=-nostartfiles",
                "-C",
                "link-arg=-nostdlib",
                "-C",
                "link-arg=-static",
            ]);
            for argument in &PLAIN[1..6] {
                command.arg("-C").arg(format!("link-arg=-Wl,{argument}"));
            }
            command
                .arg("-C")
                .arg(format!("link-arg=-Wl,--script={}", script.display()));
        }
    }
}
