//! Signals of a thread.

use std::mem::MaybeUninit;
use std::ptr;

/// Blocks all signals on the calling thread, and on those that it starts: the embedder's handlers run on the embedder's threads.
/// What cannot be blocked stays as it is: pthread_sigmask(3).
pub(crate) fn block_all() {
    let mut all = MaybeUninit::uninit();
    // SAFETY: sigfillset(3) writes a whole set to where it is told, which is large enough and this function's own;
    // pthread_sigmask(3) reads that set and writes nothing (null).
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut());
    }
}
