//! What requests have in common.

/// The setters of requests that tell of their progress and may be given a deadline.
macro_rules! progress_and_deadline {
    ($($request:ty),* $(,)?) => {
        $(impl $request {
            /// Where progress goes.
            pub fn progress(mut self, report: impl Fn(ProgressEvent) + Send + Sync + 'static) -> Self {
                self.progress = Progress::new(report);
                self
            }

            /// How long it may take, all of it together.
            pub fn deadline(mut self, limit: Duration) -> Self {
                self.deadline = Some(limit);
                self
            }
        })*
    };
}

pub(super) use progress_and_deadline;
