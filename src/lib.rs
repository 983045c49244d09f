//! rnet.

pub mod container;
pub mod page;
