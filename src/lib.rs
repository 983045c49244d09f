//! rnet.

pub mod cli;
