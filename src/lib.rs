//! rnet.
