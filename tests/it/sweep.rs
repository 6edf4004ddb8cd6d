//! All system calls that there could be, one by one, on the real kernel, from within a container: what the profile denies is denied,
//! what it allows is the kernel's to answer, and other entries into the kernel are closed.
//!
//! Each call has a process of its own, and arguments of -1, with which nothing can be done. What is expected is read from the profile's
//! text, without any of the library's code.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(not(target_arch = "x86_64"))]
use crate::frame::{Check, skip};
use crate::tests;
#[cfg(target_arch = "x86_64")]
use x86_64::{h11_every_call_is_answered_as_the_profile_says, h11_other_entries_are_closed_for_every_number};

tests! { "sweep":
    kernel_async [
        h11_every_call_is_answered_as_the_profile_says,
        h11_other_entries_are_closed_for_every_number,
    ]
}

#[cfg(not(target_arch = "x86_64"))]
async fn h11_every_call_is_answered_as_the_profile_says() -> Check {
    skip("machine code of x86_64")
}

#[cfg(not(target_arch = "x86_64"))]
async fn h11_other_entries_are_closed_for_every_number() -> Check {
    skip("machine code of x86_64")
}
