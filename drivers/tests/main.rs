//! What the drivers say, without a host.

#![allow(clippy::unwrap_used)]

mod lan;
mod lists;
mod overlay;
mod parsers;
mod samples;
