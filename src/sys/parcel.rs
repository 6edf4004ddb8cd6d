//! Results of any kind behind one type. What carries results between threads (channels, tasks, the wrappers around work) is
//! then made once by the compiler, not once for each of some hundred kinds: it was half a megabyte of an embedder.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::{Error, Result};

/// A value of some kind.
pub(crate) type Parcel = Box<dyn Any + Send>;

/// Work with a parcel for its result.
pub(crate) type Parcelled<'a> = Pin<Box<dyn Future<Output = Result<Parcel>> + Send + 'a>>;

/// Work with a result of its own kind.
type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// The value, where it is known what it is.
pub(crate) fn unpack<T: 'static>(parcel: Parcel) -> Result<T> {
    let value = parcel.downcast::<T>();
    value
        .map(|value| *value)
        .map_err(|_| Error::internal("an answer of another kind than was asked for"))
}

/// Work, with its result made a parcel.
pub(crate) fn parcelled<T: Send + 'static>(work: Work<'_, T>) -> Parcelled<'_> {
    Box::pin(Packing(work))
}

struct Packing<'a, T>(Work<'a, T>);

impl<T: Send + 'static> Future for Packing<'_, T> {
    type Output = Result<Parcel>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.0.as_mut().poll(context);
        polled.map(|result| result.map(|value| Box::new(value) as Parcel))
    }
}

/// Work whose parcel is opened when it comes.
pub(crate) struct Unpacking<'a, T> {
    work: Parcelled<'a>,
    kind: PhantomData<fn() -> T>,
}

impl<'a, T> Unpacking<'a, T> {
    pub(crate) fn new(work: Parcelled<'a>) -> Self {
        let kind = PhantomData;
        Self { work, kind }
    }
}

impl<T: 'static> Future for Unpacking<'_, T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.work.as_mut().poll(context).map(|result| result.and_then(unpack))
    }
}
