//! `rnet agent`: one for a run directory, asked on its socket, and gone without a trace.

use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;

use crate::{command::until, harness::tests, lab::Lab};

tests! {
    stays_in_the_foreground_until_sigterm,
    returns_once_it_answers,
    there_is_one_for_a_run_directory,
    one_that_stays_takes_the_place_of_one_that_does_not,
    it_keeps_nothing_open_of_who_started_it,
    is_begun_again_after_a_kill,
    nobody_else_may_ask_it,
    without_an_agent_it_says_so,
    words_that_make_no_sense_are_refused_and_it_goes_on,
    keeps_nothing_of_its_caller,
}

fn stays_in_the_foreground_until_sigterm(lab: &Lab) {
    let agent = lab.start(&["agent", "--foreground"]);
    until("the agent answers", || lab.rn("agent --status").succeeded());
    let status = lab.rn("agent --status").ok().json();
    assert_eq!(status["stays"], true, "{status}");
    agent.signal(Signal::TERM);
    agent.wait().ok().silent();
    lab.is_clean();
}

fn returns_once_it_answers(lab: &Lab) {
    lab.rn("agent").ok().silent();
    assert_eq!(lab.rn("agent --status").ok().json()["stays"], false);
    lab.rn("agent --stop").ok().silent();
    lab.is_clean();
}

fn there_is_one_for_a_run_directory(lab: &Lab) {
    lab.rn("agent").ok();
    let first = lab.rn("agent --status").ok().json()["pid"].clone();
    lab.rn("agent").ok().silent();
    assert_eq!(lab.rn("agent --status").ok().json()["pid"], first);
    lab.rn("--root /run/other --run /run/other-run agent").ok().silent();
    lab.rn("--root /run/other --run /run/other-run agent --stop").ok().silent();
    assert_eq!(lab.rn("agent --status").ok().json()["pid"], first);
    lab.rn("agent --stop").ok();
}

fn one_that_stays_takes_the_place_of_one_that_does_not(lab: &Lab) {
    lab.rn("agent").ok();
    let agent = lab.start(&["agent", "--foreground"]);
    let stays = || lab.rn("agent --status").succeeded_json().is_some_and(|status| status["stays"] == true);
    until("the agent in the foreground answers", stays);
    let pid = lab.rn("agent --status").ok().json()["pid"].to_string();
    lab.rn("agent --foreground").fails_with(&format!("rnet: the agent: it runs already, as process {pid}"));
    agent.signal(Signal::TERM);
    agent.wait().ok();
}

fn it_keeps_nothing_open_of_who_started_it(lab: &Lab) {
    lab.needs("flock");
    for start in ["rnet agent", "rnet network create blue"] {
        lab.sh(&format!("exec 9>/run/lab/lock; flock 9; {start}")).ok();
        lab.rn("agent --status").ok();
        lab.sh("flock --nonblock /run/lab/lock true").ok();
        lab.rn("agent --stop").ok();
    }
    lab.rn("network rm blue").ok();
}

fn is_begun_again_after_a_kill(lab: &Lab) {
    let agent = lab.start(&["agent", "--foreground"]);
    until("the agent answers", || lab.rn("agent --status").succeeded());
    agent.signal(Signal::KILL);
    agent.wait();
    lab.rn("agent --status").fails_with("rnet: no agent runs");
    lab.rn("agent").ok();
    lab.rn("agent --status").ok();
    lab.rn("agent --stop").ok();
}

fn nobody_else_may_ask_it(lab: &Lab) {
    lab.rn("agent").ok();
    let mode = std::fs::metadata("/run/rnet/agent.sock").expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    if lab.has_many_users() {
        // Even where the folder and the socket were opened to all.
        let ask = "import os,socket\nos.setuid(1000)\ns=socket.socket(socket.AF_UNIX)\n\
            s.connect('/run/rnet/agent.sock')\n\
            try:\n s.send(b'{\"do\":\"ping\"}\\n')\n print(s.recv(100))\n\
            except (ConnectionResetError, BrokenPipeError): print(b'')";
        lab.sh("chmod 755 /run/rnet; chmod 666 /run/rnet/agent.sock").ok();
        lab.python(ask).ok().prints("b''\n");
        lab.sh("chmod 700 /run/rnet").ok();
    }
    lab.rn("agent --stop").ok();
}

fn without_an_agent_it_says_so(lab: &Lab) {
    lab.rn("agent --status").fails_with("rnet: no agent runs");
    lab.rn("agent --stop").fails_with("rnet: no agent runs");
    lab.rn("agent --part nosuch").fails_with("rnet: the agent: there is no part nosuch");
    lab.is_clean();
}

fn words_that_make_no_sense_are_refused_and_it_goes_on(lab: &Lab) {
    lab.rn("agent").ok();
    let ask = "import socket\n\
        def ask(text):\n\
        \x20s=socket.socket(socket.AF_UNIX)\n\
        \x20s.settimeout(20)\n\
        \x20s.connect('/run/rnet/agent.sock')\n\
        \x20try:\n\
        \x20\x20s.sendall(text)\n\
        \x20\x20s.shutdown(socket.SHUT_WR)\n\
        \x20\x20return s.recv(200)\n\
        \x20except OSError: return b''\n\
        assert ask(b'{\"do\":\"ping\"}\\n') == b'{\"done\":null}\\n'\n\
        assert b'failed' in ask(b'nonsense\\n')\n\
        assert b'failed' in ask(b'{\"do\":\"ask\",\"part\":\"x\",\"words\":1}\\n')\n\
        assert ask(b'') == b''\n\
        assert ask(b'x' * (2 << 20)) == b''\n\
        assert ask(b'{\"do\":\"ping\"}\\n') == b'{\"done\":null}\\n'\n";
    lab.python(ask).ok();
    lab.rn("agent --stop").ok();
}

/// A lock that the caller holds by a descriptor would be held for as long as the agent lives.
fn keeps_nothing_of_its_caller(lab: &Lab) {
    lab.sh("exec 9>/run/lab/lock; flock 9; rnet network create blue").ok();
    assert!(lab.rn("agent --status").succeeded(), "the network has names, so an agent runs");
    lab.sh("flock -n /run/lab/lock true").ok();
    lab.sh("exec 9>/run/lab/lock; flock 9; rnet agent --stop; rnet agent").ok();
    lab.sh("flock -n /run/lab/lock true").ok();
    lab.rn("agent --stop").ok();
    lab.rn("network rm blue").ok();
}
