//! The image manager on the driver: its futures can be awaited anywhere.
