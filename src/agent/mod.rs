//! The agent: the long-running part of rnet, for what needs somebody who is there when asked. Never on the way of a
//! connect, and never needed for what is in the kernel: it can be killed at any time, and nothing changes there.
//!
//! ```text
//! rnet network create ──▶ agent.sock ──▶ the agent (no capability) ──▶ a process for each part (its own, and no other)
//!                                             ▲                                 ▲
//!                                             └───────── records (inotify) ─────┘
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `wire.rs` | what is said to it |
//! | `start.rs` | one agent for a run directory: begun where none is |
//! | `supervisor.rs` | the agent itself |
//! | `part.rs` | what it consists of, and how a part begins |
//! | `follow.rs` | the records, followed |
//! | `overlay/` | the part for networks that span hosts |
//! | `cipher/` | the process that encrypts between hosts, which outlives the agent |
//! | `confine.rs` | what a part gives up |

pub mod cipher;
mod confine;
pub mod follow;
pub mod names;
pub mod overlay;
pub mod part;
pub mod start;
pub mod supervisor;
pub mod wire;

use std::io;

/// A runtime of one thread.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
