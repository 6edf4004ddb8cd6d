//! Rounds, rows and ratios.

use std::time::{Duration, Instant};

/// One who does the job. `run` returns the time of what counts; what it prepares and cleans up does not.
pub struct Contestant {
    pub name: String,
    pub run: Result<Run, String>,
}

pub type Run = Box<dyn FnMut() -> Result<Duration, String>>;

impl Contestant {
    pub fn new(name: impl Into<String>, run: impl FnMut() -> Result<Duration, String> + 'static) -> Self {
        Self {
            name: name.into(),
            run: Ok(Box::new(run)),
        }
    }

    /// From something that may not be possible on this host.
    pub fn maybe(name: impl Into<String>, run: Result<Run, String>) -> Self {
        Self { name: name.into(), run }
    }
}

/// A job, ready to run.
pub struct Job {
    pub about: String,
    pub rounds: usize,
    /// Rest before each run. Starts that follow each other closely hide what the kernel defers (RCU grace periods).
    pub pause: Duration,
    pub contestants: Vec<Contestant>,
    /// Done before each run, not measured.
    pub between: Box<dyn FnMut()>,
}

/// What a contestant reached.
pub struct Row {
    pub name: String,
    /// Seconds, in the order of the rounds.
    pub samples: Vec<f64>,
    /// Why it did not take part, or dropped out.
    pub reason: Option<String>,
}

impl Row {
    pub fn min(&self) -> Option<f64> {
        self.samples.iter().copied().reduce(f64::min)
    }

    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(sorted[middle]),
            _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        }
    }
}

/// Times what it does.
pub fn timed<T, E: ToString>(what: impl FnOnce() -> Result<T, E>) -> Result<Duration, String> {
    let start = Instant::now();
    what().map_err(|error| error.to_string())?;
    Ok(start.elapsed())
}

/// Every contestant once per round; the first round only warms up. Who fails drops out with the reason.
pub fn in_turn(contestants: Vec<Contestant>, rounds: usize, pause: Duration, between: &mut dyn FnMut()) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut runs = Vec::new();
    for contestant in contestants {
        let reason = contestant.run.as_ref().err().cloned();
        rows.push(Row {
            name: contestant.name,
            samples: Vec::new(),
            reason,
        });
        runs.push(contestant.run.ok());
    }
    for round in 0..=rounds {
        for (row, run) in rows.iter_mut().zip(&mut runs) {
            let Some(do_it) = run else { continue };
            between();
            std::thread::sleep(pause);
            match do_it() {
                Ok(_) if round == 0 => {}
                Ok(time) => row.samples.push(time.as_secs_f64()),
                Err(reason) => {
                    row.reason = Some(reason);
                    *run = None;
                }
            }
        }
    }
    rows
}

/// A row per contestant; the ratios say how many times as long as ours (the first) it takes.
pub fn print(rows: &[Row]) {
    println!(
        "  {:<22} {:>11} {:>11} {:>9} {:>9}  n",
        "", "min", "median", "min/ours", "med/ours"
    );
    for row in rows {
        let (Some(min), Some(median)) = (row.min(), row.median()) else {
            println!(
                "  {:<22} skipped: {}",
                row.name,
                row.reason.as_deref().unwrap_or("no samples")
            );
            continue;
        };
        println!(
            "  {:<22} {:>11} {:>11} {:>9} {:>9}  {}{}",
            row.name,
            human(min),
            human(median),
            ratio(min, rows.first().and_then(Row::min)),
            ratio(median, rows.first().and_then(Row::median)),
            row.samples.len(),
            row.reason
                .as_deref()
                .map(|reason| format!("  dropped out: {reason}"))
                .unwrap_or_default()
        );
    }
}

pub fn ratio(value: f64, ours: Option<f64>) -> String {
    ours.map_or_else(|| "-".to_owned(), |ours| format!("{:.2}", value / ours))
}

pub fn human(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}
