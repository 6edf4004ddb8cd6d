//! What a pull shows: a bar per layer on a terminal, a line per event anywhere else, or nothing.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use longshore::{Digest, ProgressEvent};

/// Where it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// For `pull`, whose output it is.
    Stdout,
    /// For `run`, whose stdout is the container's.
    Stderr,
}

/// A view of one pull. Clones show the same.
#[derive(Debug, Clone)]
pub struct PullView(Arc<View>);

#[derive(Debug)]
struct View {
    target: Target,
    quiet: bool,
    bars: Option<MultiProgress>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    manifest: Option<Digest>,
    layers: BTreeMap<Digest, Layer>,
}

#[derive(Debug)]
struct Layer {
    bar: Option<ProgressBar>,
    received: u64,
    arrived: bool,
}

impl PullView {
    /// A view with nothing to show yet.
    pub fn new(target: Target, quiet: bool) -> Self {
        let (terminal, draw) = match target {
            Target::Stdout => (io::stdout().is_terminal(), ProgressDrawTarget::stdout as fn() -> _),
            Target::Stderr => (io::stderr().is_terminal(), ProgressDrawTarget::stderr as fn() -> _),
        };
        let bars = (terminal && !quiet).then(|| MultiProgress::with_draw_target(draw()));
        Self(Arc::new(View {
            target,
            quiet,
            bars,
            state: Mutex::default(),
        }))
    }

    /// What the pull reports to.
    pub fn reporter(&self) -> impl Fn(ProgressEvent) + Send + Sync + 'static {
        let view = self.clone();
        move |event| view.0.show(event)
    }

    /// Leaves what was shown as it is; the cursor stands below it.
    pub fn finish(&self) {
        for layer in self.0.state().layers.values() {
            if let Some(bar) = layer.bar.as_ref().filter(|bar| !bar.is_finished()) {
                bar.abandon();
            }
        }
    }

    /// Digest of the manifest that was found.
    pub fn manifest(&self) -> Option<Digest> {
        self.0.state().manifest
    }
}

impl View {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, event: ProgressEvent) {
        let mut state = self.state();
        match event {
            ProgressEvent::Resolved { manifest, .. } => state.manifest = Some(manifest),
            ProgressEvent::Exists { digest, size } => {
                let layer = self.layer(&mut state, digest, size);
                layer.arrived = true;
                self.say(&digest, layer, "Already exists");
            }
            ProgressEvent::Downloaded { digest, bytes, size } => {
                let layer = self.layer(&mut state, digest, size);
                layer.received += bytes;
                if let Some(bar) = &layer.bar {
                    bar.set_position(layer.received);
                }
                if layer.received >= size && !layer.arrived {
                    layer.arrived = true;
                    self.say(&digest, layer, "Download complete");
                }
            }
            ProgressEvent::Unpacked { digest } => {
                let layer = self.layer(&mut state, digest, 0);
                self.say(&digest, layer, "Pull complete");
            }
            _ => {}
        }
    }

    fn layer<'a>(&self, state: &'a mut State, digest: Digest, size: u64) -> &'a mut Layer {
        state.layers.entry(digest).or_insert_with(|| {
            let bar = self.bars.as_ref().map(|bars| bars.add(new_bar(&digest, size)));
            Layer {
                bar,
                received: 0,
                arrived: false,
            }
        })
    }

    /// Says what became of a layer: behind its bar, which ends there, or on a line.
    fn say(&self, digest: &Digest, layer: &Layer, what: &'static str) {
        if let Some(bar) = &layer.bar {
            bar.set_style(style("{prefix}: {msg}"));
            bar.abandon_with_message(what);
            return;
        }
        if self.quiet {
            return;
        }
        let line = format!("{}: {what}\n", digest.short());
        // A pull goes on where nobody listens any more.
        let _ = match self.target {
            Target::Stdout => io::stdout().lock().write_all(line.as_bytes()),
            Target::Stderr => io::stderr().lock().write_all(line.as_bytes()),
        };
    }
}

fn new_bar(digest: &Digest, size: u64) -> ProgressBar {
    ProgressBar::new(size)
        .with_style(style(
            "{prefix}: {msg} [{bar:40}] {decimal_bytes}/{decimal_total_bytes}",
        ))
        .with_prefix(digest.short())
        .with_message("Downloading")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_s_life_is_followed_to_its_end() {
        let view = PullView::new(Target::Stderr, true);
        let report = view.reporter();
        let digest = Digest::of(b"layer");
        report(ProgressEvent::Resolved {
            manifest: Digest::of(b"manifest"),
            layers: 1,
            total_bytes: 10,
        });
        report(ProgressEvent::Downloaded {
            digest,
            bytes: 4,
            size: 10,
        });
        assert!(!view.0.state().layers[&digest].arrived);
        report(ProgressEvent::Downloaded {
            digest,
            bytes: 6,
            size: 10,
        });
        report(ProgressEvent::Unpacked { digest });
        assert!(view.0.state().layers[&digest].arrived);
        assert_eq!(view.manifest(), Some(Digest::of(b"manifest")));
        view.finish();
    }

    #[test]
    fn templates_are_valid() {
        for template in [
            "{prefix}: {msg}",
            "{prefix}: {msg} [{bar:40}] {decimal_bytes}/{decimal_total_bytes}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
