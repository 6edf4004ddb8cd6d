//! Answers in lines of JSON: progress, events, readings.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::error::Failure;
use super::reply::{self, Body, Reply};

/// A line. Docker ends lines of progress as HTTP does; every JSON reader takes both.
pub(super) fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\r\n"))
}

/// The line that ends a stream which cannot go on: the code of the answer is out already.
pub(super) fn failed(failure: &Failure) -> Value {
    json!({
        "errorDetail": {"code": failure.status.as_u16(), "message": failure.message},
        "error": failure.message,
        "longshore": failure.detail,
    })
}

/// Where work puts its lines.
#[derive(Debug, Clone)]
pub(super) struct Lines(mpsc::UnboundedSender<Bytes>);

impl Lines {
    /// Puts a line. Work bounds how many there are: they wait for the client.
    pub(super) fn put(&self, value: &Value) {
        let _ = self.0.send(line(value));
    }
}

type Work = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Work that tells of its progress. It goes on while the answer is read, and is dropped with it.
struct Working {
    work: Option<Work>,
    lines: mpsc::UnboundedReceiver<Bytes>,
    ready: Option<Bytes>,
}

impl Stream for Working {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(line) = this.ready.take() {
            return Poll::Ready(Some(Ok(line)));
        }
        if let Poll::Ready(Some(line)) = this.lines.poll_recv(context) {
            return Poll::Ready(Some(Ok(line)));
        }
        let Some(work) = &mut this.work else {
            return Poll::Ready(None);
        };
        let last = match work.as_mut().poll(context) {
            Poll::Pending => None,
            Poll::Ready(ended) => {
                this.work = None;
                Some(ended)
            }
        };
        // What it put before its end comes first.
        match (this.lines.poll_recv(context), last) {
            (Poll::Ready(Some(first)), last) => {
                this.ready = last.and_then(Result::err).map(|failure| line(&failed(&failure)));
                if this.ready.is_some() {
                    return Poll::Ready(Some(Ok(this.with_rest(first))));
                }
                Poll::Ready(Some(Ok(first)))
            }
            (_, Some(Err(failure))) => Poll::Ready(Some(Ok(line(&failed(&failure))))),
            (_, Some(Ok(()))) => Poll::Ready(None),
            (_, None) => Poll::Pending,
        }
    }
}

impl Working {
    /// A line and all that wait behind it.
    fn with_rest(&mut self, first: Bytes) -> Bytes {
        let mut all = first.to_vec();
        while let Ok(next) = self.lines.try_recv() {
            all.extend_from_slice(&next);
        }
        all.into()
    }
}

/// Answers with the progress of work. The answer begins with the first line, so that work which fails before it gets an
/// answer of its own, with a code.
pub(super) async fn progress<F>(begin: impl FnOnce(Lines) -> F) -> Result<Reply, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let (sender, lines) = mpsc::unbounded_channel();
    let mut working = Working {
        work: Some(Box::pin(begin(Lines(sender)))),
        lines,
        ready: None,
    };
    working.ready = std::future::poll_fn(|context| working.poll_first(context)).await?;
    Ok(reply::typed(StatusCode::OK, reply::JSON, Body::stream(working)))
}

impl Working {
    /// The first line, or the failure before it.
    fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        if let Poll::Ready(Some(line)) = self.lines.poll_recv(context) {
            return Poll::Ready(Ok(Some(line)));
        }
        let Some(work) = &mut self.work else {
            return Poll::Ready(Ok(None));
        };
        match work.as_mut().poll(context) {
            Poll::Pending => match self.lines.poll_recv(context) {
                Poll::Ready(Some(line)) => Poll::Ready(Ok(Some(line))),
                _ => Poll::Pending,
            },
            Poll::Ready(ended) => {
                self.work = None;
                match (self.lines.try_recv().ok(), ended) {
                    (None, Err(failure)) => Poll::Ready(Err(failure)),
                    (first, Ok(())) => Poll::Ready(Ok(first)),
                    (Some(first), Err(failure)) => {
                        let mut all = self.with_rest(first).to_vec();
                        all.extend_from_slice(&line(&failed(&failure)));
                        Poll::Ready(Ok(Some(all.into())))
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn text(reply: Reply) -> String {
        String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn b7_a_failure_before_the_first_line_has_a_code() {
        let failure = progress(|_lines| async { Err(Failure::no_page()) }).await.unwrap_err();
        assert_eq!(failure.status, 404);
    }

    #[tokio::test]
    async fn b7_a_failure_after_it_is_the_last_line() {
        for pause in [false, true] {
            let reply = progress(|lines| async move {
                lines.put(&json!({"status": "one"}));
                lines.put(&json!({"status": "two"}));
                if pause {
                    tokio::task::yield_now().await;
                    lines.put(&json!({"status": "three"}));
                }
                Err(Failure::bad("broken"))
            });
            let text = text(reply.await.unwrap()).await;
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), if pause { 4 } else { 3 }, "{text}");
            assert_eq!(lines[0], r#"{"status":"one"}"#);
            let last: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
            assert_eq!(last["errorDetail"]["message"], "broken");
            assert_eq!(last["error"], "broken");
        }
    }

    #[tokio::test]
    async fn every_line_comes_and_then_the_end() {
        let reply = progress(|lines| async move {
            for n in 0..100 {
                lines.put(&json!({"n": n}));
                if n % 7 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Ok(())
        });
        assert_eq!(text(reply.await.unwrap()).await.lines().count(), 100);
    }
}
