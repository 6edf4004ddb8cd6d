//! What containers print.
