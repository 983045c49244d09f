//! What a command changes in the kernel: transactions of nf_tables as `nft monitor` tells them, and every message that
//! it sends as `strace` reads it.

use std::time::Duration;

use crate::{command::Running, lab::Lab};

/// `nft monitor` on a lab's host, listening.
pub struct Watch<'a> {
    lab: &'a Lab,
    monitor: Running,
    marks: usize,
}

impl<'a> Watch<'a> {
    /// Starts listening, and hears by the time that this returns.
    #[track_caller]
    pub fn start(lab: &'a Lab) -> Self {
        lab.needs("nft");
        // Line by line, also into a pipe.
        let monitor = Running::start(&mut lab.command("stdbuf", &["-oL", "nft", "monitor"]));
        let mut watch = Self { lab, monitor, marks: 0 };
        let early = "nft add table ip early; nft delete table ip early";
        loop {
            lab.sh(early).ok();
            if watch.monitor.line_within(Duration::from_millis(200)).is_some() {
                break;
            }
        }
        drop(watch.up_to_mark());
        watch
    }

    /// Makes a change that the monitor tells of, and returns what it told before.
    fn up_to_mark(&mut self) -> Vec<String> {
        self.marks += 1;
        let mark = format!("mark{}", self.marks);
        self.lab.sh(&format!("nft add table ip {mark}")).ok();
        let mut lines = Vec::new();
        loop {
            let line = self.monitor.line();
            if line.contains(&mark) {
                self.lab.sh(&format!("nft delete table ip {mark}")).ok();
                return lines;
            }
            lines.push(line);
        }
    }

    /// How many transactions rnet made since the last question.
    #[track_caller]
    pub fn transactions(&mut self) -> usize {
        let lines = self.up_to_mark();
        lines.iter().filter(|line| line.starts_with("# new generation") && line.contains("(rnet)")).count()
    }
}

/// Runs rnet and asserts that it only asks the kernel, and changes nothing in it.
#[track_caller]
pub fn only_asks(lab: &Lab, words: &[&str]) {
    lab.strace(&["-e", "trace=sendto,sendmsg,openat"], words).ok();
    let changes = lab.sh(
        "grep -E 'RTM_(NEW|DEL|SET)|NFNL_MSG_BATCH_BEGIN|/proc/sys.*O_(WRONLY|RDWR)' /run/lab/strace || true",
    );
    assert_eq!(changes.text(), "", "what `rnet {}` changes", words.join(" "));
}
